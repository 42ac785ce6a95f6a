"""Which kernel computes attention, and what it computes.

Letters: b batch, g heads (pixels may be folded into them), i queries, j keys, d head dim.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from make_a_video_pytorch.ops.gradients.attention import attention_with_bias
from make_a_video_pytorch.ops.torch_internals import is_in_forward_mode


def attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, flash: bool
) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v on a fused kernel, or written out without `flash`.

    Shapes: `q` (b g i d), `k` and `v` (b g j d), `bias` (b|1 g|1 i j) -> (b g i d).
    """
    if causal and bias is not None:  # no kernel takes both
        bias, causal = mask_future(bias.expand(*bias.shape[:2], q.shape[2], -1)), False
    # no fused kernel has forward-mode derivatives
    attend = fused if flash and not is_in_forward_mode() else explicit
    return attend(q, k, v, bias, causal)


def fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool) -> Tensor:
    """Attention on a fused kernel, with `bias` (b|1 g|1 i j) or `causal`, not both."""
    with backends_for(q, k, v, bias):
        if bias is None:
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        out = attention_with_bias(q, k, v, bias)
    if torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export():
        # it takes another kernel's layout for this one's
        in_memory = out.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        return in_memory.transpose(1, 2)
    return out


def explicit(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool) -> Tensor:
    """The same attention, written out."""
    sim = (q * q.shape[-1] ** -0.5) @ k.mT
    if bias is not None:
        sim = sim + bias
    if causal:
        sim = mask_future(sim)
    attn = sim.softmax(dim=-1, dtype=torch.promote_types(sim.dtype, torch.float32))
    out: Tensor = attn.to(v.dtype) @ v
    return out


def mask_future(sim: Tensor) -> Tensor:
    """Hide the positions (i, j > i) of scores or a bias."""
    future = torch.ones(sim.shape[-2:], dtype=torch.bool, device=sim.device).triu(1)
    return sim.masked_fill(future, hidden(sim.dtype))


def hidden(dtype: torch.dtype) -> float:
    """A bias that hides a key, and is finite in sum with its score, in fp16 too."""
    return torch.finfo(dtype).min / 2


def backends_for(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None
) -> AbstractContextManager[None]:
    """Keep torch from the backends that are wrong or slow for these inputs."""
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v))
    if q.is_cuda and bias is not None:
        if bias.requires_grad and not needs_grad:
            # The fused backward for a bias alone reads out of bounds (pytorch#188302).
            return sdpa_kernel([SDPBackend.MATH])
        # cuDNN returns NaN gradients for some lengths with a mask (pytorch#196678).
        return sdpa_kernel(
            [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        )
    if q.device.type == "cpu" and needs_grad and q.dtype in (torch.bfloat16, torch.float16):
        # Forward and backward on two cores, 8 to 2,048 tokens: flash is 2 to 5 times slower in
        # bf16, 6 to 13 times in fp16. The price is memory for all the scores.
        return sdpa_kernel([SDPBackend.MATH])
    return nullcontext()
