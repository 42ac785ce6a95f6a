import pytest
import torch

from make_a_video_pytorch.ops.gradients.norm import rms_norm
from tests.ops.gradients.cases import CASES, kept_by, plain, randn


def test_an_input_made_in_inference_mode_can_be_learned_from():
    """Such as the embedding of a text, for which there is no gradient."""
    gamma = randn(5)
    with torch.inference_mode():
        x = torch.randn(2, 3, 5).double()
    rms_norm(x, gamma, 1e-12).square().sum().backward()
    expected = 2 * gamma * (x / x.square().mean(-1, keepdim=True).sqrt()).square().sum((0, 1))
    torch.testing.assert_close(gamma.grad, expected)


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [
        ((2, 3, 5), torch.float64),
        ((3, 1), torch.float64),
        ((), torch.float64),
        ((5,), torch.float32),
    ],
    ids=["larger", "one-for-all-channels", "one-for-all", "another-dtype"],
)
def test_other_scales_and_shifts_are_left_to_torch(scale, dtype):
    tensors = randn(1, 3, 5, dtype=dtype), randn(5, dtype=dtype), randn(*scale), randn(*scale)
    out = CASES["norm-image-scaled"][0](*tensors)
    expected = plain(CASES["norm-image-scaled"][0], *tensors)
    torch.testing.assert_close(out, expected)
    grads = torch.autograd.grad(out.sum(), tensors), torch.autograd.grad(expected.sum(), tensors)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("name", ["norm", "norm-alone", "norm-scaled", "norm-alone-scaled"])
def test_a_norm_keeps_its_inputs_alone(name):
    function, tensors = CASES[name]
    assert kept_by(function, *tensors)[1] == {t.data_ptr() for t in tensors}


def test_a_gain_of_another_length_is_an_error():
    with pytest.raises(RuntimeError, match="normalized_shape"):
        rms_norm(torch.randn(2, 5), torch.ones(1), 1e-12)
