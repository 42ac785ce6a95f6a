"""What is differentiated by hand, in small cases, beside what torch differentiates."""

import pytest
import torch

from make_a_video_pytorch.ops.gradients import attention as attention_file
from make_a_video_pytorch.ops.gradients import convolution as convolution_file
from make_a_video_pytorch.ops.gradients import norm as norm_file
from make_a_video_pytorch.ops.gradients.attention import attention_with_bias
from make_a_video_pytorch.ops.gradients.convolution import conv_over_frames
from make_a_video_pytorch.ops.gradients.norm import rms_norm


def randn(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, requires_grad=True)


def conv(taps, padding, frames=4, batch=2):
    tensors = randn(batch, 3, frames, 5), randn(2, 3, taps, 1), randn(2)
    return lambda x, w, b: conv_over_frames(x, w, b, padding), tensors


def norm(scaled, frames=3, pixels=(2, 1), silu=True):
    tensors = [randn(2, 3, *pixels, 5), randn(5)]
    if scaled:
        tensors += [randn(2, frames, 1, 1, 5), randn(2, frames, 1, 1, 5)]
    return lambda x, g, *s: rms_norm(x, g, 1e-12, *s, silu=silu), tuple(tensors)


def attention(samples):
    tensors = randn(3, 2, 4, 3), randn(3, 2, 7, 3), randn(3, 2, 7, 3), randn(samples, 2, 4, 7)
    return attention_with_bias, tensors


def norm_of(x, scale):
    tensors = randn(*x), randn(x[-1]), randn(*scale), randn(*scale)
    return lambda x, g, *s: rms_norm(x, g, 1e-12, *s, silu=True), tensors


CASES = {
    "conv": conv(3, 1),
    "conv-even": conv(2, 1),
    "conv-padded-before": conv(4, 0, frames=7),
    "conv-of-fewer-frames": conv(5, 1),
    "conv-longer-than-the-clip": conv(9, 4, frames=2),
    "conv-mostly-padding": conv(9, 8, frames=1),
    "conv-one-tap": conv(1, 0),
    "conv-one-sample": conv(5, 2, batch=1),
    "norm": norm(False),
    "norm-alone": norm(False, silu=False),
    "norm-alone-scaled": norm(True, silu=False),
    "norm-scaled": norm(True),
    "norm-scaled-as-one": norm(True, frames=1),
    "norm-scaled-one-pixel": norm(True, pixels=(1, 1)),
    "norm-image": (
        lambda x, g: rms_norm(x, g, 1e-12, silu=True),
        (randn(2, 3, 4, 5), randn(5)),
    ),
    "norm-image-scaled": norm_of((2, 3, 4, 5), (2, 1, 1, 5)),
    "norm-image-scaled-as-one": norm_of((2, 3, 4, 5), (1, 1, 5)),
    "norm-scaled-everywhere": norm_of((2, 3, 4, 5), (2, 3, 4, 5)),
    "attention": attention(1),
    "attention-a-bias-each": attention(3),
}


def plain(function, *tensors):
    """`function` as torch differentiates it."""
    with pytest.MonkeyPatch.context() as patch:
        for file in (attention_file, convolution_file, norm_file):
            patch.setattr(file, "by_hand", lambda *tensors: False)
        return function(*tensors)


def is_by_hand(out):
    return type(out.grad_fn).__name__ in {
        "ConvOverFramesBackward", "FusedRMSNormBackward", "AttentionWithBiasBackward"
    }  # fmt: skip


def kept_by(function, *tensors):
    """The result of a call, and the addresses of what it keeps for backward."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = function(*tensors)
    return out, {t.data_ptr() for t in kept}
