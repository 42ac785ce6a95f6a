"""Attention with a bias that learns, which keeps no scores for the gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd import Function

from make_a_video_pytorch.ops.gradients.by_hand import Context, by_hand, by_torch


def attention_with_bias(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """`scaled_dot_product_attention` with a bias that learns.

    For the gradient of a bias torch keeps the scores of the whole batch twice on a CPU. Here
    those of one sample at a time are computed again. With fewer keys than features the scores
    are smaller than `q`, `k` and `v`, and torch's way is the faster.

    Shapes: `q` (b g i d), `k` and `v` (b g j d), `bias` (b|1 g i j), finite -> (b g i d).
    """
    if by_hand(q, k, v, bias) and bias.requires_grad and k.shape[-2] > k.shape[-1] and len(q):
        out: Tensor = AttentionWithBias.apply(q, k, v, bias)
        return out
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


class AttentionWithBias(Function):
    """See `attention_with_bias`."""

    @staticmethod
    @custom_fwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def forward(ctx: Context, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        # torch looks whether the bias learns, here too, and would not take a fused kernel
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.detach())
        ctx.save_for_backward(q, k, v, bias, out)
        return out

    @staticmethod
    @custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, bias, out = ctx.saved_tensors
        if torch.is_grad_enabled():
            return by_torch(F.scaled_dot_product_attention, (*inputs, bias), grad)
        of_q, of_k, of_v = [], [], []
        of_bias: list[Tensor] = []
        biases = bias.expand(grad.shape[0], -1, -1, -1)
        for q, k, v, b, o, g in zip(*inputs, biases, out, grad, strict=True):
            q = q * q.shape[-1] ** -0.5
            attn = torch.baddbmm(b, q, k.mT).softmax(-1)
            of_v.append(attn.mT @ g)
            of_scores = (g @ v.mT).sub_((g * o).sum(-1, keepdim=True)).mul_(attn)
            of_q.append((of_scores @ k).mul_(q.shape[-1] ** -0.5))
            of_k.append(of_scores.mT @ q)
            of_bias = [*of_bias, of_scores] if len(bias) > 1 else [sum(of_bias, of_scores)]
        return tuple(map(torch.stack, (of_q, of_k, of_v, of_bias)))
