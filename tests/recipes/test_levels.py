"""Noise levels of each frame."""

import pytest
import torch

from make_a_video_pytorch.recipes import each_frame, frame_timesteps


def test_timesteps_are_even_and_independent():
    drawn = frame_timesteps(20_000, 3, steps=5, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (20_000, 3)
    shares = torch.stack([(drawn == step).double().mean(0) for step in range(5)])
    torch.testing.assert_close(shares, torch.full_like(shares, 0.2), rtol=0, atol=0.02)
    together = torch.corrcoef(drawn.double().T)
    torch.testing.assert_close(together, torch.eye(3).double(), rtol=0, atol=0.03)


def test_chunks_have_one_and_rising_ones_fall_nowhere():
    drawn = frame_timesteps(50, 7, chunk=3)
    for start, stop in ((0, 3), (3, 6), (6, 7)):
        assert (drawn[:, start:stop] == drawn[:, start : start + 1]).all()
    assert (drawn[:, 0] != drawn[:, 3]).any()
    rising = frame_timesteps(50, 7, chunk=2, rising=True)
    assert (rising.diff(dim=1) >= 0).all()
    assert (rising[:, 0] != rising[:, 6]).any()


def test_each_frame_is_a_sample():
    video, noise = torch.randn(2, 2, 3, 5, 4, 6).unbind()
    timesteps = torch.rand(2, 5)
    got = each_frame(lambda x, n, t: x + n * t[:, None, None, None], video, noise, timesteps)
    assert got.shape == video.shape
    torch.testing.assert_close(got, video + noise * timesteps[:, None, :, None, None])
    vectors = torch.randn(2, 5, 7)
    got = each_frame(lambda x, v: x * v.sum(1)[:, None, None, None], video, vectors)
    torch.testing.assert_close(got, video * vectors.sum(2)[:, None, :, None, None])


def test_as_a_scheduler_takes_them():
    scheduler = pytest.importorskip("diffusers").DDPMScheduler()
    video, noise = torch.randn(2, 2, 3, 4, 4, 6).unbind()
    timesteps = frame_timesteps(2, 4)
    got = each_frame(scheduler.add_noise, video, noise, timesteps)
    for frame in range(4):
        alone = scheduler.add_noise(video[:, :, frame], noise[:, :, frame], timesteps[:, frame])
        assert torch.equal(got[:, :, frame], alone)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: frame_timesteps(2, 3, chunk=0), r"`chunk` \(=0\) must be at least 1"),
        (lambda x: frame_timesteps(2, 3, steps=0), r"`steps` \(=0\) must be at least 1"),
        (lambda x: each_frame(max), r"`tensors\[0\]` \(shape None\) must be a video"),
        (lambda x: each_frame(max, x[0]), r"`tensors\[0\]` \(shape \(2, 3, 4, 4\)\) must be a"),
        (
            lambda x: each_frame(max, x, torch.zeros(2)),
            r"`tensors\[1\]` \(shape \(2,\)\) must be .* with \(b f\) = \(1, 3\)",
        ),
    ],
)
def test_wrong_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 2, 3, 4, 4))
