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
from make_a_video_pytorch.feed_forward import FeedForward
from make_a_video_pytorch.resnet import Block

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


class Entry(NamedTuple):
    build: Callable[[], nn.Module]
    shape: tuple[int, int, int, int, int]  # of a video it takes: b c f h w
    timestep: bool = False

    def video(self, **kwargs) -> Tensor:
        return torch.randn(self.shape, **kwargs)

    def extra(self, dtype=None) -> dict[str, Tensor]:
        """Further arguments of its forward."""
        return {"timestep": torch.tensor([3, 811])[: self.shape[0]]} if self.timestep else {}


def attention(**kwargs) -> Callable[[], nn.Module]:
    return lambda: SpatioTemporalAttention(7, dim_head=8, heads=3, **kwargs)


def unet(**kwargs) -> Callable[[], nn.Module]:
    return lambda: SpaceTimeUnet(**{**UNET, **kwargs})


SMALL, EVEN, LARGE = (2, 7, 3, 5, 9), (2, 7, 4, 6, 10), (2, 3, 6, 8, 12)

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
    "attention-alone": Entry(attention(add_feed_forward=False), SMALL),
    "feed-forward": Entry(lambda: FeedForward(7), SMALL),
    "block": Entry(lambda: Block(7, 4), SMALL),
    "resnet": Entry(lambda: ResnetBlock(7, 4), SMALL),
    "resnet-same": Entry(lambda: ResnetBlock(7, 7, causal=True), SMALL),
    "down-space": Entry(lambda: Downsample(7), EVEN),
    "up-space": Entry(lambda: Upsample(7, nonlin=True), SMALL),
    "unet": Entry(unet(), LARGE, timestep=True),
    "unet-rotary": Entry(unet(attn_rotary=True, attn_pos_bias=False), LARGE, timestep=True),
    "unet-causal": Entry(unet(causal=True), LARGE, timestep=True),
    "unet-no-timestep": Entry(unet(condition_on_timestep=False), LARGE),
}

# Those that change the number of frames, or change it inside.
RESAMPLING = {
    "down-both": Entry(lambda: Downsample(7, downsample_time=True), EVEN),
    "down-time": Entry(lambda: Downsample(7, False, True), EVEN),
    "up-both": Entry(lambda: Upsample(7, upsample_time=True), SMALL),
    "up-time": Entry(lambda: Upsample(7, False, True), SMALL),
    "unet-compressed": Entry(unet(temporal_compression=(False, True)), LARGE, timestep=True),
    "unet-to-one-frame": Entry(
        unet(temporal_compression=(True, True)), (2, 3, 4, 8, 12), timestep=True
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
