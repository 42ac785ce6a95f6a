import pytest
import torch

from make_a_video_pytorch.ops.norm import RMSNorm


@pytest.mark.parametrize("dim", [1, -1, 2])
def test_the_mean_square_becomes_that_of_the_gain(dim):
    x = torch.randn(2, 5, 5, 5, dtype=torch.float64) * 37
    norm = RMSNorm(5, dim=dim).double()
    torch.testing.assert_close(norm(x).square().mean(dim), torch.ones(2, 5, 5).double())
    norm.gamma.data = torch.arange(5.0).double()
    gain = norm.gamma.reshape(-1, *[1] * (x.ndim - 1 - dim % x.ndim))
    torch.testing.assert_close(norm(x), x / x.square().mean(dim, True).sqrt() * gain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])
def test_statistics_are_taken_in_fp32(dtype, scale):
    """The squares of 1e4 overflow fp16, and sums of squares lose their digits in it."""
    x = (torch.randn(3, 640) * scale).to(dtype)
    out = RMSNorm(640).to(dtype)(x)
    assert out.dtype == dtype
    expected = RMSNorm(640)(x.float())
    torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_zeros_stay_zeros_with_finite_gradients(dtype):
    x = torch.zeros(2, 7, dtype=dtype, requires_grad=True)
    out = RMSNorm(7).to(dtype)(x)
    out.sum().backward()
    assert not out.any()
    assert x.grad.isfinite().all()


def test_it_says_what_it_normalises():
    assert repr(RMSNorm(7, dim=-1)) == "RMSNorm(7, dim=-1)"
