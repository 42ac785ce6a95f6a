"""Attention over space in each frame, then over frames at each pixel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from make_a_video_pytorch.modules.feed_forward import FeedForward
from make_a_video_pytorch.modules.multihead import Attention, CrossAttention
from make_a_video_pytorch.modules.stream import Streamable
from make_a_video_pytorch.ops.attend import bias_span
from make_a_video_pytorch.ops.checks import at_least, must_be_taken, typechecked
from make_a_video_pytorch.ops.decision import Temporal, as_video
from make_a_video_pytorch.ops.layout import as_given, unfold_pixels
from make_a_video_pytorch.ops.parameters import acts_across_frames, zero_init
from make_a_video_pytorch.ops.past import Past
from make_a_video_pytorch.ops.positions import ContinuousPositionBias, RotaryPositions, positions


class SpatioTemporalAttention(nn.Module, Streamable[Tensor]):
    """Attention over (h w) in each frame, over frames at each pixel, and a feed-forward.

    Make-A-Video (Singer et al. 2022, section 3.2.2), factorised as in Video Diffusion Models (Ho
    et al. 2022, section 3). Each part has its skip connection. Attention over frames and the
    token shift are skipped on images and start as the identity. With a `context_dim`, attention
    to tokens comes before the feed-forward and starts as the identity too.

    Shapes: image (b dim h w) or video (b dim f h w), returned unchanged.

    Args:
        dim: channels in and out.
        dim_head: width of a head.
        heads: number of heads.
        add_feed_forward: end with a feed-forward.
        ff_mult: its width, as a multiple of `dim`.
        pos_bias: continuous relative position bias; any number of frames and pixels.
        flash: torch's scaled dot-product attention, on the fastest kernel that takes the inputs;
            False is the explicit softmax, which can be differentiated twice.
        causal_time_attn: a frame sees only itself and earlier ones.
        rotary: rotary positions; with `pos_bias=False` the pure flash kernel applies.
        temporal_window: frames seen on either side; all if None.
        context_dim: features of the tokens of `context`; none are taken if None.

    Example:
        >>> attn = SpatioTemporalAttention(16, dim_head=8, heads=2, context_dim=6)
        >>> video, tokens = torch.randn(2, 16, 5, 8, 8), torch.randn(2, 7, 6)
        >>> attn(video, context=tokens).shape
        torch.Size([2, 16, 5, 8, 8])
    """

    @typechecked
    def __init__(
        self,
        dim: int,
        *,
        dim_head: int = 64,
        heads: int = 8,
        add_feed_forward: bool = True,
        ff_mult: int | float = 4,
        pos_bias: bool = True,
        flash: bool = True,
        causal_time_attn: bool = False,
        rotary: bool = False,
        temporal_window: int | None = None,
        context_dim: int | None = None,
    ) -> None:
        super().__init__()
        if temporal_window is not None:
            at_least(1, temporal_window=temporal_window)
        self.dim = dim
        self.causal_time_attn = causal_time_attn
        self.looks_back = True
        self.temporal_window = temporal_window
        self.spatial_attn = Attention(dim, dim_head, heads, flash)
        self.temporal_attn = Attention(
            dim, dim_head, heads, flash, causal_time_attn, temporal_window
        )
        self.spatial_rel_pos_bias: ContinuousPositionBias | None = None
        self.temporal_rel_pos_bias: ContinuousPositionBias | None = None
        if pos_bias:
            width = max(dim // 2, 1)
            self.spatial_rel_pos_bias = ContinuousPositionBias(
                dim=width, heads=heads, num_dims=2
            )
            self.temporal_rel_pos_bias = ContinuousPositionBias(dim=width, heads=heads)
        acts_across_frames(self, "temporal_attn", "temporal_rel_pos_bias")
        self.spatial_rotary = RotaryPositions(dim_head, num_dims=2) if rotary else None
        self.temporal_rotary = RotaryPositions(dim_head) if rotary else None
        self.cross_attn: CrossAttention | None = None
        if context_dim is not None:
            self.cross_attn = CrossAttention(dim, context_dim, dim_head, heads, flash)
        self.frames_at_once: int | None = None  # see `chunk_attention`
        self.pixels_at_once: int | None = None
        self.has_feed_forward = add_feed_forward
        if add_feed_forward:
            self.ff = FeedForward(dim, ff_mult)

    def forward(
        self,
        x: Tensor,
        enable_time: bool | Tensor | Temporal = True,
        *,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        frame_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend in an image or a video.

        Args:
            x: image (b dim h w) or video (b dim f h w).
            enable_time: attend and shift over frames: one bool, or one for each sample (b).
            context: tokens (b n context_dim) to attend to; none if left out.
            context_mask: False or 0 (b n) for tokens that are not to be seen.
            frame_mask: False (b f) for frames that are padding at the end of a shorter clip.

        Raises:
            ValueError: if `x` is neither an image nor a video, or not of `dim` channels, if
                `context` is of another shape or not taken, or if one of the masks or a tensor
                `enable_time` is of another shape or not of bools.
        """
        must_be_taken(self.cross_attn is not None, "context_dim", context=context)
        if context_mask is not None and context is None:
            raise ValueError("`context_mask` must be left out, since no `context` was given")
        video, temporal = as_video(x, self.dim, enable_time, frame_mask)
        frames, height, width = video.shape[2:]

        in_space = video.movedim(1, -1).flatten(2, 3).flatten(0, 1)  # (b f) (h w) c
        bias, angles = positions(
            self.spatial_rel_pos_bias, self.spatial_rotary, (height, width), like=x
        )
        spatial = partial(self.spatial_attn, rel_pos_bias=bias, angles=angles)
        in_space = in_space + in_pieces(spatial, in_space, 0, self.frames_at_once)

        out = in_space.unflatten(0, (-1, frames))  # b f (h w) c
        if temporal.runs:
            over_time = partial(self.temporal_attn, **self.over_frames(frames, temporal, x))
            attended = out + in_pieces(over_time, out, 2, self.pixels_at_once)
            out = temporal.choose(attended, out)

        if context is not None and self.cross_attn is not None:
            cross = partial(self.cross_attn, context=context, context_mask=context_mask)
            out = out + in_pieces(cross, out, 1, self.frames_at_once)

        if self.has_feed_forward:

            def feed_forward(tokens: Tensor) -> Tensor:
                as_clip = tokens.movedim(-1, 1).unsqueeze(-1)  # b c f (h w) 1
                fed: Tensor = self.ff(as_clip, temporal)
                return fed.squeeze(-1).movedim(1, -1)

            out = out + in_pieces(feed_forward, out, 2, self.pixels_at_once)
        return as_given(unfold_pixels(out.movedim(-1, 1), height, width), x)

    if TYPE_CHECKING:
        __call__ = forward

    @property
    def looks_ahead(self) -> bool:
        """Whether frames depend on later ones."""
        return not self.causal_time_attn

    def over_frames(
        self, frames: int, temporal: Temporal, like: Tensor
    ) -> dict[str, Tensor | Past | None]:
        """What attention over so many `frames` is given beside them."""
        modules = self.temporal_rel_pos_bias, self.temporal_rotary
        if temporal.past is not None:
            before = temporal.past.before(self.temporal_window)
            bias, angles = positions(*modules, (before + frames,), like=like, last=frames)
            return {"rel_pos_bias": bias, "angles": angles, "past": temporal.past}
        span = (bias_span(frames, self.temporal_window),)
        bias, angles = positions(*modules, (frames,), like=like, span=span)
        # padding comes last, where no causal frame sees it
        mask = None if self.causal_time_attn else temporal.real
        return {"rel_pos_bias": bias, "angles": angles, "mask": mask}

    def start_as_identity(self) -> None:
        """Make it give what it is given."""
        if self.has_feed_forward:
            zero_init(self.ff.proj_out[1])


@typechecked
def chunk_attention(
    module: nn.Module, *, frames: int | None = None, pixels: int | None = None
) -> None:
    """Let every SpatioTemporalAttention in `module` take less memory at once, for inference.

    Attention over space and to a context then goes through at most so many `frames` at once, and
    attention over frames and the feed-forward through at most so many `pixels`; None is all. The
    results are equal; more, smaller steps take longer. In training `gradient_checkpointing` saves
    more.

    Args:
        module: a SpaceTimeUnet, or anything else that holds a SpatioTemporalAttention.
        frames: frames of all samples at once, over space.
        pixels: pixels at once, over frames.

    Raises:
        ValueError: if a number is below 1, or `module` holds no SpatioTemporalAttention, as an
            inflated model of another library.

    Example:
        >>> unet = SpaceTimeUnet(dim=8, attn_dim_head=8, attn_heads=2)
        >>> chunk_attention(unet, frames=4, pixels=1024)
    """
    for name, size in (("frames", frames), ("pixels", pixels)):
        if size is not None:
            at_least(1, **{name: size})
    found = [part for part in module.modules() if isinstance(part, SpatioTemporalAttention)]
    if not found:
        raise ValueError(
            f"`module` (a {type(module).__name__}) must hold a SpatioTemporalAttention: no other "
            "attention goes in chunks"
        )
    for part in found:
        part.frames_at_once, part.pixels_at_once = frames, pixels


def in_pieces(
    function: Callable[[Tensor], Tensor], x: Tensor, dim: int, size: int | None
) -> Tensor:
    """`function(x)`, computed for at most `size` entries of dimension `dim` at once."""
    if size is None or x.shape[dim] <= size:
        return function(x)
    out = torch.empty_like(x)
    for start in range(0, x.shape[dim], size):
        length = min(size, x.shape[dim] - start)
        out.narrow(dim, start, length).copy_(function(x.narrow(dim, start, length)))
    return out
