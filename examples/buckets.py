"""In which order the files of a collection come, and in which shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from decoding import Facts
from torch import Generator, Tensor


class Shape(NamedTuple):
    """Frames and pixels of a clip."""

    frames: int
    height: int
    width: int


PROPORTIONS = (1, 4 / 3, 3 / 4, 16 / 9, 9 / 16)  # width to height


def shapes_about(size: int, frames: int, *, multiple: int, frame_multiple: int) -> list[Shape]:
    """Shapes of about `size` by `size` pixels in several proportions, and shorter ones too.

    Sizes are multiples of `multiple`, frames are halved as long as they are of `frame_multiple`.
    """
    lengths = [frames]
    while lengths[-1] % (2 * frame_multiple) == 0 and lengths[-1] > 2:
        lengths.append(lengths[-1] // 2)

    def rounded(pixels: float) -> int:
        return max(round(pixels / multiple), 1) * multiple

    return list(
        dict.fromkeys(
            Shape(length, rounded(size / proportion**0.5), rounded(size * proportion**0.5))
            for length in lengths
            for proportion in PROPORTIONS
        )
    )


def nearest(facts: Facts, shapes: Sequence[Shape]) -> Shape:
    """The one of the longest of `shapes` whose proportions are nearest to those of a file."""

    def difference(shape: Shape) -> float:
        return abs(math.log(shape.width / shape.height * facts.height / facts.width))

    longest = max(shape.frames for shape in shapes)
    return min((shape for shape in shapes if shape.frames == longest), key=difference)


@lru_cache(maxsize=2)
def rounds_of(count: int, sizes: tuple[int, ...], seed: int) -> tuple[tuple[int, ...], Tensor]:
    """How many batches of `count` each bucket has in a round, and whose turn it is in it."""
    batches = tuple(max(round(size / count), 1) for size in sizes)
    buckets = torch.arange(len(sizes)).repeat_interleave(torch.tensor(batches))
    return batches, buckets[order(len(buckets), seed)]


def bucket_of(step: int, count: int, sizes: tuple[int, ...], seed: int) -> tuple[int, int]:
    """The bucket that a step's batch is of, and how many batches of it there were before.

    In a round each bucket has about as many batches of `count` as its size makes.
    """
    total = sum(max(round(size / count), 1) for size in sizes)
    turn, place = divmod(step, total)
    batches, buckets = rounds_of(count, sizes, seed * 1_000_003 + turn)
    bucket = int(buckets[place])
    return bucket, turn * batches[bucket] + int((buckets[:place] == bucket).sum())


def shuffled(place: int, count: int, seed: int) -> int:
    """Which of `count` files is at this place of an order shuffled anew in each round."""
    turn, place = divmod(place, count)
    return int(order(count, seed * 1_000_003 + turn)[place])


@lru_cache(maxsize=2)  # a batch may begin in one round and end in the next
def order(count: int, seed: int) -> Tensor:
    """A shuffled order of `count` files."""
    return torch.randperm(count, generator=Generator().manual_seed(seed))
