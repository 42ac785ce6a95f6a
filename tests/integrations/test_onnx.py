"""Exported to ONNX and run by onnxruntime."""

import logging

import pytest
import torch
from torch.export import Dim

from make_a_video_pytorch import SpatioTemporalAttention, deflate
from make_a_video_pytorch.modules.feed_forward import FeedForward
from make_a_video_pytorch.ops.norm import RMSNorm
from tests.integrations.small import (
    IMAGE_MODELS,
    UNETS,
    first,
    missing,
    picture,
    video_model,
    waves,
)
from tests.zoo import randomize

onnxruntime = pytest.importorskip("onnxruntime", reason=missing("onnxruntime"))
pytest.importorskip("onnxscript", reason=missing("onnxscript"))
pytest.importorskip("diffusers", reason=missing("diffusers"))

pytestmark = [  # torch's own
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]
UNET = pytest.mark.parametrize("kind", UNETS.values(), ids=UNETS)
KIND = IMAGE_MODELS["diffusers"]  # onnxscript takes no attention with 3 axes, as that of Net


@pytest.fixture(autouse=True)
def quiet():
    """The exporter tells of libraries that are not there."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


class Exported:
    """`module` as onnxruntime runs it, called in the same way."""

    def __init__(self, module, x, extra, **arguments):
        program = torch.onnx.export(
            module,
            x if isinstance(x, tuple) else (x,),
            kwargs=extra,
            dynamo=True,
            verbose=False,
            **arguments,
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, x, **extra):
        tensors = [x, *(t for t in extra.values() if isinstance(t, torch.Tensor))]
        names = [given.name for given in self.session.get_inputs()]
        given = {n: t.numpy() for n, t in zip(names, tensors, strict=True)}
        return torch.from_numpy(self.session.run(None, given)[0])


def same(exported, module, x, extra):
    with torch.no_grad():
        expected = first(module(x, **extra))
    result = exported(x, **extra)
    assert expected.isfinite().all()
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def attention(**kwargs):
    return randomize(
        SpatioTemporalAttention(7, dim_head=8, heads=3, context_dim=6, **kwargs), 0.2
    ).eval()


def attended(b, f):
    """The first sample has no token."""
    mask = torch.arange(5) < torch.linspace(0, 4, b)[:, None]
    x = waves(b, 7, f, 4, 6)
    return x if f > 1 else x[:, :, 0], {"context": waves(b, 5, 6), "context_mask": mask}


@pytest.mark.parametrize("f", [1, 3])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"rotary": True, "causal_time_attn": True, "temporal_window": 1}, {"flash": False}],
    ids=["bias", "rotary-causal-window", "explicit"],
)
def test_attention_with_its_learned_bias(f, arguments):
    module = attention(**arguments)
    assert module.temporal_rel_pos_bias is not None
    x, extra = attended(2, f)
    exported = Exported(module, x, extra)  # with gradients on, as is the default
    same(exported, module, x, extra)


def test_attention_takes_any_number_of_samples_and_frames():
    module = attention()
    any_size = Dim.DYNAMIC
    sizes = {"x": {0: any_size, 2: any_size}, "context": {0: any_size}}
    sizes["context_mask"] = {0: any_size}
    exported = Exported(module, *attended(2, 4), dynamic_shapes=sizes)
    for b, f in ((2, 4), (3, 7), (1, 2)):
        same(exported, module, *attended(b, f))


@UNET
@pytest.mark.parametrize("f", [1, 4])
def test_a_unet_with_every_condition(kind, f):
    module, x, extra = kind.make(), picture(2, f), kind.extra(2)
    exported = Exported(module, x, extra)
    same(exported, module, x, extra)
    extra["context_mask"] = torch.zeros(2, 5, dtype=torch.bool)
    same(exported, module, x, extra)
    same(exported, module, torch.zeros_like(x), extra)


def test_a_unet_takes_any_number_of_samples_and_frames():
    kind = UNETS["compressed"]
    module, extra = kind.make(), kind.extra(2)
    sizes = {name: {0: Dim.AUTO} for name in extra}
    exported = Exported(
        module, picture(2, 4), extra, dynamic_shapes={"x": {0: Dim.AUTO, 2: Dim.AUTO}, **sizes}
    )
    for b, f in ((3, 6), (1, 2)):
        same(exported, module, picture(b, f), kind.extra(b))


@pytest.mark.parametrize("f", [1, 4])
def test_an_inflated_model(f):
    image_model = KIND.make()
    module, x, extra = video_model(image_model).eval(), picture(2, f), KIND.extra(2)
    exported = Exported(module, x, extra)
    same(exported, module, x, extra)
    same(exported, module, torch.zeros_like(x), extra)
    images = deflate(module)
    if f == 1:
        same(exported, images, x, extra)


def test_an_inflated_model_takes_any_number_of_samples_and_frames():
    module = video_model(KIND.make()).eval()
    extra = {name: t for name, t in KIND.extra(2).items() if isinstance(t, torch.Tensor)}
    sizes = ({0: Dim.AUTO, 2: Dim.AUTO}, *({0: Dim.AUTO} for _ in extra))
    exported = Exported(
        module, (picture(2, 4), *extra.values()), {}, dynamic_shapes={"args": sizes}
    )
    for b, f in ((3, 6), (1, 2)):
        same(exported, module, picture(b, f), KIND.extra(b))


@torch.no_grad()
@pytest.mark.parametrize("module", [RMSNorm(7), FeedForward(7)], ids=["norm", "feed-forward"])
def test_small_activations_are_normed_alike(module):
    """The hidden layer of a feed-forward is about the square of its input."""
    randomize(module.eval(), 0.3)
    x = waves(2, 7, 3, 4, 6)
    exported = Exported(module, x, {})
    for scale in (1, 1e-2, 1e-3, 1e-5):
        expected = module(x * scale)
        off = (exported(x * scale) - expected).abs().max() / expected.abs().max()
        assert off < 1e-4, scale


def test_inflate_keeps_the_mode():
    """The exporter warns of a model in training mode."""
    for training in (False, True):
        model = video_model(KIND.make().train(training))
        assert {module.training for module in model.modules()} == {training}
