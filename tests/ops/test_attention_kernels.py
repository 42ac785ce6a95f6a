import torch

from make_a_video_pytorch.ops.attention_kernels import attention, backends_for


def test_neither_kernel_nor_softmax_sees_the_future():
    q, k, v = torch.randn(3, 2, 3, 5, 8).double()
    bias = torch.randn(1, 3, 5, 5).double()
    scores = (q @ k.mT / 8**0.5 + bias).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    for flash in (True, False):
        out = attention(q, k, v, bias, True, flash)
        torch.testing.assert_close(out, scores.softmax(-1) @ v)


def test_half_precision_training_on_a_cpu_avoids_the_slow_backward():
    def allowed(**kwargs):
        q = torch.randn(1, 2, 3, 8, **kwargs)
        with backends_for(q, q, q, None):
            return torch._C._get_flash_sdp_enabled()

    assert not allowed(dtype=torch.bfloat16, requires_grad=True)
    assert allowed(dtype=torch.bfloat16)
    assert allowed(requires_grad=True)
    with torch.no_grad():
        assert allowed(dtype=torch.bfloat16, requires_grad=True)


def test_on_cuda_a_bias_keeps_cudnn_out():
    class Cuda:
        is_cuda = requires_grad = True

    q, bias = Cuda(), torch.zeros(1)
    with backends_for(q, q, q, bias):
        assert not torch._C._get_cudnn_sdp_enabled()
        assert torch._C._get_mem_efficient_sdp_enabled()
    q.requires_grad = False
    with backends_for(q, q, q, bias.requires_grad_()):  # and then, no fused backward either
        assert not torch._C._get_mem_efficient_sdp_enabled()
        assert torch._C._get_math_sdp_enabled()
