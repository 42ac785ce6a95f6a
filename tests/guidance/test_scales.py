"""A scale is of all, of the samples, of the frames, or of both, and never of either."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from make_a_video_pytorch import per_frame
from make_a_video_pytorch.guidance.scales import as_numbers, as_scale, beside, within

VIDEO = torch.randn(3, 2, 5, 4, 6, dtype=torch.float64)


@pytest.mark.parametrize(
    "scale",
    [7, 7.0, np.float32(7), np.int64(7), np.array(7.0), torch.tensor(7), torch.tensor([7.0])],
    ids=repr,
)
def test_a_number_is_of_all(scale):
    assert as_scale("scale", scale, VIDEO).tolist() == [[7]]
    assert as_scale("scale", scale, VIDEO).dtype == VIDEO.dtype
    assert as_scale("scale", scale, VIDEO.half()).dtype == torch.float32


def test_a_scale_is_of_samples_or_of_frames():
    samples, frames = torch.arange(3.0), torch.arange(5.0)
    for scale in (samples, samples[:, None], samples.tolist(), samples.numpy()):
        assert torch.equal(as_scale("scale", scale, VIDEO), samples[:, None].double())
    for scale in (frames, frames[None], frames.tolist(), frames.numpy()):
        assert torch.equal(as_scale("scale", scale, VIDEO), frames[None].double())
    both = torch.randn(3, 5)
    assert torch.equal(as_scale("scale", both, VIDEO), both.double())
    assert torch.equal(as_scale("scale", samples, VIDEO[:, :, 0]), samples[:, None].double())


def test_a_length_that_could_be_both_says_how_to_be_plain():
    clip = torch.zeros(4, 3, 4, 8, 8)
    with pytest.raises(
        ValueError,
        match=r"`scale` \(shape \(4,\)\) could be of the samples or of the frames of `x` \(shape "
        r"\(4, 3, 4, 8, 8\)\): give it as \(b 1\) or as \(1 f\)",
    ):
        as_scale("scale", torch.ones(4), clip)
    four = torch.arange(4.0)
    assert torch.equal(as_scale("scale", four[:, None], clip), four[:, None])
    assert torch.equal(as_scale("scale", four[None], clip), four[None])
    one = torch.zeros(1, 3, 1, 8, 8)
    assert as_scale("scale", torch.tensor([2.0]), one).tolist() == [[2]]


@pytest.mark.parametrize("shape", [(2,), (0,), (5, 3), (3, 2), (3, 5, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"`image_scale` \(shape .* with b = 3 and f = 5"):
        as_scale("image_scale", torch.ones(shape), VIDEO)


def test_numbers_of_python_and_numpy_are_floats_and_more_of_them_a_tensor():
    for one in (7, 7.0, np.float32(7), np.int64(7), np.array(7.0), Fraction(7)):
        assert as_numbers("scale", one) == 7
        assert type(as_numbers("scale", one)) is float
    tensor = torch.tensor(7)
    assert as_numbers("scale", tensor) is tensor
    for more in ([1, 2], (1.0, 2), range(1, 3), np.array([1.0, 2]), [np.float32(1), tensor - 5]):
        assert as_numbers("scale", more).tolist() == [1, 2]
    assert as_numbers("scale", [[1], [2]]).shape == (2, 1)
    for wrong in ("7", [1, "2"], [[1], [2, 3]]):
        with pytest.raises(TypeError, match=r"`scale` \(=.*\) must be a number, or of numbers"):
            as_numbers("scale", wrong)


def test_an_interval_holds_both_of_its_ends():
    levels = torch.tensor([[0, 200, 500, 800, 900]]).expand(3, -1)
    inside = [[False, True, True, True, False]]
    assert within((200, 800), per_frame(levels), VIDEO).tolist() == inside * 3
    assert within((200, 800), levels[0, :3], VIDEO).tolist() == [[False], [True], [True]]
    for timestep in (300, 300.5, torch.tensor(300), torch.tensor([300]), torch.tensor([[300]])):
        assert within((200, 800), timestep, VIDEO).tolist() == [[True]]
        assert within((301, 800), timestep, VIDEO).tolist() == [[False]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.bfloat16, torch.float16])
def test_an_interval_holds_for_timesteps_of_any_dtype(dtype):
    hundred = torch.tensor(100, dtype=dtype)
    assert within((50, 800), hundred, VIDEO).item()
    assert not within((101, 800), hundred, VIDEO).item()
    assert within((100, 800), np.int64(100), VIDEO).item()


def test_an_interval_needs_a_timestep():
    with pytest.raises(ValueError, match=r"`timestep` \(=None\) must be a number or a tensor"):
        within((0, 9), None, VIDEO)
    for shape in ((2,), (3, 2), (3, 5, 1)):
        with pytest.raises(ValueError, match=r"`timestep` \(shape .* with b = 3 and f = 5"):
            within((0, 9), torch.zeros(shape), VIDEO)


def test_a_scale_is_laid_beside_a_prediction():
    scale = torch.randn(3, 5)
    assert beside(scale, VIDEO).shape == (3, 1, 5, 1, 1)
    assert beside(scale[:, :1], VIDEO[:, :, 0]).shape == (3, 1, 1, 1)
    assert beside(scale[:1, :1], torch.zeros(3, 7)).shape == (1, 1)
    with pytest.raises(ValueError, match=r"`scale` \(of each frame\) needs a prediction"):
        beside(scale, torch.zeros(3, 7))
