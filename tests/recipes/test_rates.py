"""Clips at a frame rate."""

import math

import pytest
import torch

from make_a_video_pytorch.recipes import sample_clip, sample_fps


def test_fps_go_from_high_to_low():
    """The mean and the variance of Beta(k, n + 1 - k), stretched to [1, 30]."""
    generator = torch.Generator().manual_seed(0)
    means = []
    for progress, k in [(0.0, 9), (0.5, 5), (1.0, 1)]:
        fps = sample_fps(50_000, progress, generator=generator)
        assert fps.min() >= 1
        assert fps.max() <= 30
        beta = torch.distributions.Beta(float(k), float(10 - k))
        assert abs(fps.mean() - (1 + 29 * beta.mean)) < 0.1
        assert abs(fps.std() / (29 * beta.stddev) - 1) < 0.02
        means.append(fps.mean())
    assert means[0] > means[1] > means[2]


@pytest.mark.parametrize("fps", [1, 2, 7.5, 12, 24, 60])
def test_a_clip_has_the_fps_that_it_says(fps):
    generator = torch.Generator().manual_seed(0)
    starts = set()
    for _ in range(200):
        indices, actual = sample_clip(100, 24, 9, fps, generator)
        assert indices.min() >= 0
        assert indices.max() < 100
        gaps = indices.diff()
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1
        if 2 <= fps <= 24:
            assert actual == pytest.approx(fps)
        assert (indices[-1] - indices[0]) / 24 == pytest.approx(8 / actual, abs=1 / 24)
        starts.add(int(indices[0]))
    last = 99 - int(indices[-1] - indices[0])  # where the latest clip starts
    assert min(starts) < 3 + last // 20
    assert max(starts) > last - 3 - last // 20


def test_a_clip_may_be_the_whole_video():
    assert sample_clip(5, 24, 5, 1)[0].tolist() == [0, 1, 2, 3, 4]
    indices, fps = sample_clip(9, 24, 5, 1)
    assert indices.tolist() == [0, 2, 4, 6, 8]
    assert fps == 12
    assert sample_clip(1, 24, 1, 8)[0].tolist() == [0]
    for num_frames in range(2, 60):  # rounding takes no frame away
        for frames in range(2, num_frames + 1):
            indices, _ = sample_clip(num_frames, 24, frames, 0.001)
            assert indices[0] == 0
            assert indices[-1] == num_frames - 1
            assert indices.diff().max() - indices.diff().min() <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_fps(1, 1.5), r"`progress` \(=1.5\) must be between 0 and 1"),
        (lambda: sample_fps(1, 0, lowest=9, highest=8), r"`lowest` \(=9\) must be positive and at"),
        (lambda: sample_fps(0, 0), r"`count` \(=0\) must be at least 1"),
        (lambda: sample_clip(4, 24, 5, 8), r"`frames` \(=5\) must be at most `num_frames` \(=4\)"),
        (lambda: sample_clip(4, 24, 2, 0), r"`source_fps` \(=24\) and `fps` \(=0\) must be posit"),
        (lambda: sample_clip(4, 24, 2, math.nan), r"`fps` \(=nan\) must be positive"),
    ],
)
def test_wrong_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
