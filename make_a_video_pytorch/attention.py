"""Attention over space in each frame, then over frames at each pixel (floor 2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from make_a_video_pytorch.attend import Attend
from make_a_video_pytorch.checks import at_least, typechecked
from make_a_video_pytorch.feed_forward import FeedForward
from make_a_video_pytorch.layout import Temporal, as_given, as_video
from make_a_video_pytorch.norm import RMSNorm
from make_a_video_pytorch.parameters import acts_across_frames, zero_init
from make_a_video_pytorch.positions import ContinuousPositionBias, RotaryPositions, rotate


class KeyValueProjection(nn.Linear):
    """One projection to keys and values, given as two tensors of their own.

    Two halves of one tensor could not fold pixels into heads without a copy.

    Shapes: (... dim) -> two of (... inner_dim).
    """

    def __init__(self, dim: int, inner_dim: int) -> None:
        super().__init__(dim, inner_dim * 2, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        to_k, to_v = self.weight.chunk(2)
        return F.linear(x, to_k), F.linear(x, to_v)


class Attention(nn.Module):
    """Multi-head self-attention over dimension 1, with a norm before it, at first zero.

    Vaswani et al. 2017, section 3.2.2. What lies between the tokens and the channels (the
    pixels, when frames attend to frames) is folded into the heads, so that no tensor is ever
    transposed in memory.

    Shapes: `x` (b n ... dim), `rel_pos_bias` (heads n n), `angles` of rotary positions
    (n dim_head/2); returns the shape of `x`.
    """

    @typechecked
    def __init__(
        self,
        dim: int,              # channels, in and out
        dim_head: int = 64,    # width of a head
        heads: int = 8,        # number of heads
        flash: bool = True,    # fused kernels
        causal: bool = False,  # a token sees only itself and earlier ones
    ) -> None:
        super().__init__()
        at_least(1, dim=dim, dim_head=dim_head, heads=heads)
        inner_dim = dim_head * heads
        self.dim_head = dim_head
        self.heads = heads
        self.scale = dim_head**-0.5  # for those who read it in 0.4.0
        self.attend = Attend(flash=flash, causal=causal)
        self.norm = RMSNorm(dim, dim=-1)
        self.to_q = nn.Linear(dim, inner_dim, bias=False)
        self.to_kv = KeyValueProjection(dim, inner_dim)
        self.to_out = zero_init(nn.Linear(inner_dim, dim, bias=False))

    def forward(
        self, x: Tensor, rel_pos_bias: Tensor | None = None, angles: Tensor | None = None
    ) -> Tensor:
        x = self.norm(x)
        # b n ... (heads d) -> b n (... heads) d
        heads = math.prod(x.shape[2:-1]) * self.heads
        q, k, v = (
            t.reshape(*x.shape[:2], heads, self.dim_head) for t in (self.to_q(x), *self.to_kv(x))
        )
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        out = self.attend(*(t.transpose(1, 2) for t in (q, k, v)), bias=rel_pos_bias)
        out = out.transpose(1, 2).reshape(*x.shape[:-1], self.heads * self.dim_head)
        return self.to_out(out)


class SpatioTemporalAttention(nn.Module):
    """Attention over (h w) in each frame, over frames at each pixel, and a feed-forward.

    Make-A-Video (Singer et al. 2022, section 3.2.2), factorised as in Video Diffusion Models (Ho
    et al. 2022, section 3). Each part has its skip connection. Attention over frames and the
    token shift are skipped on images and start as the identity.

    Shapes: image (b dim h w) or video (b dim f h w), returned unchanged.
    """

    @typechecked
    def __init__(
        self,
        dim: int,                        # channels, in and out
        *,
        dim_head: int = 64,              # width of a head
        heads: int = 8,                  # number of heads
        add_feed_forward: bool = True,   # end with a feed-forward
        ff_mult: int | float = 4,        # its width, in `dim`s
        pos_bias: bool = True,           # continuous relative bias on the scores
        flash: bool = True,              # fused attention kernels
        causal_time_attn: bool = False,  # a frame sees only itself and earlier ones
        rotary: bool = False,            # rotary positions
    ) -> None:
        super().__init__()
        self.dim = dim
        self.spatial_attn = Attention(dim, dim_head, heads, flash)
        self.temporal_attn = acts_across_frames(
            Attention(dim, dim_head, heads, flash, causal_time_attn)
        )
        self.spatial_rel_pos_bias = self.temporal_rel_pos_bias = None
        if pos_bias:
            width = max(dim // 2, 1)
            self.spatial_rel_pos_bias = ContinuousPositionBias(
                dim=width, heads=heads, num_dims=2
            )
            self.temporal_rel_pos_bias = acts_across_frames(
                ContinuousPositionBias(dim=width, heads=heads)
            )
        self.spatial_rotary = RotaryPositions(dim_head, num_dims=2) if rotary else None
        self.temporal_rotary = RotaryPositions(dim_head) if rotary else None
        self.has_feed_forward = add_feed_forward
        if add_feed_forward:
            self.ff = FeedForward(dim, ff_mult)

    def forward(self, x: Tensor, enable_time: bool | Temporal = True) -> Tensor:
        """Attend in an image or a video; with `enable_time=False`, in each frame on its own.

        Raises:
            ValueError: if `x` is neither an image nor a video, or not of `dim` channels.
        """
        video, temporal = as_video(x, self.dim, enable_time)
        frames, height, width = video.shape[2:]

        tokens = video.movedim(1, -1)
        in_space = tokens.flatten(2, 3).flatten(0, 1)  # (b f) (h w) c
        bias, angles = positions(
            self.spatial_rel_pos_bias, self.spatial_rotary, height, width, device=x.device
        )
        in_space = in_space + self.spatial_attn(in_space, bias, angles)

        over_time = in_space.unflatten(0, (-1, frames))  # b f (h w) c
        if temporal:
            bias, angles = positions(
                self.temporal_rel_pos_bias, self.temporal_rotary, frames, device=x.device
            )
            over_time = over_time + self.temporal_attn(over_time, bias, angles)

        out = over_time.reshape(tokens.shape).movedim(-1, 1)
        if self.has_feed_forward:
            out = out + self.ff(out, temporal)
        return as_given(out, x)


def positions(
    rel_pos_bias: ContinuousPositionBias | None,
    rotary: RotaryPositions | None,
    *sizes: int,
    device: torch.device,
) -> tuple[Tensor | None, Tensor | None]:
    """The bias and the rotary angles for tokens on a grid of `sizes`, where there are such."""
    bias = None if rel_pos_bias is None else rel_pos_bias(*sizes)
    angles = None if rotary is None else rotary(*sizes, device=device)
    return bias, angles
