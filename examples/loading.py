"""Batches for training steps, read by other processes while a step is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from collection import Batch, Collection
from errors import DataError
from shards import Shards
from torch import Generator
from torch.utils.data import DataLoader, Dataset, IterableDataset

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


class InTurn(IterableDataset):
    """The batches of shards, which come as they are read."""

    def __init__(
        self, shards: Shards, steps: range, first: int, count: int, frames: int, seed: int
    ) -> None:
        self.shards, self.asked = shards, (steps, first, count, frames, seed)

    def __iter__(self) -> Iterator[Batch]:
        return self.shards.following(*self.asked)


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
    dataset: Dataset = Steps(source, steps, count, frames, seed)
    sampler = taken
    if isinstance(source, Shards):
        dataset, sampler = InTurn(source, steps, taken.start, count, frames, seed), None
        workers = min(workers, source.most_workers())
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=workers if taken else 0,
        pin_memory=torch.cuda.is_available(),
    )
    waiting = iter(loader)

    def next_batch(_: Generator) -> Batch:
        try:
            return next(waiting)
        except DataError as error:  # of a worker, with all that led to it
            reason = str(error).strip().splitlines()[-1]
            raise DataError(reason.removeprefix("errors.DataError: ")) from error

    return next_batch
