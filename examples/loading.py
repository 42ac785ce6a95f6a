"""Batches for training steps, read by other processes while a step is computed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from collection import Batch, Collection
from torch import Generator
from torch.utils.data import DataLoader, Dataset

Source = Callable[[int, int, Generator], Batch]  # count, frames, randomness -> clips


class Steps(Dataset):
    """The batch of each of the training `steps`, by its number."""

    def __init__(
        self, collection: Collection, steps: range, count: int, frames: int, seed: int
    ) -> None:
        self.collection, self.steps = collection, steps
        self.count, self.frames, self.seed = count, frames, seed

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, step: int) -> Batch:
        progress = (step - self.steps.start) / len(self.steps)
        return self.collection.of_step(step, self.count, self.frames, self.seed, progress)


def batches(
    source: Source | Collection,
    steps: range,
    count: int,
    frames: int,
    *,
    first: int,
    seed: int,
    workers: int,
) -> Callable[[Generator], Batch]:
    """A function that gives the batch of each of the `steps`, from number `first` on, in turn.

    Those of a collection are read by so many `workers`, processes beside this one. What follows
    from the number of a step does not depend on them, nor on where a training was interrupted.
    """
    if not isinstance(source, Collection):
        return partial(source, count, frames)
    taken = range(max(first, steps.start), steps.stop)
    loader = DataLoader(
        Steps(source, steps, count, frames, seed),
        batch_size=None,
        sampler=taken,
        num_workers=workers if taken else 0,
        pin_memory=torch.cuda.is_available(),
    )
    waiting = iter(loader)
    return lambda _: next(waiting)
