"""Multi-head attention: of tokens to each other, and to the tokens of a context."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from make_a_video_pytorch.ops.attend import Attend
from make_a_video_pytorch.ops.checks import at_least, must_be_tensor, typechecked
from make_a_video_pytorch.ops.decision import as_bools, must_be_mask
from make_a_video_pytorch.ops.norm import RMSNorm
from make_a_video_pytorch.ops.parameters import zero_init
from make_a_video_pytorch.ops.past import Past
from make_a_video_pytorch.ops.positions import rotate


class Attention(nn.Module):
    """Multi-head self-attention over dimension 1, with a norm before it, at first zero.

    Vaswani et al. 2017, section 3.2.2. What lies between the tokens and the channels (the
    pixels, when frames attend to frames) is folded into the heads, so that no tensor is ever
    transposed in memory.

    Shapes: `x` (b n ... dim), `rel_pos_bias` (heads n n), `angles` of rotary positions
    (n dim_head/2), `mask` (b n), False for tokens that are not to be seen; returns the shape of
    `x`. With a `window`, `bias_span(n, window)` stands for n in the bias. In a stream `x` are the
    last n of m tokens, of which the `past` holds the others, with a bias (heads n m) and angles
    (m dim_head/2).

    Args:
        dim: channels in and out.
        dim_head: width of a head.
        heads: number of heads.
        flash: fused kernels.
        causal: a token sees only itself and earlier ones.
        window: how many tokens on either side one sees; all if None.
    """

    @typechecked
    def __init__(
        self,
        dim: int,
        dim_head: int = 64,
        heads: int = 8,
        flash: bool = True,
        causal: bool = False,
        window: int | None = None,
    ) -> None:
        super().__init__()
        at_least(1, dim=dim, dim_head=dim_head, heads=heads)
        inner_dim = dim_head * heads
        self.dim_head = dim_head
        self.heads = heads
        self.scale = dim_head**-0.5  # for those who read it in 0.4.0
        self.attend = Attend(flash=flash, causal=causal, window=window)
        self.norm = RMSNorm(dim, dim=-1)
        self.to_q = nn.Linear(dim, inner_dim, bias=False)
        self.to_k = nn.Linear(dim, inner_dim, bias=False)
        self.to_v = nn.Linear(dim, inner_dim, bias=False)
        self.to_out = zero_init(nn.Linear(inner_dim, dim, bias=False))

    def forward(
        self,
        x: Tensor,
        rel_pos_bias: Tensor | None = None,
        angles: Tensor | None = None,
        mask: Tensor | None = None,
        past: Past | None = None,
    ) -> Tensor:
        x = self.norm(x)
        # b n ... (heads d) -> b n (... heads) d
        heads = math.prod(x.shape[2:-1]) * self.heads
        q, k, v = (
            project(x).reshape(*x.shape[:2], heads, self.dim_head)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        if past is not None:
            k, v = (past.extend(t, self.attend.window) for t in (k, v))
            if self.attend.window is not None:
                mask = past.real(x, k)
        if angles is not None:
            q, k = rotate(q, angles[-q.shape[1] :]), rotate(k, angles)
        out = self.attend(*(t.transpose(1, 2) for t in (q, k, v)), bias=rel_pos_bias, mask=mask)
        out = out.transpose(1, 2).reshape(*x.shape[:-1], self.heads * self.dim_head)
        projected: Tensor = self.to_out(out)
        return projected

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        split_keys_and_values(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


class CrossAttention(nn.Module):
    """Multi-head attention from every pixel of every frame to tokens, such as those of a text.

    Vaswani et al. 2017, section 3.2.3, as text enters Imagen (Saharia et al. 2022, section 2.5),
    with a norm on each side. At first zero, and zero for a sample that has no token.

    Shapes: `x` (b ... dim), `context` (b n context_dim), `context_mask` (b n), False or 0 for
    tokens that are not to be seen; returns the shape of `x`.

    Args:
        dim: channels in and out.
        context_dim: features of a token.
        dim_head: width of a head.
        heads: number of heads.
        flash: fused kernels.
    """

    @typechecked
    def __init__(
        self,
        dim: int,
        context_dim: int,
        dim_head: int = 64,
        heads: int = 8,
        flash: bool = True,
    ) -> None:
        super().__init__()
        at_least(1, dim=dim, context_dim=context_dim, dim_head=dim_head, heads=heads)
        inner_dim = dim_head * heads
        self.context_dim = context_dim
        self.heads = heads
        self.attend = Attend(flash=flash)
        self.norm = RMSNorm(dim, dim=-1)
        self.context_norm = RMSNorm(context_dim, dim=-1)
        self.to_q = nn.Linear(dim, inner_dim, bias=False)
        self.to_k = nn.Linear(context_dim, inner_dim, bias=False)
        self.to_v = nn.Linear(context_dim, inner_dim, bias=False)
        self.to_out = zero_init(nn.Linear(inner_dim, dim, bias=False))

    def forward(self, x: Tensor, context: Tensor, context_mask: Tensor | None = None) -> Tensor:
        must_be_tensor(context=context)
        if context.ndim != 3 or context.shape[::2] != (x.shape[0], self.context_dim):
            raise ValueError(
                f"`context` (shape {tuple(context.shape)}) must be (b, n, context_dim), with b = "
                f"{x.shape[0]} as in `x` and `context_dim` = {self.context_dim}"
            )
        if context_mask is not None:
            context_mask = as_bools(context_mask=context_mask)
            must_be_mask("context_mask", context_mask, "(b, n)", tuple(context.shape[:2]))
            context_mask = context_mask.to(x.device)
            context = context.masked_fill(~context_mask[..., None], 0)  # padding may hold anything
        if context.shape[1] == 0:
            return torch.zeros_like(x)
        tokens = self.norm(x).flatten(1, -2)
        context = self.context_norm(context.to(x.dtype))
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for t in (self.to_q(tokens), self.to_k(context), self.to_v(context))
        )
        out = self.attend(q, k, v, mask=context_mask).transpose(1, 2).flatten(2)
        if context_mask is not None:
            out = out.masked_fill(~context_mask.any(1)[:, None, None], 0)
        projected: Tensor = self.to_out(out)
        return projected.view(x.shape)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        split_keys_and_values(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def split_keys_and_values(state_dict: dict[str, Tensor], prefix: str) -> None:
    """Give keys and values weights of their own; in 0.4.0 and 1.0.0 they were halves of one."""
    both = state_dict.pop(prefix + "to_kv.weight", None)
    if both is not None:
        state_dict[prefix + "to_k.weight"], state_dict[prefix + "to_v.weight"] = both.chunk(2)
