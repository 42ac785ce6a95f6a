"""Judges of clips."""

import torch
from clips import MovingDigits
from judges import ClipJudge, directions, judges_of
from measures import frechet
from torch import Generator


def moving(*steps):
    """A clip (1 1 f 24 24) of a bright square that takes these steps (x y)."""
    video = torch.full((1, 1, len(steps) + 1, 24, 24), -1.0)
    x = y = 12
    for frame, (right, down) in enumerate([(0, 0), *steps]):
        x, y = x + right, y + down
        video[0, 0, frame, y : y + 2, x : x + 2] = 1
    return video


def test_directions_are_of_the_first_step_and_of_the_last():
    # eighths of a turn from the right, downwards, since rows count from the top
    first, last = directions(moving((2, 1), (0, 1), (-2, -1)))
    assert (first.item(), last.item()) == (0, 4)
    first, last = directions(moving((-1, 2), (2, -1)))
    assert (first.item(), last.item()) == (2, 7)


def test_features_are_of_mean_zero_and_length_one_each():
    features = ClipJudge(3, 4, 7, dim=12)(torch.randn(5, 3, 4, 13, 9))
    assert features.shape == (5, 12)
    torch.testing.assert_close(features.mean(1), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(features.square().mean(1), torch.ones(5), atol=1e-2, rtol=0)


def test_the_same_judges_come_of_the_same_clips():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other = (judges_of(MovingDigits(12), 1, 3, 10, steps=2).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)  # nobody else draws otherwise for it
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_judge_of_clips_tells_real_ones_from_independent_frames():
    source, generator = MovingDigits(12), Generator().manual_seed(0)
    judge = judges_of(source, 1, 6, 10, steps=60).clip
    real, others = (source(200, 6, generator).videos for _ in range(2))
    independent = torch.stack([others[torch.randperm(200), :, frame] for frame in range(6)], 2)
    features = judge(source(200, 6, generator).videos)
    assert frechet(judge(real), features) < frechet(judge(independent), features) / 2
