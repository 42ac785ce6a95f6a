"""Gradients written by hand, where those of torch cost much time or memory on a CPU (floor 0).

Each function gives what the operations in its docstring give. Other devices, compilers, autocast
and forward-mode differentiation take those operations as they are (`by_hand` says when).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.autograd.function import FunctionCtx


def by_hand(x: Tensor) -> bool:
    """Whether `x` is differentiated here: in full precision, on a CPU, eagerly, in reverse."""
    return (
        torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and forward_ad._current_level < 0
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


def conv_over_frames(
    pixels: Tensor, weight: Tensor, bias: Tensor | None, before: int, after: int, groups: int = 1
) -> Tensor:
    """A 1D convolution over frames, after `before` and `after` frames of zeros.

    It is `conv2d`, which keeps the channels last in memory as conv1d cannot. On a CPU the
    gradient of the weight is a product for each tap: 2 to 5 times as fast as oneDNN's for a
    kernel of (k, 1). In `groups` it is torch's.

    Shapes: `pixels` (b i f n), `weight` (o i/groups k), `bias` (o) -> (b o f n).
    """
    if groups == 1 and by_hand(pixels):
        return ConvOverFrames.apply(pixels, weight, bias, before, after)
    return conv2d_over_frames(pixels, weight, bias, before, after, groups)


def conv2d_over_frames(
    pixels: Tensor, weight: Tensor, bias: Tensor | None, before: int, after: int, groups: int = 1
) -> Tensor:
    """What `conv_over_frames` is made of."""
    padding = before
    if before != after:
        pixels, padding = F.pad(pixels, (0, 0, before, after)), 0
    return F.conv2d(pixels, weight.unsqueeze(-1), bias, padding=(padding, 0), groups=groups)


class ConvOverFrames(Function):
    """See `conv_over_frames`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        pixels: Tensor, weight: Tensor, bias: Tensor | None, before: int, after: int
    ) -> Tensor:
        return conv2d_over_frames(pixels, weight, bias, before, after)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
        pixels, weight, _, ctx.before, ctx.after = inputs
        ctx.save_for_backward(pixels, weight)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        pixels, weight = ctx.saved_tensors
        of_pixels = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            mirrored = weight.transpose(0, 1).flip(2)
            of_pixels = conv2d_over_frames(grad, mirrored, None, ctx.after, ctx.before)
        if ctx.needs_input_grad[1]:
            x, g = pixels.movedim(1, -1), grad.movedim(1, -1)  # b f n c
            frames, taps = x.shape[1], []
            for offset in range(-ctx.before, ctx.after + 1):
                # output frame t sees input frame t + offset
                seen = x[:, max(offset, 0) : max(frames + offset, 0)].flatten(1, 2)
                seeing = g[:, max(-offset, 0) : max(frames - offset, 0)].flatten(1, 2)
                taps.append((seeing.mT @ seen).sum(0))
            of_weight = torch.stack(taps, dim=-1)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3))
        return of_pixels, of_weight, of_bias, None, None


def rms_norm_silu(
    x: Tensor, gamma: Tensor, eps: float, scale: Tensor | None, shift: Tensor | None
) -> Tensor:
    """`silu(rms_norm(x, gamma) * (scale + 1) + shift)` over the last dimension.

    On a CPU only `x` is kept for the gradient, not four tensors of its size.

    Shapes: `x` (... c), `gamma` (c); `scale` and `shift`, both or neither, of one shape that
    broadcasts to that of `x`, such as (b f|1 1 1 c).
    """
    function = RMSNormSiLU.apply if by_hand(x) else plain_rms_norm_silu
    return function(x, gamma, eps, scale, shift)


def plain_rms_norm_silu(
    x: Tensor, gamma: Tensor, eps: float, scale: Tensor | None, shift: Tensor | None
) -> Tensor:
    """What `rms_norm_silu` is made of."""
    x = F.rms_norm(x, gamma.shape, gamma, eps)
    return F.silu(x if scale is None else x * (scale + 1) + shift)


class RMSNormSiLU(Function):
    """See `rms_norm_silu`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, gamma: Tensor, eps: float, scale: Tensor | None, shift: Tensor | None
    ) -> Tensor:
        rate = inverse_rms(x, eps)
        if scale is None:
            out = (x * gamma).mul_(rate)
        else:
            out = torch.addcmul(shift, x * rate, gamma * (scale + 1))
        return F.silu(out, inplace=True)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
        x, gamma, ctx.eps, scale, shift = inputs
        ctx.save_for_backward(x, gamma, scale, shift)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, scale, shift = ctx.saved_tensors
        if torch.is_grad_enabled():
            of_x, of_gamma, *others = by_torch(
                lambda x, gamma, *s: plain_rms_norm_silu(x, gamma, ctx.eps, *s),
                (x, gamma, scale, shift),
                grad,
            )
            return of_x, of_gamma, None, *others
        rate, gain = inverse_rms(x, ctx.eps), gamma if scale is None else gamma * (scale + 1)
        normed = x * rate
        out = normed * gain if scale is None else torch.addcmul(shift, normed, gain)
        of_out = torch.ops.aten.silu_backward(grad, out)
        of_gain = of_out * normed
        per_gain = summed(of_gain, gamma.shape if scale is None else scale.shape)
        of_shift = None if shift is None else summed(of_out, shift.shape)
        # In place: on a CPU the first touch of new memory costs more than the arithmetic.
        along = of_gain.mul_(gain).mean(-1, keepdim=True)
        of_x = of_out.mul_(gain).addcmul_(normed, along, value=-1).mul_(rate)
        if scale is None:
            return of_x, per_gain, None, None, None
        of_gamma = (per_gain * (scale + 1)).sum_to_size(gamma.shape)
        return of_x, of_gamma, None, per_gain * gamma, of_shift


def summed(x: Tensor, shape: torch.Size) -> Tensor:
    """`x` summed to `shape`, and never a view of it, as `sum_to_size` may be."""
    return x.clone() if x.shape == shape else x.sum_to_size(shape)


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """One over the root mean square of the last dimension, which is kept."""
    return (x.square().mean(-1, keepdim=True) + eps).rsqrt()


def attention_with_bias(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """`scaled_dot_product_attention` with a bias that learns.

    For the gradient of a bias torch keeps the scores of the whole batch twice on a CPU. Here
    those of one sample at a time are computed again. With fewer keys than features the scores
    are smaller than `q`, `k` and `v`, and torch's way is the faster.

    Shapes: `q` (b g i d), `k` and `v` (b g j d), `bias` (b|1 g i j), finite -> (b g i d).
    """
    if by_hand(q) and bias.requires_grad and k.shape[-2] > k.shape[-1] and len(q) > 0:
        return AttentionWithBias.apply(q, k, v, bias)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


class AttentionWithBias(Function):
    """See `attention_with_bias`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        # torch looks whether the bias learns, here too, and would not take a fused kernel
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.detach())

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
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
