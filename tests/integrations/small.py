"""The smallest U-Nets that the integrations are tested with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from make_a_video_pytorch import InflatedModel, SpaceTimeUnet, inflate
from tests.image_models import ATTENTION, Net, plain_net, small_text_unet
from tests.zoo import CONDITIONS, ONE_STAGE, randomize

UNET = {
    "dim": 4,
    "dim_mult": (1, 2),
    "self_attns": (False, True),
    "temporal_compression": (False, False),
    "resnet_block_depths": (1, 1),
    "attn_heads": 2,
    "attn_dim_head": 4,
}


def trained(module: nn.Module) -> nn.Module:
    """`module` with weights that are nowhere zero, as after a training."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return module


def missing(package: str) -> str:
    """Why a test is skipped."""
    return f'{package} is missing: pip install -c constraints.txt -e ".[test-integrations]"'


# What tools are wrapped around, each with all that it takes.


class Wrapped(NamedTuple):
    """A model with random weights, and what it is given beside a picture."""

    build: Callable[[], nn.Module]
    extra: Callable[[int], dict[str, object]]

    def make(self) -> nn.Module:
        return randomize(self.build(), 0.2).eval()

    def call(self, model: nn.Module, b: int = 2, f: int = 4) -> Tensor:
        """What `model` makes of always the same video, or image where `f` is 1."""
        return first(model(picture(b, f), **self.extra(b)))


def picture(b: int, f: int) -> Tensor:
    video = waves(b, 3, f, 4, 6)
    return video if f > 1 else video[:, :, 0]


def waves(*shape: int) -> Tensor:
    """Numbers between -1 and 1 that look random."""
    return (torch.arange(torch.Size(shape).numel()).view(shape) * 1.7).square().cos()


def first(result: object) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


def conditions(b: int) -> dict[str, Tensor]:
    return {
        "timestep": torch.linspace(0.1, 0.9, b),
        "cond": waves(b, 4),
        "context": waves(b, 5, 6),
        "context_mask": torch.arange(5) < torch.linspace(3, 5, b)[:, None],
        "fps": torch.full((b,), 8.0),
        "noise_level": torch.full((b,), 90),
        "cond_images": waves(b, 2, 4, 6),
    }


def space_time_unet(**kwargs) -> SpaceTimeUnet:
    return SpaceTimeUnet(**{**ONE_STAGE, **CONDITIONS, **kwargs})


UNETS = {
    "compressed": Wrapped(space_time_unet, conditions),
    "causal": Wrapped(
        lambda: space_time_unet(temporal_compression=(False,), causal=True), conditions
    ),
}
IMAGE_MODELS = {
    "net": Wrapped(
        plain_net, lambda b: {"timestep": torch.linspace(0.1, 0.9, b), "context": waves(b, 5, 4)}
    ),
    "diffusers": Wrapped(
        small_text_unet,
        lambda b: {
            "timestep": torch.linspace(3, 500, b),
            "encoder_hidden_states": waves(b, 4, 5),
            "return_dict": False,
        },
    ),
}


def video_model(image_model: nn.Module, motion: dict[str, Tensor] | None = None) -> InflatedModel:
    """`image_model`, inflated, with this `motion`, or with one that is always the same."""
    kinds = (*ATTENTION,) if any(isinstance(m, Net) for m in image_model.modules()) else "auto"
    model = inflate(image_model, attention=kinds, heads=2, dim_head=2)
    if motion is None:
        shapes = {name: tensor.shape for name, tensor in model.temporal_state_dict().items()}
        motion = {name: 0.3 * waves(*shape) for name, shape in shapes.items()}
    model.load_temporal_state_dict(motion)
    return model


def close(result: Tensor, expected: Tensor) -> None:
    """To rounding: where layers are summed in another order."""
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def differs(result: Tensor, other: Tensor) -> bool:
    """By more than rounding."""
    return bool((result - other).abs().max() > 1e-3 * other.abs().max())
