"""Scaled dot-product attention: in blocks under a window, in chunks where it is large.

Letters: b batch, g heads (pixels may be folded into them), i queries, j keys, d head dim.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from make_a_video_pytorch.ops.attention_kernels import attention, hidden
from make_a_video_pytorch.ops.checks import at_least, typechecked

# A CUDA grid has at most this many blocks in the dimensions that the fused kernels give to the
# batch and to the heads (pytorch#142228).
MAX_GRID = 65_535

# The flash backward addresses a buffer of batch x heads x queries (padded to 128) x head dim
# with 32 bits, signed.
MAX_BACKWARD_ELEMENTS = 2**31


class Attend(nn.Module):
    """softmax(q k^T / sqrt(d) + bias) v (Vaswani et al. 2017, Equation 1).

    Runs on torch's fused kernels (FlashAttention, Dao et al. 2022, and its relatives), whichever
    takes the inputs; batch and heads beyond what those kernels can launch go in chunks. Under a
    `window` the sequence goes in blocks, each with the keys that it can see, so that time and
    memory grow in proportion to its length (Beltagy et al. 2020, section 3.1).

    Shapes: `q` (b g i d), `k` and `v` (b g j d); `bias` (heads i j), where g is a multiple of
    heads and the bias is repeated over it; `mask` (b j), False for keys that no query sees;
    returns (b g i d), laid out b i g d in memory where the kernel does so. Under a window shorter
    than the sequence the bias is one of offsets, (heads s s) with s = `bias_span(j, window)`. A
    query that sees no key gets finite numbers that mean nothing.

    Args:
        flash: fused kernels; False is the explicit softmax, which can be differentiated twice.
        causal: query i sees keys 0 .. i only.
        window: query i sees keys i - window .. i + window only.

    With `causal`, fewer queries than keys are the last ones, as in a stream, and `mask` is one for
    all samples, (1 j).
    """

    @typechecked
    def __init__(
        self, *, flash: bool = True, causal: bool = False, window: int | None = None
    ) -> None:
        super().__init__()
        if window is not None:
            at_least(1, window=window)
        self.flash = flash
        self.causal = causal
        self.window = window

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        if self.causal and k.shape[2] > q.shape[2]:
            bias = self.hiding(bias, q, k, mask)
            return self.in_chunks(q, k, v, bias, None, causal=False)
        if self.window is not None and is_windowed(k.shape[2], self.window):
            return self.in_blocks(q, k, v, bias, mask, self.window)
        mask = None if mask is None else mask[:, None, None]
        return self.in_chunks(q, k, v, bias, mask, self.causal)

    def hiding(
        self, bias: Tensor | None, q: Tensor, k: Tensor, mask: Tensor | None
    ) -> Tensor | None:
        """`bias` (heads i j) that hides what the queries, the last of the keys, do not see."""
        length, window = k.shape[2], self.window
        if q.shape[2] == 1 and mask is None and (window is None or length <= window + 1):
            return bias
        key = torch.arange(length, device=q.device)
        query = key[-q.shape[2] :, None]
        seen = key <= query
        if window is not None:
            seen = seen & (query - key <= window)
        if mask is not None:
            seen = seen & mask
        bias = q.new_zeros(()) if bias is None else bias.to(q.dtype)
        return bias.masked_fill(~seen[None], hidden(q.dtype))

    def in_blocks(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        mask: Tensor | None,
        window: int,
    ) -> Tensor:
        """Blocks of `window` queries, each with the keys from one block before to one after."""
        length, heads = q.shape[2], 1 if bias is None else bias.shape[0]
        after = 0 if self.causal else window
        blocks = -(-length // window)
        filled = blocks * window
        span = 2 * window + after  # a block of queries from s on sees keys from s - window on

        def block(x: Tensor, size: int, before: int, behind: int) -> Tensor:
            # b (pixels heads) n d -> b (pixels blocks heads) size d: with the blocks in the
            # heads, the samples of the batch share one bias
            x = F.pad(x, (0, 0, before, behind + filled - length)).unfold(2, size, window)
            blocked: Tensor = x.mT.unflatten(1, (-1, heads)).transpose(2, 3).flatten(1, 3)
            return blocked

        start = torch.arange(0, filled, window, device=q.device)[:, None, None]
        query = start + torch.arange(window, device=q.device)[:, None]
        key = start + torch.arange(-window, window + after, device=q.device)
        seen = (key >= 0) & (key < length) & ((key - query).abs() <= window)
        if self.causal:
            seen = seen & (key <= query)  # (blocks window span)
        bias = q.new_zeros(()) if bias is None else bias[:, window : 2 * window, :span].to(q.dtype)
        bias = bias.masked_fill(~seen[:, None], hidden(q.dtype)).flatten(0, 1)
        if mask is not None:
            real = F.pad(mask, (window, after + filled - length)).unfold(1, span, window)
            real = real[:, None, :, None].expand(-1, q.shape[1] // heads, -1, heads, -1)
            mask = real.flatten(1, 3).unsqueeze(2)
        out = self.in_chunks(
            block(q, window, 0, 0),
            block(k, span, window, after),
            block(v, span, window, after),
            bias,
            mask,
            causal=False,
        )
        whole: Tensor = out.unflatten(1, (-1, blocks, heads)).transpose(2, 3).flatten(3, 4)
        return whole.flatten(1, 2)[:, :, :length]

    def in_chunks(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        mask: Tensor | None,
        causal: bool,
    ) -> Tensor:
        """As many samples and heads at once as a fused kernel can launch; `mask` (b 1|g 1 j)."""
        batch_step, head_step = chunk_sizes(q, k, bias)
        if q.shape[0] > batch_step:
            outs = []
            for start in range(0, q.shape[0], batch_step):
                here = slice(start, start + batch_step)
                mask_here = None if mask is None else mask[here]
                outs.append(self.in_chunks(q[here], k[here], v[here], bias, mask_here, causal))
            return cat(outs, dim=0)
        if q.shape[1] > head_step:
            outs = []
            for start in range(0, q.shape[1], head_step):
                here = slice(start, start + head_step)
                bias_here, mask_here = bias_of_heads(bias, start, head_step), mask
                if mask is not None and mask.shape[1] > 1:
                    mask_here = mask[:, here]
                part = q[:, here], k[:, here], v[:, here]
                outs.append(self.in_chunks(*part, bias_here, mask_here, causal))
            return cat(outs, dim=1)
        if bias is not None:
            bias = bias.to(q.dtype)
            if q.shape[1] > bias.shape[0]:
                bias = bias.repeat(q.shape[1] // bias.shape[0], 1, 1)
            bias = bias.unsqueeze(0)
        if mask is not None:
            bias = q.new_zeros(()) if bias is None else bias
            bias = bias.masked_fill(~mask, hidden(q.dtype))
        return attention(q, k, v, bias, causal, self.flash)

    def extra_repr(self) -> str:
        window = "" if self.window is None else f", window={self.window}"
        return f"flash={self.flash}, causal={self.causal}{window}"


def is_windowed(length: int, window: int) -> bool:
    """Whether a `window` hides anything in a sequence of this `length`."""
    return window < length - 1


def bias_span(length: int, window: int | None) -> int:
    """For how many successive positions a bias is needed in a sequence of this `length`."""
    return 3 * window if window is not None and is_windowed(length, window) else length


def chunk_sizes(q: Tensor, k: Tensor, bias: Tensor | None) -> tuple[int, int]:
    """How many samples, and how many heads, may go through a fused kernel at once."""
    heads, tokens, dim_head = q.shape[1], max(q.shape[-2], k.shape[-2]), q.shape[-1]
    batch_step, head_step = MAX_GRID, MAX_GRID
    if torch.is_grad_enabled():
        row = math.ceil(tokens / 128) * 128 * max(dim_head, 32)
        rows = max(MAX_BACKWARD_ELEMENTS // row, 1)
        head_step = min(head_step, rows)
        batch_step = min(batch_step, max(rows // min(heads, head_step), 1))
    if bias is not None and heads > head_step:
        # chunks must not cut the heads of one pixel unevenly
        period = bias.shape[0]
        whole = head_step // period * period
        head_step = whole or math.gcd(head_step, period)
    return batch_step, head_step


def bias_of_heads(bias: Tensor | None, start: int, count: int) -> Tensor | None:
    """The rows of `bias` that belong to the folded heads from `start` on."""
    if bias is None or count >= bias.shape[0]:
        return bias
    return bias.narrow(0, start % bias.shape[0], count)


def cat(parts: list[Tensor], dim: int) -> Tensor:
    """Concatenate (b g i d) tensors along b (0) or g (1), laid out b i g d in memory."""
    in_memory = [part.transpose(1, 2) for part in parts]
    return torch.cat(in_memory, dim={0: 0, 1: 2}[dim]).transpose(1, 2)
