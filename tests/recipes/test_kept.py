"""Frames to keep while others are filled in."""

import pytest
import torch

from make_a_video_pytorch.recipes import at, every, head, kept_frames, tail


def test_which_frames_are_kept():
    assert every(76, 5).sum() == 16
    assert every(7, 3).tolist() == [True, False, False, True, False, False, True]
    assert head(4).tolist() == [True, False, False, False]
    assert tail(4, 2).tolist() == [False, False, True, True]
    assert at(5, [0, 3, -1]).tolist() == [True, False, False, True, True]
    assert head(2, 5).all()


@pytest.mark.parametrize("per_sample", [False, True])
def test_the_condition_is_the_masked_pictures_and_the_mask(per_sample):
    video = torch.randn(2, 3, 5, 4, 6)
    kept = torch.stack((every(5, 2), tail(5))) if per_sample else every(5, 2)
    out = kept_frames(video, kept)
    assert out.shape == (2, 4, 5, 4, 6)
    for sample, keep in enumerate(kept.expand(2, 5)):
        assert torch.equal(out[sample, :3, keep], video[sample][:, keep])
        assert not out[sample, :, ~keep].any()
        assert (out[sample, 3, keep] == 1).all()


def test_hidden_frames_do_not_leak():
    video = torch.full((1, 3, 2, 4, 4), float("nan"))
    video[:, :, 0] = 1
    assert kept_frames(video, head(2)).isfinite().all()


def test_pixels_may_be_kept_as_frames_may():
    video = torch.randn(2, 3, 4, 5, 6)
    kept = torch.rand(2, 4, 5, 6) > 0.5
    out = kept_frames(video.masked_fill(~kept[:, None], torch.nan), kept)
    assert out.shape == (2, 4, 4, 5, 6)
    assert torch.equal(out[:, 3], kept.float())
    assert torch.equal(out[:, :3], video.masked_fill(~kept[:, None], 0))
    of_frames = torch.rand(2, 4) > 0.5
    pixels = of_frames[..., None, None].expand(2, 4, 5, 6)
    assert torch.equal(kept_frames(video, pixels), kept_frames(video, of_frames))


def test_indices_are_not_a_mask():
    with pytest.raises(TypeError, match=r"`indices` \(=True\) must be ints"):
        at(4, [True, False, False, False])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: every(5, 0), r"`step` \(=0\) must be at least 1"),
        (lambda: head(0), r"`frames` \(=0\) must be at least 1"),
        (lambda: tail(3, 0), r"`count` \(=0\) must be at least 1"),
        (lambda: at(3, [3]), r"`indices` \(=3\) must be from -3 to 2"),
        (lambda: at(3, [-4]), r"`indices` \(=-4\) must be from -3 to 2"),
        (
            lambda: kept_frames(torch.zeros(2, 3, 4, 5), head(4)),
            r"`video` \(shape \(2, 3, 4, 5\)\) must be \(b c f h w\)",
        ),
        (
            lambda: kept_frames(torch.zeros(2, 3, 4, 5, 5), head(3)),
            r"`kept` \(shape \(3,\), torch.bool\) must be a bool tensor \(f\), \(b f\) or "
            r"\(b f h w\), with \(b f h w\) = \(2, 4, 5, 5\)",
        ),
    ],
)
def test_wrong_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
