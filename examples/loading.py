"""Batches for training steps, read by other processes while a step is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from batch import Batch
from collection import Collection
from draws import Draws
from errors import DataError
from shards import Shards
from torch import Generator
from torch.utils.data import DataLoader, Dataset, IterableDataset

Source = Callable[[int, int, Generator], Batch]  # count, frames, randomness -> clips


class Share(NamedTuple):
    """How a process computes its share of the steps: so many `parts`, one after another."""

    process: int = 0
    processes: int = 1
    parts: int = 1

    def of(self, part: int) -> tuple[int, int]:
        """Which share of a step a part is, of how many in all processes."""
        return self.process * self.parts + part, self.processes * self.parts


ALONE = Share()


def shared_out(total: int, processes: int, most: int) -> tuple[int, int]:
    """How many of `total` samples a process computes at once, at most so many, and how often.

    Raises:
        DataError: if the processes cannot have as many each.
    """
    if total % processes:
        raise DataError(
            f"{processes} processes cannot have as many each of the {total} samples of a step"
        )
    share = total // processes
    count = next(count for count in range(min(most, share), 0, -1) if share % count == 0)
    return count, share // count


class Steps(Dataset):
    """The batches of a process for the training `steps`, by the number of step and part."""

    def __init__(
        self,
        collection: Collection,
        steps: range,
        count: int,
        frames: int,
        seed: int,
        share: Share,
    ) -> None:
        self.collection, self.steps = collection, steps
        self.count, self.frames, self.seed, self.share = count, frames, seed, share

    def __len__(self) -> int:
        return len(self.steps) * self.share.parts

    def __getitem__(self, number: int) -> Batch:
        step, part = divmod(number, self.share.parts)
        progress = (step - self.steps.start) / len(self.steps)
        asked = (step, self.count, self.frames, self.seed, progress)
        return self.collection.of_step(*asked, *self.share.of(part))


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
    share: Share = ALONE,
) -> Callable[[Draws], Batch]:
    """A function that gives the batches of the `steps`, from number `first` on, in turn.

    A step takes a batch of `count` clips for each of its parts, in the `share` of this process.
    Those of a collection are read by so many `workers`, processes beside this one. What follows
    from the number of a step does not depend on them, nor on where a training was interrupted.
    """
    if not isinstance(source, Collection):
        return partial(made, source, count, frames)
    taken = range(max(first, steps.start) * share.parts, steps.stop * share.parts)
    dataset: Dataset = Steps(source, steps, count, frames, seed, share)
    sampler = taken
    if isinstance(source, Shards):
        every = range(steps.start * share.parts, taken.stop)
        dataset, sampler = InTurn(source, every, taken.start, count, frames, seed), None
        workers = min(workers, source.most_workers())
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=workers if taken else 0,
        pin_memory=torch.cuda.is_available(),
    )
    waiting = iter(loader)

    def next_batch(_: Draws) -> Batch:
        try:
            return next(waiting)
        except DataError as error:  # of a worker, with all that led to it
            reason = str(error).strip().splitlines()[-1]
            raise DataError(reason.removeprefix("errors.DataError: ")) from error

    return next_batch


def made(source: Source, count: int, frames: int, draws: Draws) -> Batch:
    """The part of `draws` of a batch that is made for all of the step, since that costs little."""
    batch = source(count * draws.shares, frames, draws.generator)
    return batch.rows(draws.places(count))
