"""Contract 4: positions and fused attention together."""

import pytest
import torch
import torch.nn.functional as F

from make_a_video_pytorch import SpaceTimeUnet, SpatioTemporalAttention
from tests.zoo import UNET, randomize

POSITIONS = [(False, False), (True, False), (False, True), (True, True)]


@pytest.mark.parametrize(("pos_bias", "rotary"), POSITIONS)
@pytest.mark.parametrize("causal", [True, False])
def test_fused_and_explicit_agree(pos_bias, rotary, causal):
    kwargs = dict(dim_head=8, heads=3, pos_bias=pos_bias, rotary=rotary, causal_time_attn=causal)
    fused = randomize(SpatioTemporalAttention(7, **kwargs)).double()
    explicit = SpatioTemporalAttention(7, flash=False, **kwargs).double()
    explicit.load_state_dict(fused.state_dict())
    video = torch.randn(2, 7, 5, 3, 9).double()
    results = []
    for module in (fused, explicit):
        x = video.clone().requires_grad_()
        out = module(x)
        out.square().sum().backward()
        results.append([out, x.grad, *(p.grad for p in module.parameters())])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(("pos_bias", "rotary"), POSITIONS)
def test_every_attention_of_the_unet_goes_through_the_fused_call(monkeypatch, pos_bias, rotary):
    calls = []
    fused = F.scaled_dot_product_attention

    def spy(q, k, v, attn_mask=None, **kwargs):
        calls.append(attn_mask is not None)
        return fused(q, k, v, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    unet = SpaceTimeUnet(**UNET, attn_pos_bias=pos_bias, attn_rotary=rotary)
    unet(torch.randn(1, 3, 2, 8, 12), 5)
    assert calls == [pos_bias] * 6  # space and time, down, in the middle and up


def test_the_explicit_softmax_has_second_derivatives():
    attn = randomize(SpatioTemporalAttention(4, dim_head=4, heads=2, flash=False)).double()
    x = torch.randn(1, 4, 2, 2, 3).double().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: attn(x).sin(), (x,))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("pos_bias", [True, False])
def test_on_cuda_a_fused_kernel_runs(pos_bias):
    attn = SpatioTemporalAttention(64, dim_head=64, heads=4, pos_bias=pos_bias)
    attn = attn.cuda().bfloat16()
    video = torch.randn(2, 64, 8, 16, 16, device="cuda", dtype=torch.bfloat16)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        attn(video).square().mean().backward()
    kernels = " ".join(event.key.lower() for event in profile.key_averages())
    assert any(name in kernels for name in ("flash", "fmha", "cudnn_generated"))
    assert "softmax" not in kernels
