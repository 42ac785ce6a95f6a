"""Where things are in a clip, and how they move."""

import pytest
import torch
from clips import MovingDigits
from motion import bouncing, centres, motion, off_path
from torch import Generator


def square(path, height=11, width=17):
    """A clip (1 1 f h w) of a bright square of 3x3 pixels whose centre takes this path (x y)."""
    video = torch.full((1, 1, len(path), height, width), -1.0)
    for frame, (x, y) in enumerate(path):
        video[0, 0, frame, y - 1 : y + 2, x - 1 : x + 2] = 1
    return video


def test_the_centre_is_that_of_what_is_bright():
    path = [(3, 2), (9, 5), (15, 8)]
    torch.testing.assert_close(centres(square(path)), torch.tensor([path]).double())


def test_a_background_that_is_almost_black_does_not_pull_it():
    video = square([(3, 2)]).clamp(min=-0.85)
    torch.testing.assert_close(
        centres(video), torch.tensor([[[3.0, 2]]]).double(), atol=1e-6, rtol=0
    )


def test_the_centre_of_nothing_is_the_middle():
    torch.testing.assert_close(
        centres(torch.full((1, 3, 2, 5, 9), -1.0)), torch.tensor([[[4.0, 2]] * 2]).double()
    )


def test_motion_has_the_values_of_a_known_path():
    """Three pixels to the right and four down a frame; and one that stops."""
    straight = motion(square([(2 + 3 * n, 1 + 4 * n) for n in range(3)] + [(11, 13)], 19, 17), 50)
    assert float(straight.speed) == pytest.approx(5)
    assert float(straight.jerk) == pytest.approx(0, abs=1e-6)
    assert float(straight.displacement) == pytest.approx(15)
    halting = motion(square([(2, 3), (5, 3), (8, 3), (8, 3)]), 50)
    assert float(halting.jerk) == pytest.approx(3)  # 0 and then -3
    assert float(halting.displacement) == pytest.approx(6)
    assert float(halting.speed) == pytest.approx(2)


def test_a_path_that_bounces_stays_within_reach_and_turns():
    path = bouncing(torch.tensor(3.0), torch.tensor(1.0), 5, reach=2.0)
    # from -3 folded: |3 - 4| - 2, then on to the side and back
    assert path.tolist() == [-1.0, -2.0, -1.0, 0.0, 1.0]


def test_a_path_with_bounces_is_straight_and_a_crooked_one_is_not():
    start, velocity = torch.tensor([[0.37, 2.91]]).double(), torch.tensor([[0.53, -0.71]]).double()
    path = bouncing(start, velocity, 8, reach=1.8).movedim(-1, 1)  # 1 f 2
    moved = path + torch.tensor([0.3, -0.2])  # where in its scan a digit is does not count
    assert off_path(moved, 1.8).item() < 0.06
    crooked = path.clone()
    crooked[0, 3, 0] += 1
    assert off_path(crooked, 1.8).item() > 0.2
    assert off_path(path[:, :1].expand(-1, 8, -1), 1.8).item() == 0  # a still clip has a path


def test_the_paths_of_moving_digits_are_straight():
    videos = MovingDigits(12)(40, 8, Generator().manual_seed(0)).videos
    real = motion(videos, 0.15 * 12)
    assert float(real.off_path.mean()) < 0.05
    # made at 0.3 to 0.6 pixels a frame, of which a bounce takes some
    assert 0.35 < float(real.speed.mean()) < 0.5
    assert float(real.speed.max()) < 0.65
