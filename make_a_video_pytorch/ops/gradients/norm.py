"""RMSNorm with a scale, a shift and SiLU in one, which keeps for the gradient what it was given."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from make_a_video_pytorch.ops.gradients.by_hand import Context, by_hand, by_torch


def rms_norm(
    x: Tensor,
    gamma: Tensor,
    eps: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    silu: bool = False,
) -> Tensor:
    """RMSNorm over the last dimension, times `scale` + 1, plus `shift`, and SiLU, where asked.

    On a CPU it takes memory for its result alone, and keeps for the gradient what it was given,
    where torch keeps up to three tensors more of the size of `x`.

    Shapes: `x` (... c), `gamma` (c); `scale` and `shift`, both or neither, what broadcasts
    with `x`, such as (b f|1 1 1 c).
    """
    others = (gamma, scale, shift)
    if by_hand(x, *others) and all(t is None or within(t, x) for t in others):
        out: Tensor = FusedRMSNorm.apply(x, gamma, eps, scale, shift, silu)
        return out
    return plain_rms_norm(x, gamma, eps, scale, shift, silu=silu)


def within(t: Tensor, x: Tensor) -> bool:
    """Whether `t` broadcasts to `x` and has an entry for each of its channels, which come last."""
    sizes = zip(reversed(t.shape), reversed(x.shape), strict=False)
    return t.ndim <= x.ndim and t.shape[-1:] == x.shape[-1:] and all(a in (1, b) for a, b in sizes)


def plain_rms_norm(
    x: Tensor,
    gamma: Tensor,
    eps: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    *,
    silu: bool,
) -> Tensor:
    """What `rms_norm` is made of."""
    if torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export():  # takes 1e-12 for zero
        full = x.to(torch.promote_types(x.dtype, torch.float32)) * eps**-0.5
        x = (full * (full.square().mean(-1, True) + 1).rsqrt()).to(x.dtype) * gamma
    else:
        x = F.rms_norm(x, gamma.shape, gamma, eps)
    x = x if scale is None or shift is None else x * (scale + 1) + shift
    return F.silu(x) if silu else x


class NormContext(Context):
    """What the forward of `FusedRMSNorm` leaves."""

    eps: float
    silu: bool


class FusedRMSNorm(Function):
    """See `rms_norm`. In place: the first touch of new memory costs more than the arithmetic."""

    @staticmethod
    def forward(
        ctx: NormContext,
        x: Tensor,
        gamma: Tensor,
        eps: float,
        scale: Tensor | None,
        shift: Tensor | None,
        silu: bool,
    ) -> Tensor:
        ctx.eps, ctx.silu = eps, silu
        ctx.save_for_backward(x, gamma, scale, shift)  # type: ignore[arg-type]  # None is taken
        out, _ = normalize(x, eps)
        if scale is None or shift is None:
            out.mul_(gamma)
        else:
            torch.addcmul(shift, out, gamma * (scale + 1), out=out)
        return F.silu(out, inplace=True) if silu else out

    @staticmethod
    def backward(ctx: NormContext, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, scale, shift = inputs = ctx.saved_tensors
        if torch.is_grad_enabled():

            def again(x: Tensor, gamma: Tensor, *s: Tensor | None) -> Tensor:
                return plain_rms_norm(x, gamma, ctx.eps, *s, silu=ctx.silu)

            of_x, of_gamma, *others = by_torch(again, inputs, grad)
            return of_x, of_gamma, None, *others, None
        gain = gamma if scale is None else gamma * (scale + 1)
        normed, rate = normalize(x, ctx.eps)
        if ctx.silu:  # its input has no name, so that its memory is free at once
            grad = torch.ops.aten.silu_backward(
                grad, normed * gain if scale is None else torch.addcmul(shift, normed, gain)
            )
        of_gain = grad * normed
        per_gain = summed(of_gain, gamma.shape if scale is None else scale.shape)
        of_shift = None if shift is None else summed(grad, shift.shape)
        along = of_gain.mul_(gain).mean(-1, keepdim=True)
        of_x = grad.mul_(gain) if ctx.silu else grad * gain
        of_x.addcmul_(normed, along, value=-1).mul_(rate)
        if scale is None:
            return of_x, per_gain, None, None, None, None
        of_gamma = (per_gain * (scale + 1)).sum_to_size(gamma.shape)
        return of_x, of_gamma, None, per_gain * gamma, of_shift, None


def summed(x: Tensor, shape: torch.Size) -> Tensor:
    """`x` summed to `shape`, and never a view of it, as `sum_to_size` may be."""
    return x.clone() if x.shape == shape else x.sum_to_size(shape)


def normalize(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`x` over the root mean square of its last dimension, and one over that, (... 1)."""
    out = x.square()
    rate = out.mean(-1, keepdim=True).add_(eps).rsqrt_()
    return torch.mul(x, rate, out=out), rate
