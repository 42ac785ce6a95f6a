"""What `images_first.py` may be about: moving digits, or videos in folders of their names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import torch
from batch import Batch
from buckets import Shape
from clips import MovingDigits, named
from collection import Clips
from errors import DataError
from loading import Source
from torch import Generator

HALVES = ("seen", "unseen")


class Domain(Protocol):
    """Clips of some names, from 0 on."""

    channels: int
    names: int

    def clips(self, which: Sequence[int], held_out: bool = False) -> Source:
        """Those of some of the names, for training or held out from it."""
        ...


class Digits:
    """Moving digits.

    Args:
        size: height and width in pixels.
    """

    channels, names = MovingDigits.channels, MovingDigits.cond_dim

    def __init__(self, size: int) -> None:
        self.size = size

    def clips(self, which: Sequence[int], held_out: bool = False) -> MovingDigits:
        """Those of some digits."""
        return MovingDigits(self.size, held_out, which)


class Folders:
    """Videos in folders, of a name each, as UCF-101 or Kinetics are laid out.

    Args:
        folder: of the folders, whose names count in their alphabetical order.
        size: height and width in pixels.
        frames: of a clip.

    Raises:
        DataError: if there are fewer than two folders, or nothing of one is held out.
    """

    channels = 3

    def __init__(self, folder: Path, size: int, frames: int) -> None:
        paths = sorted(path for path in folder.iterdir() if path.is_dir())
        if len(paths) < 2:
            raise DataError(f"{folder} must have a folder of videos for each of two names or more")
        self.names = len(paths)
        self.trained = [Clips(path, [Shape(frames, size, size)]) for path in paths]
        self.held_out = [clips.of_what_is_held_out() for clips in self.trained]
        for path, clips in zip(paths, self.held_out, strict=True):
            if clips is None:
                raise DataError(f"no video in {path} is long enough to hold some out")

    def clips(self, which: Sequence[int], held_out: bool = False) -> Source:
        """Those of some names, each as often as the others."""
        of_names = self.held_out if held_out else self.trained

        def made(count: int, frames: int, generator: Generator) -> Batch:
            drawn = torch.tensor(which)[torch.randint(len(which), (count,), generator=generator)]
            videos = [of_names[name](1, frames, generator).videos for name in drawn]
            return Batch(torch.cat(videos), named(drawn, self.names))

        return made


@cache
def domain(data: str, size: int, frames: int) -> Domain:
    """`digits`, or the folders in a folder."""
    return Digits(size) if data == "digits" else Folders(Path(data), size, frames)


def halves(of: Domain) -> dict[str, range]:
    """The names that are seen moving, and those that are not, but in pictures only."""
    middle = of.names // 2
    return dict(zip(HALVES, (range(middle), range(middle, of.names)), strict=True))
