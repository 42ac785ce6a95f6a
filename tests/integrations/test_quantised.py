"""Linears in int8 and fp8: torchao, and torch's dynamic quantisation."""

import copy
import warnings

import pytest
import torch
from torch import nn

from make_a_video_pytorch import spatial_parameters, temporal_parameters
from tests.integrations.small import IMAGE_MODELS, UNETS, differs, missing, video_model

pytest.importorskip("torchao", reason=missing("torchao"))
pytest.importorskip("diffusers", reason=missing("diffusers"))

with warnings.catch_warnings():  # of what it makes of its own enums
    warnings.simplefilter("ignore")
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    from torchao.float8.float8_linear import Float8Linear
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )

pytestmark = [  # torch's own, of quantize_dynamic
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
]


def is_wide(module, name):
    """Not the first layer of a position bias: torchao fails on nn.Linear(1, n)."""
    return isinstance(module, nn.Linear) and module.in_features > 1


def int8_weights(model):
    quantize_(model, Int8WeightOnlyConfig(), filter_fn=is_wide)
    return model


def int8_activations_too(model):
    quantize_(model, Int8DynamicActivationInt8WeightConfig(), filter_fn=is_wide)
    return model


def fp8_training(model):
    """What a GPU computes, emulated."""
    config = Float8LinearConfig(emulate=True)
    return convert_to_float8_training(
        model, config=config, module_filter_fn=lambda m, name: isinstance(m, nn.Linear)
    )


def dynamic(model):
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear})


# and how far the output may be from what it was, of its largest value
WAYS = {
    "int8-weights": (int8_weights, 0.01),
    "int8-activations-too": (int8_activations_too, 0.02),
    "fp8-training": (fp8_training, 0.1),  # three bits of mantissa: a sixteenth in each factor
    "dynamic": (dynamic, 0.06),
}
each_way = pytest.mark.parametrize(("quantised", "tolerance"), WAYS.values(), ids=WAYS)
each_unet = pytest.mark.parametrize("kind", UNETS.values(), ids=UNETS)
each_kind = pytest.mark.parametrize("kind", IMAGE_MODELS.values(), ids=IMAGE_MODELS)
# videos, images, and two rows b*f = 2 in both ways; three rows, one row
CALLS = ((2, 4), (3, 2), (2, 1), (1, 2), (3, 1), (1, 1))


def is_near(result, expected, tolerance):
    assert 0 < (result - expected).abs().max() < tolerance * expected.abs().max()


@each_unet
@each_way
def test_a_quantised_unet_gives_nearly_the_same(kind, quantised, tolerance):
    model = kind.make()
    expected = [kind.call(model, b, f) for b, f in CALLS]
    model = quantised(copy.deepcopy(model))
    for (b, f), wanted in zip(CALLS, expected, strict=True):
        is_near(kind.call(model, b, f), wanted, tolerance)


@each_kind
@each_way
@pytest.mark.parametrize("part", ["", "model", "temporal"])
def test_a_quantised_inflated_model_gives_nearly_the_same(kind, quantised, tolerance, part):
    model = video_model(kind.make())
    expected = [kind.call(model, b, f) for b, f in CALLS]
    if part == "":
        model = quantised(model)
    else:
        setattr(model, part, quantised(getattr(model, part)))
    for (b, f), wanted in zip(CALLS, expected, strict=True):
        if part == "temporal" and f == 1:  # which images do not reach
            assert torch.equal(kind.call(model, b, f), wanted)
        else:
            is_near(kind.call(model, b, f), wanted, tolerance)


@each_kind
@each_way
def test_a_quantised_image_model_can_be_inflated(kind, quantised, tolerance):
    image_model = kind.make()
    model = video_model(copy.deepcopy(image_model))
    expected, motion = kind.call(model), model.temporal_state_dict()
    model = video_model(quantised(image_model), motion)
    is_near(kind.call(model), expected, tolerance)


def test_motion_that_is_quantised_is_not_loaded_over():
    motion = video_model(IMAGE_MODELS["net"].make()).temporal_state_dict()
    for quantised, error, why in (
        (int8_weights, RuntimeError, "While copying the parameter"),  # torch's and torchao's
        (dynamic, ValueError, "`pixels.temporal.attn.to_k.weight` is hidden by what is wrapped"),
    ):
        model = quantised(video_model(IMAGE_MODELS["net"].make()))
        with pytest.raises(error, match=why):
            model.load_temporal_state_dict(motion)


@each_unet
@pytest.mark.parametrize(("b", "f"), [(2, 4), (1, 2), (2, 1)])
def test_fp8_training_has_nearly_the_same_gradients(kind, b, f):
    model = kind.make()
    twin = fp8_training(copy.deepcopy(model))
    assert any(isinstance(module, Float8Linear) for module in twin.modules())
    for net in (model, twin):
        kind.call(net, b, f).square().mean().backward()
    for parameters in (spatial_parameters, temporal_parameters):
        pairs = zip(parameters(model), parameters(twin), strict=True)
        grads = [(p.grad, q.grad) for p, q in pairs if p.grad is not None or q.grad is not None]
        if f == 1 and parameters is temporal_parameters:
            assert not grads
            continue
        plain, quantised = (torch.cat([g.flatten() for g in gs]) for gs in zip(*grads, strict=True))
        assert torch.cosine_similarity(plain, quantised, dim=0) > 0.98


def test_fp8_layers_learn_motion():
    kind = IMAGE_MODELS["net"]
    model = fp8_training(video_model(kind.make())).requires_grad_(False)
    learning = temporal_parameters(model)
    before = kind.call(model)
    for parameter in learning:
        parameter.requires_grad_()
    optimizer, losses = torch.optim.Adam(learning, lr=0.02), []
    for _ in range(4):
        optimizer.zero_grad()
        losses.append((kind.call(model) - 1).square().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert differs(kind.call(model), before)
