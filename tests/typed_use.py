"""Calls as a user writes them, for a type checker: nothing here runs.

`mypy` must find no fault with the right ones, and each fault of the wrong ones: an ignore that
ignores nothing is an error of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import make_a_video_pytorch
from make_a_video_pytorch import (
    Downsample,
    InflatedModel,
    PseudoConv3d,
    ResnetBlock,
    SpaceTimeUnet,
    SpatioTemporalAttention,
    Stream,
    TimestepEmbedding,
    Upsample,
    chunk_attention,
    deflate,
    inflate,
    per_frame,
    spatial_parameters,
    temporal_parameters,
)
from make_a_video_pytorch.guidance import NullConditions, drop_conditions, guide
from make_a_video_pytorch.recipes import every, kept_frames, roll_out, sample_clip

if TYPE_CHECKING:
    from typing_extensions import assert_type

    from make_a_video_pytorch.recipes.denoising import Scheduler


def the_unet(x: Tensor, cond: Tensor) -> None:
    unet = SpaceTimeUnet(dim=16, dim_mult=[1, 2], self_attns=(0, 1), cond_dim=4)
    assert_type(unet(x, 5), Tensor)
    assert_type(unet(x, 0.5, False), Tensor)
    assert_type(unet(x, torch.tensor([3]), torch.tensor([True]), cond=cond, fps=8), Tensor)
    assert_type(unet.grow(cond_channels=4), SpaceTimeUnet)
    assert_type(unet.frame_multiple, int)
    unet(x, 5, enable_times=False)  # type: ignore[call-arg]
    unet(x, "5")  # type: ignore[arg-type]
    unet(5, x)  # type: ignore[arg-type]
    unet(x, 5, True, cond)  # type: ignore[call-arg]
    SpaceTimeUnet(16)  # type: ignore[call-arg]
    SpaceTimeUnet(dim=16, dim_mult=2)  # type: ignore[arg-type]
    SpaceTimeUnet(dim=16, dims=(1, 2))  # type: ignore[call-arg]


def modules(x: Tensor) -> Tensor:
    conv, attn = PseudoConv3d(8, causal=True), SpatioTemporalAttention(8, ff_mult=2.5)
    down, up = Downsample(8, downsample_time=True), Upsample(8)
    block, embed = ResnetBlock(8, 8, timestep_cond_dim=32), TimestepEmbedding(8)
    x = block(x, embed(torch.tensor([3])), enable_time=False)
    x = up(down(attn(conv(x), context=x)))
    conv(x, enabletime=False)  # type: ignore[call-arg]
    conv(x, "no")  # type: ignore[arg-type]
    attn(x, x, x)  # type: ignore[call-arg]
    block(x, False)  # type: ignore[arg-type]
    down(x, frame_mask=x)  # type: ignore[call-arg]
    PseudoConv3d(8, kernel=3)  # type: ignore[call-arg]
    Downsample(16, 32)  # type: ignore[arg-type]
    embed(5)  # type: ignore[arg-type]
    return x


def streams(unet: SpaceTimeUnet, model: nn.Module, x: Tensor, scheduler: Scheduler) -> None:
    stream = unet.stream(detach=False)
    assert_type(stream, Stream[Tensor])
    assert_type(stream(x, 5, commit=False), Tensor)
    assert_type(stream.frames, int)
    own: Stream[Tensor] = Stream(model)
    assert_type(own(x), Tensor)
    roll_out(inflate(model).stream(), scheduler, [x], steps=20)
    rolled = roll_out(guide(stream, 2.0), scheduler, x.split(4, dim=2), steps=20, cond=x)
    assert_type(next(rolled), Tensor)
    stream(x, 5, commit=3)  # type: ignore[arg-type]
    roll_out(stream, scheduler, x.split(4))  # type: ignore[call-arg]


def inflated(image_model: nn.Conv2d, x: Tensor) -> None:
    video_model = inflate(image_model, where=lambda name, module: "skip" not in name)
    video_model(x, timestep=per_frame(torch.zeros(2, 8)))
    video_model.load_temporal_state_dict(video_model.temporal_state_dict())
    assert_type(video_model.model, nn.Conv2d)
    assert_type(deflate(video_model), nn.Conv2d)
    takes_inflated(video_model)
    chunk_attention(video_model, frames=2)
    inflate(image_model, attention="all")  # type: ignore[arg-type]
    inflate(image_model, temporal_kernel=3)  # type: ignore[call-arg]
    per_frame([1, 2])  # type: ignore[arg-type]
    deflate(image_model)  # type: ignore[arg-type]


def takes_inflated(video_model: InflatedModel[nn.Conv2d]) -> None:
    assert_type(temporal_parameters(video_model), list[nn.Parameter])
    assert_type(spatial_parameters(video_model), list[nn.Parameter])
    temporal_parameters([video_model])  # type: ignore[arg-type]


def sampling(unet: SpaceTimeUnet, x: Tensor, cond: Tensor) -> None:
    null = NullConditions(cond_dim=4)
    conditions = drop_conditions(0.1, cond=cond, null=null)
    assert_type(unet(x, 5, **conditions), Tensor)
    guided = guide(unet, 5.0, null=null)
    assert_type(guided(x, 5, cond=cond, cond_images=kept_frames(x, every(8, 5))), Tensor)
    negative = {"cond": cond}
    guided = guide(unet, torch.ones(8), image_scale=1.5, negative=negative, interval=(200, 800))
    other = drop_conditions(0.1, text=x, null={"text": x})
    assert_type(other, dict[str, Tensor])
    guide(unet, 5.0, negatives=negative)  # type: ignore[call-arg]
    indices, fps = sample_clip(100, 24, 16, 8)
    assert_type(indices, Tensor)
    assert_type(fps, float)
    guided(x, 5, conds=cond)  # type: ignore[call-arg]
    drop_conditions(0.1, conds=cond)  # type: ignore[call-overload]
    guide(unet)  # type: ignore[call-arg]
    assert_type(make_a_video_pytorch.recipes.every(8, 5), Tensor)
