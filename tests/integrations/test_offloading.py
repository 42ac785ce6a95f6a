"""Weights that are elsewhere, or in another dtype, between calls: accelerate and diffusers."""

import copy

import pytest
import torch

from make_a_video_pytorch import ResnetBlock
from tests.integrations.small import (
    IMAGE_MODELS,
    UNETS,
    close,
    differs,
    missing,
    video_model,
    waves,
)
from tests.zoo import randomize

pytest.importorskip("accelerate", reason=missing("accelerate"))
pytest.importorskip("diffusers", reason=missing("diffusers"))

from accelerate import (
    cpu_offload,
    cpu_offload_with_hook,
    disk_offload,
    dispatch_model,
)
from diffusers.hooks import apply_group_offloading, apply_layerwise_casting

CPU = torch.device("cpu")


def to_memory(model, folder):
    cpu_offload(model, CPU)


def to_disk(model, folder):
    disk_offload(model, str(folder), CPU)


def divided(model, folder):
    """Every second child on disk, the others in memory."""
    children = {name: list(part.parameters()) for name, part in model.named_children()}
    places = dict.fromkeys(children, "cpu")
    places.update(dict.fromkeys([name for name in children if children[name]][1::2], "disk"))
    dispatch_model(model, places, "cpu", offload_dir=str(folder), force_hooks=True)


def whole(model, folder):
    cpu_offload_with_hook(model, CPU)


def by_layer(model, folder):
    apply_group_offloading(model, CPU, CPU, offload_type="leaf_level")


def by_block(model, folder):
    apply_group_offloading(model, CPU, CPU, offload_type="block_level", num_blocks_per_group=1)


ACCELERATE = {"memory": to_memory, "disk": to_disk, "divided": divided}
DIFFUSERS = {"layers": by_layer, "blocks": by_block}
OFFLOADING = {**ACCELERATE, "whole": whole, **DIFFUSERS}
each_kind = pytest.mark.parametrize("kind", IMAGE_MODELS.values(), ids=IMAGE_MODELS)
each_unet = pytest.mark.parametrize("kind", UNETS.values(), ids=UNETS)
each_way = pytest.mark.parametrize("offload", OFFLOADING.values(), ids=OFFLOADING)
CALLS = ((2, 4), (2, 1), (1, 2))  # videos, images, a clip of two frames


def outputs(kind, model):
    return [kind.call(model, b, f) for b, f in CALLS]


def all_close(results, expected):
    for result, wanted in zip(results, expected, strict=True):
        close(result, wanted)


@torch.no_grad()
@each_way
def test_an_offloaded_block_computes_the_same(offload, tmp_path):
    block = randomize(ResnetBlock(3, 5, timestep_cond_dim=6), 0.2)
    x, emb = waves(2, 3, 4, 4, 6), waves(2, 6)
    expected = block(x, emb)
    offload(block, tmp_path)
    close(block(x, emb), expected)


@torch.no_grad()
@each_unet
@each_way
def test_an_offloaded_unet_computes_the_same(kind, offload, tmp_path):
    model = kind.make()
    expected = outputs(kind, model)
    offload(model, tmp_path)
    all_close(outputs(kind, model), expected)


@torch.no_grad()
@each_kind
@each_way
@pytest.mark.parametrize("part", ["", "model", "temporal"])
def test_an_inflated_model_is_offloaded_after_inflate(kind, offload, part, tmp_path):
    model = video_model(kind.make())
    expected = outputs(kind, model)
    if offload is divided and part == "":  # what has no parameters cannot lie on disk
        places = {"model": "cpu", "temporal": "disk", "clip": "cpu"}
        dispatch_model(model, places, "cpu", offload_dir=str(tmp_path), force_hooks=True)
    else:
        offload(model.get_submodule(part), tmp_path)
    all_close(outputs(kind, model), expected)


@torch.no_grad()
@each_kind
@each_way
def test_an_image_model_is_offloaded_before_inflate(kind, offload, tmp_path):
    image_model = kind.make()
    model = video_model(copy.deepcopy(image_model))
    expected = outputs(kind, model)
    offload(image_model, tmp_path)
    all_close(outputs(kind, video_model(image_model, model.temporal_state_dict())), expected)


def test_the_motion_of_an_offloaded_model_is_neither_saved_nor_loaded():
    model = video_model(IMAGE_MODELS["diffusers"].make())
    motion = model.temporal_state_dict()
    cpu_offload(model, CPU)
    message = r"`conv_in\.temporal\.conv\.weight` is on meta, as if offloaded: bring it back first"
    with pytest.raises(ValueError, match=message):
        model.temporal_state_dict()
    with pytest.raises(ValueError, match=message):
        model.load_temporal_state_dict(motion)


def cast(dtype, model, pattern="auto"):
    apply_layerwise_casting(model, dtype, torch.float32, skip_modules_pattern=pattern)


def rounded(dtype, model, pattern="auto"):
    """`model` in fp32, with the weights that the casting of `model` keeps in `dtype`."""
    kept = copy.deepcopy(model)
    cast(dtype, kept, pattern)
    dtypes = {t.dtype for t in kept.state_dict().values()}
    assert dtype in dtypes
    model.load_state_dict({name: t.float() for name, t in kept.state_dict().items()})
    return model


each_dtype = pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16])


@torch.no_grad()
@each_unet
@each_dtype
@pytest.mark.parametrize("pattern", ["auto", None, ("to_q", "norm")])
def test_layers_cast_around_their_calls_compute_with_rounded_weights(kind, dtype, pattern):
    model = kind.make()
    plain = outputs(kind, model)
    expected = outputs(kind, rounded(dtype, copy.deepcopy(model), pattern))
    assert differs(expected[0], plain[0])
    cast(dtype, model, pattern)
    all_close(outputs(kind, model), expected)


@torch.no_grad()
@each_kind
@each_dtype
@pytest.mark.parametrize("part", ["", "model", "temporal"])
def test_an_inflated_model_is_cast_after_inflate(kind, dtype, part):
    model = video_model(kind.make())
    twin = copy.deepcopy(model)
    rounded(dtype, twin.get_submodule(part))
    cast(dtype, model.get_submodule(part))
    all_close(outputs(kind, model), outputs(kind, twin))


@torch.no_grad()
@each_kind
@each_dtype
@pytest.mark.parametrize("pattern", ["auto", None])
def test_an_image_model_is_cast_before_inflate(kind, dtype, pattern):
    image_model = kind.make()
    motion = video_model(copy.deepcopy(image_model)).temporal_state_dict()
    expected = video_model(rounded(dtype, copy.deepcopy(image_model), pattern), motion)
    cast(dtype, image_model, pattern)
    all_close(outputs(kind, video_model(image_model, motion)), outputs(kind, expected))
