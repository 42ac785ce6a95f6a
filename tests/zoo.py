"""Every module of the library in a small, odd configuration, for the tests that hold for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from make_a_video_pytorch import (
    Downsample,
    PseudoConv3d,
    ResnetBlock,
    SpaceTimeUnet,
    SpatioTemporalAttention,
    Upsample,
)
from make_a_video_pytorch.modules.feed_forward import FeedForward
from make_a_video_pytorch.modules.resnet import Block

# What a U-Net can be conditioned on.
CONDITIONS = dict(
    cond_channels=2, channels_out=6, cond_dim=4, context_dim=6, condition_on_fps=True,
    condition_on_noise_level=True,
)  # fmt: skip

UNET = dict(
    dim=5,
    channels=3,
    dim_mult=(1, 2),
    self_attns=(False, True),
    temporal_compression=(False, False),
    resnet_block_depths=(1, 2),
    attn_dim_head=8,
    attn_heads=3,
)


EXTRA = {
    "timestep": lambda: torch.tensor([3, 811]),
    "cond": lambda: torch.linspace(-1, 1, 2 * 4).view(2, 4),
    "context": lambda: torch.linspace(-1, 1, 2 * 5 * 6).cos().view(2, 5, 6),
    "context_mask": lambda: torch.arange(5) < torch.tensor([[3], [5]]),
    "fps": lambda: torch.tensor([8.0, 24.0]),
    "noise_level": lambda: torch.tensor([30, 400]),
    "cond_images": lambda: torch.linspace(-1, 1, 2 * 2 * 8 * 12).view(2, 2, 8, 12),
}


# The smallest U-Net, for what takes seconds.
ONE_STAGE = dict(
    dim=4, dim_mult=(2,), self_attns=(True,), temporal_compression=(True,),
    resnet_block_depths=(1,), attn_dim_head=8, attn_heads=2,
)  # fmt: skip


class Entry(NamedTuple):
    build: Callable[[], nn.Module]
    shape: tuple[int, int, int, int, int]  # of a video it takes: b c f h w
    takes: tuple[str, ...] = ()  # what else its forward takes, of EXTRA

    def video(self, **kwargs) -> Tensor:
        return torch.randn(self.shape, **kwargs)

    def extra(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Further arguments of its forward."""
        extra = {name: EXTRA[name]() for name in self.takes}
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in extra.items()}


def attention(**kwargs) -> Callable[[], nn.Module]:
    return lambda: SpatioTemporalAttention(7, dim_head=8, heads=3, **kwargs)


def unet(**kwargs) -> Callable[[], nn.Module]:
    return lambda: SpaceTimeUnet(**{**UNET, **kwargs})


SMALL, EVEN, LARGE = (2, 7, 3, 5, 9), (2, 7, 4, 6, 10), (2, 3, 6, 8, 12)
LONG = (2, 7, 6, 2, 3)

# All of whose temporal parts start as the identity.
IDENTITY = {
    "conv": Entry(lambda: PseudoConv3d(7, 11, 3), SMALL),
    "conv-5x2": Entry(lambda: PseudoConv3d(7, 4, 5, temporal_kernel_size=2), SMALL),
    "conv-1x3": Entry(lambda: PseudoConv3d(7, 4, 1, temporal_kernel_size=3), SMALL),
    "conv-causal": Entry(lambda: PseudoConv3d(7, 11, 3, causal=True), SMALL),
    "attention-bias": Entry(attention(), SMALL),
    "attention-plain": Entry(attention(pos_bias=False), SMALL),
    "attention-rotary": Entry(attention(pos_bias=False, rotary=True), SMALL),
    "attention-bias-rotary": Entry(attention(rotary=True), SMALL),
    "attention-explicit": Entry(attention(flash=False), SMALL),
    "attention-causal": Entry(attention(causal_time_attn=True), SMALL),
    "attention-causal-plain": Entry(attention(causal_time_attn=True, pos_bias=False), SMALL),
    "attention-window": Entry(attention(temporal_window=1), LONG),
    "attention-window-causal": Entry(
        attention(temporal_window=2, causal_time_attn=True, rotary=True), LONG
    ),
    "attention-context": Entry(attention(context_dim=6), SMALL, ("context", "context_mask")),
    "attention-alone": Entry(attention(add_feed_forward=False), SMALL),
    "feed-forward": Entry(lambda: FeedForward(7), SMALL),
    "block": Entry(lambda: Block(7, 4), SMALL),
    "resnet": Entry(lambda: ResnetBlock(7, 4), SMALL),
    "resnet-same": Entry(lambda: ResnetBlock(7, 7, causal=True), SMALL),
    "down-space": Entry(lambda: Downsample(7), EVEN),
    "up-space": Entry(lambda: Upsample(7, nonlin=True), SMALL),
    "unet": Entry(unet(), LARGE, ("timestep",)),
    "unet-rotary": Entry(unet(attn_rotary=True, attn_pos_bias=False), LARGE, ("timestep",)),
    "unet-causal": Entry(unet(causal=True), LARGE, ("timestep",)),
    "unet-no-timestep": Entry(unet(condition_on_timestep=False), LARGE),
    "unet-conditions": Entry(unet(**CONDITIONS), LARGE, tuple(EXTRA)),
    "unet-window-checkpoint": Entry(
        unet(temporal_window=2, gradient_checkpointing=True), LARGE, ("timestep",)
    ),
}

# Those that change the number of frames, or change it inside.
RESAMPLING = {
    "down-both": Entry(lambda: Downsample(7, downsample_time=True), EVEN),
    "down-time": Entry(lambda: Downsample(7, False, True), EVEN),
    "up-both": Entry(lambda: Upsample(7, upsample_time=True), SMALL),
    "up-time": Entry(lambda: Upsample(7, False, True), SMALL),
    "unet-compressed": Entry(unet(temporal_compression=(False, True)), LARGE, ("timestep",)),
    "unet-to-one-frame": Entry(
        unet(temporal_compression=(True, True)), (2, 3, 4, 8, 12), ("timestep",)
    ),
}

EVERY = IDENTITY | RESAMPLING


def each(entries: dict[str, Entry]):
    """Parametrise a test over `entries`."""
    return pytest.mark.parametrize("entry", entries.values(), ids=entries.keys())


def randomize(module: nn.Module, scale: float = 0.3) -> nn.Module:
    """Give every parameter a random value, so that nothing is an identity any more."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0, scale)
    return module


def as_in_1_0_0(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the names and the shapes that 1.0.0 gave it."""
    old = {}
    for name, tensor in state.items():
        if name.endswith(("temporal_conv.weight", "temporal.conv.weight")):
            old[name] = tensor.squeeze(-1)
        elif name.endswith("to_k.weight"):
            both = tensor, state[name.replace("to_k", "to_v")]
            old[name.replace("to_k", "to_kv")] = torch.cat(both)
        elif not name.endswith("to_v.weight"):
            old[name] = tensor
    return old
