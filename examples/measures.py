"""What samples of moving digits are measured by, each by itself and as a crowd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import stdev
from typing import NamedTuple

import torch
from judges import Judges
from motion import motion
from torch import Generator, Tensor

REACH = 0.15  # how far a digit's centre gets from the middle of the picture, of its width
RIGHT, SAME = "right digit in a frame", "same digit in all frames"
SPEED, JERK = "speed", "jerk"
DISPLACEMENT, OFF_PATH = "net displacement", "off a straight path"
FRECHET, NEAREST = "Fréchet distance", "from the nearest training clip"
MEASURES = (RIGHT, SAME, SPEED, JERK, DISPLACEMENT, OFF_PATH, FRECHET, NEAREST)


class Number(NamedTuple):
    """A measure, and half of the interval that has it with 95%, by the bootstrap."""

    value: float
    within: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.within:.2f}"


@torch.no_grad()
def measured(videos: Tensor, digits: Tensor, judges: Judges) -> dict[str, Tensor]:
    """What is measured of each of the clips (b c f h w), of these digits (b), by its name: (b).

    Which digit it is, a judge says: as a share of the frames, and 1 where it is one in all frames,
    the right one or not. How it moves: see `motion`; pixels and frames are the units.
    """
    seen = judges.frame.seen(videos)
    speed, jerk, displacement, off_path = motion(videos, REACH * videos.shape[-1])
    return {
        RIGHT: (seen == digits[:, None]).double().mean(1),
        SAME: (seen == seen[:, :1]).all(1).double(),
        SPEED: speed,
        JERK: jerk,
        DISPLACEMENT: displacement,
        OFF_PATH: off_path,
    }


def summary(each: Mapping[str, Tensor], features: Tensor, real: Tensor) -> dict[str, Number]:
    """The means of what is measured of clips (b), and the Fréchet distance of their features.

    That is of the features (b dim) to those of `real` clips (n dim), see `ClipJudge`. It grows
    where clips are few: compare it between as many.
    """
    statistics: dict[str, Callable[[Tensor], float]] = {
        name: lambda places, values=values: float(values[places].mean())
        for name, values in each.items()
    }
    statistics[FRECHET] = lambda places: frechet(features[places], real)
    count = len(features)
    return {
        name: Number(statistic(torch.arange(count)), 1.96 * standard_error(count, statistic))
        for name, statistic in statistics.items()
    }


def frechet(features: Tensor, real: Tensor) -> float:
    """The Fréchet distance of two normal distributions with the moments of features (n d), (m d).

    Of networks' features it is that of Heusel et al. 2017, equation 6.
    """
    (mean, covariance), (mean_real, covariance_real) = moments(features), moments(real)
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.mT
    # the trace of the root of a product, whose eigenvalues are those of a symmetric one
    cross = torch.linalg.eigvalsh(root @ covariance_real @ root).clamp(min=0).sqrt().sum()
    traces = covariance.trace() + covariance_real.trace()
    return float((mean - mean_real).square().sum() + traces - 2 * cross)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d) and covariance (d d) of features (n d)."""
    features = features.double()
    return features.mean(0), torch.atleast_2d(torch.cov(features.T))


def nearest(videos: Tensor, others: Tensor) -> Tensor:
    """Root mean square difference of each clip to the nearest of `others`: (b), of pixels."""
    distances = torch.cdist(videos.flatten(1), others.flatten(1)).amin(1)
    return distances / videos[0].numel() ** 0.5


def standard_error(count: int, statistic: Callable[[Tensor], float], draws: int = 300) -> float:
    """Of a statistic of `count` samples: how far it spreads if they are drawn again, repeatedly.

    `statistic` is given the places of the samples. The bootstrap of Efron and Tibshirani 1993,
    section 6.2; of percentiles in its place, those of a distance, which grows with repeated
    samples, would not hold the distance itself.
    """
    generator = Generator().manual_seed(0)
    again = [statistic(torch.randint(count, (count,), generator=generator)) for _ in range(draws)]
    return stdev(again)
