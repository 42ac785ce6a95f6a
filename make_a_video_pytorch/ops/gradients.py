"""Gradients written by hand, where those of torch cost much time or memory on a CPU.

Each function gives what the operations in its docstring give, and takes these as they are where
`by_hand` says no.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from make_a_video_pytorch.ops.torch_internals import is_in_forward_mode, is_transforming


def by_hand(x: Tensor, *others: Tensor | None) -> bool:
    """Whether the functions here take their own way: on a CPU, in full precision, eagerly, without
    autocast, forward-mode differentiation or a transform of torch.func."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and all(t is None or (t.device == x.device and t.dtype == x.dtype) for t in others)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not is_transforming()
        and not is_in_forward_mode()
        # a tensor made in inference mode, such as a text's embedding, cannot be kept outside of it
        and (torch.is_inference_mode_enabled() or not x.is_inference())
    )


def by_torch(
    function: Callable[..., Tensor], inputs: tuple[Tensor | None, ...], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of `function(*inputs)` that can be differentiated again, where one is needed."""
    # views, so that no hook runs here and inputs made of each other stay apart
    inputs = tuple(t if t is None else t.view_as(t) for t in inputs)
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    grads = iter(torch.autograd.grad(function(*inputs), wanted, grad, create_graph=True))
    return tuple(next(grads) if t is not None and t.requires_grad else None for t in inputs)


def conv_over_frames(pixels: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """`conv2d` over frames, with `padding` frames of zeros at either end.

    On a CPU the gradient of the weight is a product for each tap: 2 to 5 times as fast as
    oneDNN's for a kernel of (k, 1).

    Shapes: `pixels` (b i f n), `weight` (o i k 1), `bias` (o) -> (b o f' n).
    """
    if by_hand(pixels, weight, bias):
        return ConvOverFrames.apply(pixels, weight, bias, padding)
    return F.conv2d(pixels, weight, bias, padding=(padding, 0))


class ConvOverFrames(Function):
    """See `conv_over_frames`."""

    @staticmethod
    @custom_fwd(device_type="cpu")  # so that no autocast around backward alone lowers its precision
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int
    ) -> Tensor:
        ctx.padding = padding
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=(padding, 0))

    @staticmethod
    @custom_bwd(device_type="cpu")
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        pixels, weight = ctx.saved_tensors
        of_pixels = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            padding = (weight.shape[2] - 1 - ctx.padding, 0)
            of_pixels = F.conv2d(grad, weight.transpose(0, 1).flip(2), padding=padding)
        if ctx.needs_input_grad[1]:
            x, g = pixels.movedim(1, -1), grad.movedim(1, -1)  # b f n c
            frames, taps = x.shape[1], []
            for offset in range(-ctx.padding, weight.shape[2] - ctx.padding):
                # Output frame i sees input frame i + offset. Neither slices nor flatten can be
                # batched by torch, as for the gradients of several results at once.
                first = min(max(-offset, 0), g.shape[1])
                count = max(min(frames - offset, g.shape[1]) - first, 0)
                rows = len(x), count * x.shape[2]
                seen = x.narrow(1, min(max(first + offset, 0), frames), count)
                seeing = g.narrow(1, first, count)
                seen, seeing = (c.reshape(*rows, c.shape[3]) for c in (seen, seeing))
                taps.append((seeing.mT @ seen).sum(0))
            of_weight = torch.stack(taps, dim=-1).unsqueeze(-1)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3))
        return of_pixels, of_weight, of_bias, None


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
        return FusedRMSNorm.apply(x, gamma, eps, scale, shift, silu)
    return plain_rms_norm(x, gamma, eps, scale, shift, silu)


def within(t: Tensor, x: Tensor) -> bool:
    """Whether `t` broadcasts to `x` and has an entry for each of its channels, which come last."""
    sizes = zip(reversed(t.shape), reversed(x.shape), strict=False)
    return t.ndim <= x.ndim and t.shape[-1:] == x.shape[-1:] and all(a in (1, b) for a, b in sizes)


def plain_rms_norm(
    x: Tensor, gamma: Tensor, eps: float, scale: Tensor | None, shift: Tensor | None, silu: bool
) -> Tensor:
    """What `rms_norm` is made of."""
    if torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export():  # takes 1e-12 for zero
        full = x.to(torch.promote_types(x.dtype, torch.float32)) * eps**-0.5
        x = (full * (full.square().mean(-1, True) + 1).rsqrt()).to(x.dtype) * gamma
    else:
        x = F.rms_norm(x, gamma.shape, gamma, eps)
    x = x if scale is None else x * (scale + 1) + shift
    return F.silu(x) if silu else x


class FusedRMSNorm(Function):
    """See `rms_norm`. In place: the first touch of new memory costs more than the arithmetic."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        gamma: Tensor,
        eps: float,
        scale: Tensor | None,
        shift: Tensor | None,
        silu: bool,
    ) -> Tensor:
        ctx.eps, ctx.silu = eps, silu
        ctx.save_for_backward(x, gamma, scale, shift)
        out, _ = normalize(x, eps)
        if scale is None:
            out.mul_(gamma)
        else:
            torch.addcmul(shift, out, gamma * (scale + 1), out=out)
        return F.silu(out, inplace=True) if silu else out

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, scale, shift = inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            of_x, of_gamma, *others = by_torch(
                lambda x, gamma, *s: plain_rms_norm(x, gamma, ctx.eps, *s, ctx.silu), inputs, grad
            )
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


def attention_with_bias(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """`scaled_dot_product_attention` with a bias that learns.

    For the gradient of a bias torch keeps the scores of the whole batch twice on a CPU. Here
    those of one sample at a time are computed again. With fewer keys than features the scores
    are smaller than `q`, `k` and `v`, and torch's way is the faster.

    Shapes: `q` (b g i d), `k` and `v` (b g j d), `bias` (b|1 g i j), finite -> (b g i d).
    """
    if by_hand(q, k, v, bias) and bias.requires_grad and k.shape[-2] > k.shape[-1] and len(q):
        return AttentionWithBias.apply(q, k, v, bias)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


class AttentionWithBias(Function):
    """See `attention_with_bias`."""

    @staticmethod
    @custom_fwd(device_type="cpu")
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        # torch looks whether the bias learns, here too, and would not take a fused kernel
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.detach())
        ctx.save_for_backward(q, k, v, bias, out)
        return out

    @staticmethod
    @custom_bwd(device_type="cpu")
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, bias, out = ctx.saved_tensors
        if torch.is_grad_enabled():
            return by_torch(F.scaled_dot_product_attention, (*inputs, bias), grad)
        of_q, of_k, of_v, of_bias = [], [], [], []
        biases = bias.expand(grad.shape[0], -1, -1, -1)
        for q, k, v, b, o, g in zip(*inputs, biases, out, grad, strict=True):
            q = q * q.shape[-1] ** -0.5
            attn = torch.baddbmm(b, q, k.mT).softmax(-1)
            of_v.append(attn.mT @ g)
            of_scores = (g @ v.mT).sub_((g * o).sum(-1, keepdim=True)).mul_(attn)
            of_q.append((of_scores @ k).mul_(q.shape[-1] ** -0.5))
            of_k.append(of_scores.mT @ q)
            of_bias = [*of_bias, of_scores] if len(bias) > 1 else [sum([*of_bias, of_scores])]
        return tuple(map(torch.stack, (of_q, of_k, of_v, of_bias)))
