import pytest
import torch

from make_a_video_pytorch.ops.gradients.convolution import conv_over_frames
from tests.ops.gradients.cases import CASES, kept_by, randn


@pytest.mark.parametrize(("taps", "padding"), [(3, 1), (2, 1), (4, 0), (5, 4)])
def test_each_frame_is_the_sum_over_the_taps_that_see_one(taps, padding):
    pixels, weight, bias = randn(2, 3, 6, 5), randn(4, 3, taps, 1), randn(4)
    out = conv_over_frames(pixels, weight, bias, padding)
    assert out.shape == (2, 4, 6 + 2 * padding - taps + 1, 5)
    for frame in range(out.shape[2]):
        wanted = bias[:, None]
        for tap in range(taps):
            if 0 <= frame + tap - padding < 6:
                wanted = wanted + weight[:, :, tap, 0] @ pixels[:, :, frame + tap - padding]
        torch.testing.assert_close(out[:, :, frame], wanted.expand(2, 4, 5))


def test_it_keeps_what_it_was_given_but_for_the_bias():
    function, tensors = CASES["conv"]
    assert kept_by(function, *tensors)[1] == {t.data_ptr() for t in tensors[:2]}
