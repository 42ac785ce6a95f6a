import pytest
import torch

from make_a_video_pytorch.inflation.reasons import reason_for

VIDEO, CLIP = torch.zeros(2, 3, 4, 5, 7), (2, 4)


def test_what_each_frame_has_may_be_the_reason():
    said = reason_for(RuntimeError("the size of x"), (VIDEO, torch.zeros(2, 4)), {}, CLIP)
    assert said == (
        "RuntimeError: the size of x; `args[1]` (shape (2, 4)) must be marked by `per_frame` if it "
        "has an entry for each of the 4 frames, (b f ...)"
    )


def test_a_video_is_the_reason_if_its_folded_shape_is_named():
    error = ValueError("input[8, 3, 5, 7] has other channels")
    said = reason_for(error, (), {"x": VIDEO}, CLIP)
    assert said == (
        "ValueError: input[8, 3, 5, 7] has other channels; `x` (shape (2, 3, 4, 5, 7)) was taken "
        "for a video (b c f h w), 4 frames of 3 channels"
    )


@pytest.mark.parametrize(
    "error",
    [NotImplementedError("a size"), torch.OutOfMemoryError("size"), RuntimeError("no"), KeyError()],
)
def test_other_errors_have_no_reason_here(error):
    assert reason_for(error, (VIDEO, torch.zeros(2, 4)), {}, CLIP) is None


def test_no_argument_is_no_reason():
    assert reason_for(RuntimeError("a size"), (VIDEO, torch.zeros(2, 5)), {}, CLIP) is None
    assert (
        reason_for(RuntimeError("a size"), (VIDEO[:, :, :1], torch.zeros(2, 1)), {}, (2, 1)) is None
    )
