"""Judges of samples: small networks that learn, from real pictures and clips, to see what is there.

None of them has a part in a training of what it judges.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from cache import write
from classifiers import Classifier, encoder, taught
from clips import MovingDigits
from loading import Source
from motion import centres
from safetensors.torch import load_file
from torch import Tensor, nn

DIRECTIONS = 8
STEPS = 800  # in which they learn digits: a minute


class ClipJudge(nn.Module):
    """What a clip shows, and where it moves to at first and at last: (b c f h w) -> features.

    What Fréchet distances are taken of are the features (b dim), of mean zero and length one each,
    so that no odd clip outweighs all others.
    """

    def __init__(self, channels: int, frames: int, names: int, dim: int = 32) -> None:
        super().__init__()
        self.frame = encoder(channels, 32)
        self.clip = nn.Sequential(
            nn.SiLU(), nn.Linear(32 * frames, 128), nn.SiLU(), nn.Linear(128, dim),
            nn.LayerNorm(dim, elementwise_affine=False),
        )  # fmt: skip
        self.name, self.first, self.last = (
            nn.Linear(dim, count) for count in (names, DIRECTIONS, DIRECTIONS)
        )

    def forward(self, videos: Tensor) -> Tensor:
        frames = self.frame(videos.movedim(2, 1).flatten(0, 1))
        return self.clip(frames.unflatten(0, (len(videos), -1)).flatten(1))

    def loss(self, videos: Tensor, names: Tensor) -> Tensor:
        """Of the name and of both directions."""
        features = self(videos)
        first, last = directions(videos)
        return (
            F.cross_entropy(self.name(features), names)
            + F.cross_entropy(self.first(features), first)
            + F.cross_entropy(self.last(features), last)
        )


def directions(videos: Tensor) -> tuple[Tensor, Tensor]:
    """Which of eight directions each clip moves in from its first frame, and to its last."""
    steps = centres(videos).diff(dim=1)
    angles = torch.atan2(steps[..., 1], steps[..., 0]) / (2 * math.pi)
    eighths = (angles * DIRECTIONS).floor().long() % DIRECTIONS
    return eighths[:, 0], eighths[:, -1]


class Judges(nn.Module):
    """Of frames, and of clips.

    Args:
        channels: of the pictures.
        frames: of a clip.
        names: how many there are.
    """

    def __init__(self, channels: int, frames: int, names: int) -> None:
        super().__init__()
        self.frame = Classifier(channels, names, 64)
        self.clip = ClipJudge(channels, frames, names)


def judges_of(source: Source, channels: int, frames: int, names: int, steps: int) -> Judges:
    """Judges that have learned from real clips of `source`, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(1_000)
        found = Judges(channels, frames, names)
    taught(found.frame, source, 1, steps, seed=1_001)
    taught(found.clip, source, frames, steps, seed=1_002)
    return found.eval()


def kept_judges(
    path: Path, source: Source, channels: int, frames: int, names: int, steps: int
) -> Judges:
    """The judges in this file; if there is none, it is written by those that `source` teaches.

    Raises:
        DataError: if it cannot be written.
    """
    if not path.exists():
        write(path, judges_of(source, channels, frames, names, steps).state_dict())
    found = Judges(channels, frames, names)
    found.load_state_dict(load_file(path))
    return found.eval().requires_grad_(False)


def judges_of_digits(size: int, frames: int, folder: Path) -> Judges:
    """Judges of moving digits, which are kept in a folder.

    Raises:
        DataError: if they cannot be.
    """
    digits = MovingDigits(size)
    path = folder / f"judges-{size}-{frames}-{STEPS}.safetensors"
    return kept_judges(path, digits, digits.channels, frames, digits.cond_dim, STEPS)
