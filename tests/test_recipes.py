import math

import pytest
import torch

from make_a_video_pytorch import recipes
from make_a_video_pytorch.recipes import (
    at,
    every,
    head,
    kept_frames,
    mixed_noise,
    progressive_noise,
    sample_clip,
    sample_fps,
    tail,
)


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


def test_indices_are_not_a_mask():
    with pytest.raises(TypeError, match=r"`indices` \(=True\) must be ints"):
        at(4, [True, False, False, False])


@pytest.mark.parametrize("alpha", [0, 0.5, 1, 2])
def test_mixed_noise_is_normal_and_shared(alpha):
    noise = mixed_noise((400, 2, 5, 4, 4), alpha, generator=torch.Generator().manual_seed(0))
    frames = noise.transpose(0, 2).flatten(1)
    share = alpha**2 / (1 + alpha**2)
    expected = torch.full((5, 5), share) + torch.eye(5) * (1 - share)
    torch.testing.assert_close(torch.cov(frames), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("alpha", [0, 0.5, 2])
def test_progressive_noise_is_normal_and_forgets(alpha):
    noise = progressive_noise((400, 2, 5, 4, 4), alpha, generator=torch.Generator().manual_seed(0))
    frames = noise.transpose(0, 2).flatten(1)
    ratio = alpha / (1 + alpha**2) ** 0.5
    distance = (torch.arange(5) - torch.arange(5)[:, None]).abs()
    torch.testing.assert_close(torch.cov(frames), ratio**distance, rtol=0, atol=0.05)


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
        (lambda: sample_fps(1, 1.5), r"`progress` \(=1.5\) must be between 0 and 1"),
        (lambda: sample_fps(1, 0, lowest=9, highest=8), r"`lowest` \(=9\) must be positive and at"),
        (lambda: sample_fps(0, 0), r"`count` \(=0\) must be at least 1"),
        (lambda: sample_clip(4, 24, 5, 8), r"`frames` \(=5\) must be at most `num_frames` \(=4\)"),
        (lambda: sample_clip(4, 24, 2, 0), r"`source_fps` \(=24\) and `fps` \(=0\) must be posit"),
        (lambda: mixed_noise((2, 3, 4, 4)), r"`shape` \(=\(2, 3, 4, 4\)\) must be that of a video"),
        (lambda: mixed_noise((2, 3, 4, 4, 4), -1), r"`alpha` \(=-1\) must be at least 0"),
        (lambda: mixed_noise((2, 3, 4, 4, 4), math.inf), r"`alpha` \(=inf\) must be .* finite"),
        (lambda: progressive_noise((2, 3, 0, 4, 4)), r"`shape` \(=\(2, 3, 0, 4, 4\)\) must be"),
        (lambda: sample_clip(4, 24, 2, math.nan), r"`fps` \(=nan\) must be positive"),
    ],
)
def test_wrong_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_public_is_what_users_import():
    defined = {
        name
        for name, value in vars(recipes).items()
        if getattr(value, "__module__", "") == recipes.__name__ and not name.startswith("_")
    }
    assert defined == set(recipes.__all__)
