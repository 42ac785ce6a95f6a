import math

import pytest
import torch
from torch import Generator

from make_a_video_pytorch.cascade.frames import (
    as_size,
    drawn_windows,
    must_be_of_size,
    noise_like,
    noise_of_frames,
    resized,
    seed_of,
    windows,
)


@pytest.mark.parametrize("frames", [1, 4, 5, 6, 7, 8, 9, 50])
@pytest.mark.parametrize("overlap", [0, 1, 3, 4])
def test_windows_make_every_frame_once_and_are_of_one_size(frames, overlap):
    found = windows(frames, 5, overlap)
    made = [place for w in found for place in range(w.start + w.done, w.stop)]
    assert made == list(range(frames))
    assert {w.frames for w in found} == {min(5, frames)}
    assert found[0].done == 0
    assert all(overlap <= w.done < 5 for w in found[1:])
    assert all(w.done == overlap for w in found[1:-1])


def test_a_seed_has_others_by_name():
    seeds = {seed_of(0, "a"), seed_of(0, "b"), seed_of(1, "a"), seed_of(0, "a", 1)}
    assert len(seeds) == 4
    assert seed_of(0, "a", 1) == seed_of(0, "a", 1)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("alpha", [0.0, 1.5, math.inf])
def test_the_noise_of_a_frame_is_the_same_in_every_window(alpha):
    whole = noise_of_frames((2, 3, 9, 4, 5), 0, alpha, 7, "x")
    part = noise_of_frames((2, 3, 4, 4, 5), 3, alpha, 7, "x")
    assert torch.equal(whole[:, :, 3:7], part)
    assert not torch.equal(part, noise_of_frames((2, 3, 4, 4, 5), 3, alpha, 7, "low"))
    assert not torch.equal(part, noise_of_frames((2, 3, 4, 4, 5), 3, alpha, 8, "x"))


@pytest.mark.parametrize(("alpha", "shared"), [(0.0, 0.0), (1.0, 0.5), (2.0, 0.8), (math.inf, 1.0)])
def test_noise_is_standard_normal_and_frames_share_what_alpha_says(alpha, shared):
    noise = noise_of_frames((1, 3, 2, 90, 100), 0, alpha, 0, "x")
    assert noise.std() == pytest.approx(1, abs=0.02)
    first, second = noise.unbind(2)
    assert (first * second).mean().item() == pytest.approx(shared, abs=0.02)
    assert torch.equal(first, second) == (shared == 1)


def test_half_of_the_windows_to_learn_from_are_later_ones_that_mostly_have_the_overlap():
    later, done = drawn_windows(4000, 9, 3, Generator().manual_seed(0))
    assert later.double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert not done[~later].any()
    assert set(done[later].tolist()) == set(range(3, 9))
    # a uniform number is so small that there is none beside the overlap
    wanted = (1 / 6) ** (1 / 16)
    assert (done[later] == 3).double().mean().item() == pytest.approx(wanted, abs=0.03)
    for overlap, frames in ((0, 9), (3, 1)):
        assert not drawn_windows(99, frames, overlap, None)[1].any()


def test_resizing_is_of_each_frame():
    video = torch.randn(2, 3, 5, 8, 6)
    small = resized(video, (4, 3))
    assert small.shape == (2, 3, 5, 4, 3)
    for place in range(5):
        torch.testing.assert_close(small[:, :, place], resized(video[:, :, place], (4, 3)))
    assert resized(video, (8, 6)) is video
    still = torch.full((1, 1, 2, 4, 4), 0.7)
    torch.testing.assert_close(resized(still, (9, 7)), torch.full((1, 1, 2, 9, 7), 0.7))
    # smaller by averages, and not by leaving out
    stripes = torch.arange(16).remainder(2).float().expand(1, 1, 16, 16)
    assert (resized(stripes, (4, 4))[..., 1:-1] - 0.5).abs().max() < 0.1


@pytest.mark.parametrize(("alpha", "shared"), [(0.0, 0.0), (2.0, 0.8), (math.inf, 1.0)])
def test_noise_to_learn_from_is_shared_as_that_of_sampling(alpha, shared):
    generator = Generator().manual_seed(1)
    noise = noise_like(torch.zeros(2, 2, 4, 90, 100), alpha, generator)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert (noise[:, :, 0] * noise[:, :, 3]).mean().item() == pytest.approx(shared, abs=0.03)
    assert not torch.equal(noise[0], noise[1])
    images = noise_like(torch.zeros(2, 2, 90, 100), alpha, generator)
    assert images.shape == (2, 2, 90, 100)
    assert images.std() == pytest.approx(1, abs=0.02)


def test_wrong_sizes_are_refused():
    assert as_size("size", [4, 6]) == (4, 6)
    with pytest.raises(ValueError, match=r"`size` \(=\(4,\)\) must be height and width"):
        as_size("size", [4])
    with pytest.raises(ValueError, match=r"`size\[1\]` \(=0\) must be at least 1"):
        as_size("size", (4, 0))
    must_be_of_size(torch.zeros(1, 1, 1, 4, 6), (4, 6))
    for wrong in (None, torch.zeros(1, 1, 4, 6), torch.zeros(1, 1, 1, 6, 4)):
        with pytest.raises(ValueError, match=r"must be \(b c f h w\) with \(h w\) = \(4, 6\)"):
            must_be_of_size(wrong, (4, 6))
    with pytest.raises(TypeError, match=r"`video` \(a list\) must be a tensor"):
        must_be_of_size([], (4, 6))
