"""The stages of the U-Net, down to small pictures and up again, and what travels along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from make_a_video_pytorch.modules.attention import SpatioTemporalAttention
from make_a_video_pytorch.modules.resample import Downsample, Upsample
from make_a_video_pytorch.modules.resnet import ResnetBlock
from make_a_video_pytorch.ops.checks import is_one_of
from make_a_video_pytorch.ops.decision import Temporal, hide
from make_a_video_pytorch.ops.layout import as_given, memory_format_of
from make_a_video_pytorch.ops.torch_internals import is_in_forward_mode


@dataclass
class Along:
    """What travels along with a video through the U-Net.

    Attributes:
        temporal: on which samples and frames temporal parts run, at the frames of now.
        emb: by what blocks are scaled and shifted, (b emb_dim) or, at the frames of now,
            (b f emb_dim).
        tokens: what attention attends to beside the pixels, as its arguments.
        skips: what the way down leaves for the way up.
        levels: `temporal` and `emb` of the stages that were left, for the way up.
    """

    temporal: Temporal
    emb: Tensor | None
    tokens: dict[str, Tensor | None]
    skips: list[Tensor]
    levels: list[tuple[Temporal, Tensor | None]]

    def halve(self, frames: int) -> None:
        """Go on where `frames` have been halved; a pair of them has the mean of its embeddings."""
        if self.emb is not None and self.emb.ndim == 3:
            self.emb = mean_of_pairs(self.temporal, self.emb)
        self.temporal = self.temporal.halved(frames)

    def with_features(self, middle: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Add `features` to the skips, and the last of them to `middle`, which is returned.

        Raises:
            TypeError: if one is no tensor.
            ValueError: if they are of another number or another shape.
        """
        own = [*self.skips, middle]
        shapes = [tuple(video.shape) for video in own]
        if len(features) != len(own):
            raise ValueError(
                f"`features` ({len(features)} of them) must be {len(own)}, of the shapes "
                f"(b c [f] h w) with (b c f h w) = {shapes}"
            )
        added = []
        for index, (video, feature) in enumerate(zip(own, features, strict=True)):
            if not isinstance(feature, Tensor):
                kind = type(feature).__name__
                raise TypeError(f"`features[{index}]` (a {kind}) must be a tensor")
            b, c, f, h, w = video.shape
            if not is_one_of(feature.shape, (b, c, f, h, w), (b, c, 1, h, w), (b, c, h, w)):
                raise ValueError(
                    f"`features[{index}]` (shape {tuple(feature.shape)}) must be (b c [f] h w) "
                    f"with (b c f h w) = {(b, c, f, h, w)}; all of them: {shapes}"
                )
            feature = feature if feature.ndim == 5 else feature.unsqueeze(2)
            added.append(video + feature.to(video.dtype))
        middle = added.pop()
        self.skips = added  # a starred assignment makes a tuple under the compiler of torch 2.6
        return middle


class Staged(nn.Module):
    """The part of a U-Net that goes through its stages."""

    downs: nn.ModuleList
    ups: nn.ModuleList
    mid_block1: nn.Module
    mid_attn: nn.Module
    mid_block2: nn.Module
    conv_out: nn.Module
    emb_dim: int | None
    compresses: tuple[bool, ...]  # whether a stage halves the frames
    skip_scale: float
    gradient_checkpointing: bool

    def build_stages(
        self,
        dims: Sequence[int],
        self_attns: Sequence[bool | int],
        depths: Sequence[int],
        resnet: Callable[..., ResnetBlock],
        attention: Callable[[int], SpatioTemporalAttention],
    ) -> None:
        """Build the stages between each two of `dims`, and the middle."""
        self.skip_scale = 2**-0.5  # Imagen (Saharia et al. 2022, appendix B)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for dim_in, dim_out, attend, halves, depth in zip(
            dims, dims[1:], self_attns, self.compresses, depths, strict=False
        ):
            self.downs.append(nn.ModuleList([
                resnet(dim_in, dim_out, timestep_cond_dim=self.emb_dim),
                nn.ModuleList(resnet(dim_out, dim_out) for _ in range(depth)),
                attention(dim_out) if attend else None,  # type: ignore[list-item]  # torch takes it
                Downsample(dim_out, downsample_time=halves),
            ]))
            self.ups.append(nn.ModuleList([
                resnet(dim_out * 2, dim_in, timestep_cond_dim=self.emb_dim),
                nn.ModuleList(
                    resnet(dim_in + (dim_out if index == 0 else 0), dim_in)
                    for index in range(depth)
                ),
                attention(dim_in) if attend else None,  # type: ignore[list-item]
                Upsample(dim_out, upsample_time=halves),
            ]))
        self.mid_block1 = resnet(dims[-1], dims[-1], timestep_cond_dim=self.emb_dim)
        self.mid_attn = attention(dims[-1])
        self.mid_block2 = resnet(dims[-1], dims[-1], timestep_cond_dim=self.emb_dim)

    def down(self, video: Tensor, along: Along) -> Tensor:
        """Through the stages from the largest pictures to the smallest; each leaves two skips."""
        for stage, compresses in zip(self.downs, self.compresses, strict=True):
            block, blocks, attention, downsample = parts_of(stage)
            video = self.run(block, video, along, timestep_emb=along.emb)
            along.skips.append(video)
            for further in blocks:
                video = self.run(further, video, along)
            if attention is not None:
                video = self.run(attention, video, along, **along.tokens)
            along.skips.append(video)
            along.levels.append((along.temporal, along.emb))
            frames = video.shape[2]
            video = downsample(video, along.temporal)
            if compresses and along.temporal.runs:
                along.halve(frames)
        return video

    def mid(self, video: Tensor, along: Along) -> Tensor:
        """Through the middle, where pictures are smallest."""
        video = self.run(self.mid_block1, video, along, timestep_emb=along.emb)
        video = self.run(self.mid_attn, video, along, **along.tokens)
        return self.run(self.mid_block2, video, along, timestep_emb=along.emb)

    def up(self, video: Tensor, along: Along) -> Tensor:
        """Through the stages back to the largest pictures; each takes two skips."""
        for stage in reversed(self.ups):
            block, blocks, attention, upsample = parts_of(stage)
            along.temporal, along.emb = along.levels.pop()
            video = upsample(video, along.temporal)
            video = torch.cat((along.skips.pop() * self.skip_scale, video), dim=1)
            video = self.run(block, video, along, timestep_emb=along.emb)
            video = torch.cat((along.skips.pop() * self.skip_scale, video), dim=1)
            for further in blocks:
                video = self.run(further, video, along)
            if attention is not None:
                video = self.run(attention, video, along, **along.tokens)
        return video

    def out(self, video: Tensor, along: Along, x: Tensor, frame_mask: Tensor | None) -> Tensor:
        """The prediction, of the rank and in the memory format of `x`."""
        out = self.conv_out(video, along.temporal)
        if frame_mask is not None:
            out = hide(out, frame_mask)
        return as_given(out, x).contiguous(memory_format=memory_format_of(x))

    def run(
        self, block: nn.Module, video: Tensor, along: Along, **further: Tensor | None
    ) -> Tensor:
        """`block` on `video`, computed again in backward under `gradient_checkpointing`."""
        function = partial(block, enable_time=along.temporal, **further)
        past = along.temporal.past
        again = self.gradient_checkpointing and torch.is_grad_enabled()
        if torch.compiler.is_compiling() and past is not None:
            again = False  # a graph checkpoints nothing that changes what is outside
        out: Tensor
        if again and not is_in_forward_mode():  # which torch 2.6 does not checkpoint
            repeatable = function if past is None else past.from_here(function)
            out = checkpoint(repeatable, video, use_reentrant=False, preserve_rng_state=False)
        else:
            out = function(video)
        return out


def mean_of_pairs(temporal: Temporal, per_frame: Tensor) -> Tensor:
    """`per_frame` (b f ...) where the frames of videos have been halved."""
    return temporal.halve(per_frame, per_frame.unflatten(1, (-1, 2)).mean(2))


def parts_of(
    stage: nn.Module,
) -> tuple[nn.Module, Iterable[nn.Module], nn.Module | None, nn.Module]:
    """The block that takes the embedding, further blocks, attention if any, resampling."""
    assert isinstance(stage, nn.ModuleList)
    block, blocks, attention, resample = stage
    assert isinstance(blocks, nn.ModuleList)
    return block, blocks, attention, resample
