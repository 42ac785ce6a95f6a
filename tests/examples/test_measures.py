"""The measures of samples, each against a value known otherwise."""

import pytest
import torch
from judges import Judges
from measures import (
    DISPLACEMENT,
    FRECHET,
    JERK,
    RIGHT,
    SAME,
    SPEED,
    frechet,
    measured,
    nearest,
    standard_error,
    summary,
)
from torch import nn


class Reads(nn.Module):
    """A classifier that takes the brightest column for the digit."""

    def seen(self, videos):
        return videos.amax((1, 3)).argmax(-1)


def columns(*rows):
    """Clips (b 1 f 3 10) whose frames are a bright column each."""
    videos = torch.full((len(rows), 1, len(rows[0]), 3, 10), -1.0)
    for clip, row in enumerate(rows):
        for frame, column in enumerate(row):
            videos[clip, 0, frame, :, column] = 1
    return videos


def test_the_right_digit_is_a_share_of_frames_and_the_same_one_a_matter_of_all():
    judges = Judges(1, 4, 10)
    judges.frame = Reads()
    found = measured(
        columns([3, 3, 3, 3], [3, 3, 3, 7], [5, 5, 5, 5]), torch.tensor([3, 3, 3]), judges
    )
    assert found[RIGHT].tolist() == [1, 0.75, 0]
    assert found[SAME].tolist() == [1, 0, 1]  # a wrong one, but one
    assert found[SPEED].tolist() == pytest.approx([0, 4 / 3, 0], abs=1e-6)
    assert found[DISPLACEMENT].tolist() == pytest.approx([0, 4, 0], abs=1e-6)
    assert found[JERK].tolist() == pytest.approx([0, 4, 0], abs=1e-6)


def test_a_summary_is_of_means_and_a_distance_within_what_chance_does():
    real, some = torch.randn(200, 3), torch.randn(50, 3) + 1
    values = torch.rand(50, dtype=torch.float64)
    found = summary({SPEED: values}, some, real)
    mean, distance = found[SPEED], found[FRECHET]
    assert mean.value == pytest.approx(values.mean().item())
    assert mean.within == pytest.approx(1.96 * values.std().item() / 50**0.5, rel=0.15)
    assert distance.value == pytest.approx(frechet(some, real))
    assert 0 < distance.within < distance.value
    assert str(mean) == f"{mean.value:.2f} ± {mean.within:.2f}"


def test_frechet_is_that_of_normal_distributions():
    """In one dimension the squares of what means and deviations differ by, added."""
    a = torch.randn(57, 1)
    b = 3 * a + 5
    expected = (b.mean() - a.mean()) ** 2 + (b.std() - a.std()) ** 2
    assert frechet(a, b) == pytest.approx(expected.item(), rel=1e-5)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_takes_the_root_of_a_product_of_covariances():
    """By the eigenvalues of the product itself, which has no symmetry."""
    a, b = torch.randn(90, 5).double(), (torch.randn(70, 5) @ torch.randn(5, 5) + 1).double()
    product = torch.cov(a.T) @ torch.cov(b.T)
    cross = torch.linalg.eigvals(product).real.sqrt().sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + (torch.cov(a.T) + torch.cov(b.T)).trace()
    assert frechet(a, b) == pytest.approx((expected - 2 * cross).item(), rel=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)


def test_few_samples_of_many_features_have_a_distance():
    assert frechet(torch.randn(3, 7), torch.randn(5, 7)) > 0


def test_the_nearest_is_of_the_others():
    others = torch.zeros(3, 1, 2, 4, 5)
    others[1] = 1
    assert nearest(torch.full((1, 1, 2, 4, 5), 0.75), others).item() == pytest.approx(0.25)
    assert nearest(others, others).tolist() == [0, 0, 0]


def test_the_standard_error_of_a_mean_is_the_deviation_over_the_root_of_the_count():
    values = torch.randn(400).double()
    error = standard_error(400, lambda places: float(values[places].mean()))
    assert error == pytest.approx(values.std().item() / 20, rel=0.15)
