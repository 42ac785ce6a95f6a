"""`inflate` on models of the libraries, in small random configurations."""

import copy
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from benchmarks.image_models import (
    MODELS,
    ImageModel,
    Inputs,
    call,
    first_frames,
    folded,
    unfolded,
)
from make_a_video_pytorch import deflate, inflate, spatial_parameters, temporal_parameters

# how many convolutions and attentions are inflated
COUNTS = {
    "UNet2DModel": (20, 4),
    "UNet2DConditionModel": (20, 4),
    "UNet2DConditionModel of SDXL": (20, 8),
    "AutoencoderKL": (26, 2),
    "AsymmetricAutoencoderKL": (31, 2),
    "ControlNetModel": (14, 2),
    "DiTTransformer2DModel": (1, 2),
    "denoising_diffusion_pytorch.Unet": (26, 5),
    "denoising_diffusion_pytorch.classifier_free_guidance.Unet": (27, 5),
    "UViT": (19, 6),
    "dalle2_pytorch.Unet": (25, 3),
    "imagen_pytorch.Unet": (27, 3),
    "VisionTransformer": (1, 2),
    "VisionTransformerRelPos": (1, 2),
    "Eva": (1, 2),
    "Beit": (1, 2),
    "ResNet": (10, 0),
    "EfficientNet": (6, 0),
    "NormFreeNet": (12, 0),
    "resnet18": (17, 0),
}
# what a call without a mask does not reach
UNREACHED = {
    "AsymmetricAutoencoderKL": [f"decoder.condition_encoder.layers.{layer}" for layer in range(5)]
}
# how activation checkpointing is turned on
CHECKPOINTS = {
    "dalle2_pytorch.Unet": lambda model: setattr(model, "checkpoint_during_training", True),
    "UNet2DConditionModel": lambda model: model.enable_gradient_checkpointing(),
    "VisionTransformer": lambda model: model.set_grad_checkpointing(),
    "ResNet": lambda model: model.set_grad_checkpointing(),
}


class Case(NamedTuple):
    """A model, not inflated, and what it gives."""

    name: str
    original: nn.Module
    inputs: Inputs  # a video among them
    images: list[Tensor]  # what it gives for the first frames
    video: list[Tensor]  # what it gives for all frames, as a batch, unfolded

    def inflated(self):
        return inflate(copy.deepcopy(self.original), heads=3, dim_head=2)


def model_of(name) -> ImageModel:
    entry = MODELS[name]
    why = f'{entry.package} is missing: pip install -c constraints.txt -e ".[test-integrations]"'
    pytest.importorskip(entry.package.replace("-", "_"), reason=why)
    return entry


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    entry = model_of(request.param)
    original, inputs = entry.make(), entry.inputs()
    with torch.no_grad():
        images = call(original, first_frames(inputs))
        video = unfolded(call(original, folded(inputs)))
    return Case(request.param, original, inputs, images, video)


def moved(model):
    """`model` with temporal parts that are no longer zero, and keep the scale of what they see."""
    with torch.no_grad():
        for p in temporal_parameters(model):
            scale = 0.5 * p[0].numel() ** -0.5 if p.ndim > 1 else 0.1
            p.add_(torch.randn_like(p), alpha=scale)
    return model


def loss(results):
    return sum(result.square().mean() for result in results)


def same(results, expected):
    return len(results) == len(expected) > 0 and all(map(torch.equal, results, expected))


@torch.no_grad()
def test_images_and_first_videos_are_the_originals_bit_for_bit(case):
    model = case.inflated()
    convs, attentions = COUNTS[case.name]
    assert f"convs={convs}, attentions={attentions}, " in repr(model)
    assert same(call(model, first_frames(case.inputs)), case.images)
    assert same(call(model, case.inputs), case.video)
    x, conditions = first_frames(case.inputs)
    result = model(x, **conditions)
    assert type(result) is type(case.original(x, **conditions))


@torch.no_grad()
def test_frames_see_each_other_and_images_stay_what_they_were(case):
    model = moved(case.inflated())
    assert same(call(model, first_frames(case.inputs)), case.images)
    before = call(model, case.inputs)
    x, conditions = copy.deepcopy(case.inputs)
    x[0, :, 1] += 1
    after = call(model, (x, conditions))
    frames = 2 if before[0].ndim == 5 else 1
    changed = before[0].sub(after[0]).abs().movedim(frames, 1).flatten(2).amax(2) > 0
    assert changed[0].all()
    assert not changed[1].any()
    for result, at_first in zip(before, case.video, strict=True):
        assert result.isfinite().all()
        assert not torch.allclose(result, at_first)


def test_videos_reach_every_temporal_parameter_and_images_none(case):
    model = moved(case.inflated())
    x, conditions = case.inputs
    unreached = model.check(x, **conditions)
    assert unreached == UNREACHED.get(case.name, [])
    loss(call(model, first_frames(case.inputs))).backward()
    assert all(p.grad is None for p in temporal_parameters(model))
    model.zero_grad()
    for parameter in spatial_parameters(model):
        parameter.requires_grad_(False)
    loss(call(model, case.inputs)).backward()
    assert all(p.grad is None for p in spatial_parameters(model))
    for key, part in model.temporal.items():
        name = model.temporal.names[key]
        for parameter in part.parameters():
            assert parameter.grad is None if name in unreached else parameter.grad.any(), name


@torch.no_grad()
def test_deflate_gives_the_model_back(case):
    model = moved(case.inflated())
    call(model, case.inputs)
    image_model = deflate(model)
    assert type(image_model) is type(case.original)
    assert list(image_model.state_dict()) == list(case.original.state_dict())
    assert same(call(image_model, first_frames(case.inputs)), case.images)
    assert same(unfolded(call(image_model, folded(case.inputs))), case.video)


@torch.no_grad()
def test_temporal_parts_move_to_a_fine_tuned_copy(case):
    model = moved(case.inflated())
    tuned = copy.deepcopy(case.original)
    for parameter in tuned.parameters():
        parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    images = call(tuned, first_frames(case.inputs))
    assert not same(images, case.images)
    model.model.load_state_dict(tuned.state_dict(), strict=False)  # the fine-tuning, moved here
    other = inflate(tuned, heads=3, dim_head=2)
    other.load_temporal_state_dict(model.temporal_state_dict())
    assert same(call(other, first_frames(case.inputs)), images)
    assert same(call(other, case.inputs), call(model, case.inputs))


@pytest.mark.filterwarnings("ignore:.*use_reentrant:UserWarning")  # dalle2-pytorch's own
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_of_a_librarys_own_change_no_gradient(name):
    entry = model_of(name)
    model, inputs, grads = moved(inflate(entry.make())).train(), entry.inputs(), []
    for checkpoints in (False, True):
        if checkpoints:
            CHECKPOINTS[name](model.model)
        model.zero_grad()
        loss(call(model, inputs)).backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*grads)


@torch.no_grad()
def test_an_autoencoder_encodes_and_decodes():
    entry = model_of("AutoencoderKL")
    original, inputs = entry.make(), entry.inputs()
    model = inflate(copy.deepcopy(original))
    x, frames = inputs[0], folded(inputs)[0]
    posterior = model.run(model.model.encode, x).latent_dist
    expected = original.encode(frames).latent_dist
    assert type(posterior) is type(expected)
    latents = posterior.mode()
    assert same([latents], unfolded([expected.mode()]))
    decoded = model.run(model.model.decode, latents).sample
    frames_decoded = original.decode(folded((latents, {}))[0]).sample
    assert same([decoded], unfolded([frames_decoded]))
    moved(model)
    assert not torch.equal(model.run(model.model.encode, x).latent_dist.mode(), latents)
    assert not torch.equal(model.run(model.model.decode, latents).sample, decoded)
    first = model.run(model.model.encode, x[:, :, 0]).latent_dist.mode()
    assert same([first], [original.encode(x[:, :, 0]).latent_dist.mode()])


@torch.no_grad()
@pytest.mark.parametrize(
    "name",
    [
        "dalle2_pytorch.Unet",
        "denoising_diffusion_pytorch.classifier_free_guidance.Unet",
        "imagen_pytorch.Unet",
    ],
)
def test_guidance_is_another_entry_point(name):
    entry = model_of(name)
    original, (x, conditions) = entry.make(), entry.inputs()
    conditions.pop("cond_drop_prob", None)  # which guidance sets
    inputs = x, {**conditions, "cond_scale": 3.0}
    model = inflate(copy.deepcopy(original))

    def guided(*args, **kwargs):
        return model.run(model.model.forward_with_cond_scale, *args, **kwargs)

    video = call(guided, inputs)
    assert same(video, unfolded(call(original.forward_with_cond_scale, folded(inputs))))
    assert not same(video, call(guided, (x, {**conditions, "cond_scale": 1.0})))
    images = call(guided, first_frames(inputs))
    assert same(images, call(original.forward_with_cond_scale, first_frames(inputs)))
    moved(model)
    assert not same(call(guided, inputs), video)
    assert same(call(guided, first_frames(inputs)), images)
