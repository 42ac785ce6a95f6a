"""Clips in tar files, as webdataset has them: for a cluster whose file system dislikes many files.

`make_shards.py` writes them. Each process reads shards of its own, in an order that is shuffled in
each round, and follows from the seed.
"""

from __future__ import annotations

import json
import os
import random
import tarfile
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path

import torch
from batch import Batch
from buckets import Shape, order
from collection import Clips
from decoding import Blob, Facts, facts_of
from errors import DataError
from folder import VIDEO_SUFFIXES, Item, warn
from index import Indexed
from tars import counts_of, members_of, paths_of, read_shard, webdataset
from torch import Generator, Tensor


def process() -> tuple[int, int]:
    """Which one of how many processes this is."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class Shards(Clips):
    """Clips of the videos in tar files, with the interface of `Clips` but for random access.

    Args:
        pattern: the files, as `shards/*.tar`, or `shards/clips-{000000..000063}.tar`.
        shape: of a clip.
        fps: the lowest and the highest rate to draw at, or None for that of each video.

    Raises:
        DataError: if there is no such file, or webdataset is missing.
    """

    def __init__(
        self, pattern: str, shape: Shape, *, fps: tuple[float, float] | None = None
    ) -> None:
        webdataset()
        self.held_out, self.fps = False, fps
        self.pattern, self.shape, self.longest = pattern, shape, shape.frames
        self.process = process()  # here, as a worker may not know
        paths = paths_of(pattern)
        counted = zip(paths, counts_of(paths), strict=True)
        self.shards = [(path, count) for path, count in counted if count]
        if not self.shards:
            raise DataError(f"no clip in {pattern}")

    def texts(self) -> set[str]:
        """What is written about the clips."""
        found = set()
        for path, _ in self.shards:
            for member, shard in members_of(path):
                if member.isreg() and member.name.lower().endswith(".txt"):
                    try:
                        found.add(shard.extractfile(member).read().decode().strip())
                    except (tarfile.TarError, ValueError):  # said when its clip is read
                        continue
        return found - {""}

    def following(
        self, steps: range, first: int, count: int, frames: int, seed: int
    ) -> Iterator[Batch]:
        """The batches of the `steps` from number `first` on that are this process's to read.

        The batches of the steps are dealt to the workers of all processes in turn. Each goes
        through shards of its own, and where it is to begin follows from how many clips each has:
        shards that were done are not opened again, and of the one in which a step begins nothing
        is decoded up to there. With as many processes and workers as before, and the same
        shards, a resumed training gets the very batches that the interrupted one would have got,
        also where clips or shards are broken; with others it gets clips in another order.
        """
        worker = torch.utils.data.get_worker_info()
        workers = 1 if worker is None else worker.num_workers
        place = 0 if worker is None else worker.id
        rank, world = self.process
        if len(self.shards) < workers * world:
            raise DataError(f"{len(self.shards)} shards are too few for {world} processes")
        turn = (first - steps.start + place) % workers  # whose batches these were from the start
        seed = seed * 1_000_003 + steps.start
        reading = partial(self.samples, rank * workers + turn, workers * world, seed)
        clips: Iterator[Indexed | None] | None = None
        shape = self.shape._replace(frames=frames)
        for step in range(first + place, steps.stop, workers):
            done = (step - steps.start) // workers * count
            if clips is None:
                clips = reading(done)
            generator = Generator().manual_seed((seed + step * world + rank) ^ 0x5EED)
            progress = (step - steps.start) / len(steps)
            # read only if nothing of this step can be used, and anew, so as to take nothing away
            # from the steps that follow
            further = islice(reading(done + count), sum(count for _, count in self.shards))
            yield self.of_clips(list(islice(clips, count)), further, shape, generator, progress)

    def of_clips(
        self,
        clips: list[Indexed | None],
        further: Iterator[Indexed | None],
        shape: Shape,
        generator: Generator,
        progress: float,
    ) -> Batch:
        """A batch of the `clips`; another of them is in the place of one that cannot be used.

        If none can, it is the first of the `further` ones that can. What is read before and after
        changes nothing, so that a resumed training gets the same.
        """
        files, drawn = [], []
        for number, clip in enumerate(chain(clips, further)):
            if clip is not None and (found := self.tried(clip, shape, generator, progress)):
                files.append(clip)
                drawn.append(found)
            if number >= len(clips) - 1 and files:
                break
        if not files:
            raise DataError(f"no clip in {self.pattern} can be used")
        while len(drawn) < len(clips):
            other = int(torch.randint(len(files), (), generator=generator))
            found = self.tried(files[other], shape, generator, progress)
            files.append(files[other])
            drawn.append(found or drawn[other])
        texts = [file.item.text for file in files]
        rates = torch.tensor([fps for _, fps in drawn])
        return Batch(torch.stack([video for video, _ in drawn]), texts=texts, fps=rates)

    def tried(
        self, clip: Indexed, shape: Shape, generator: Generator, progress: float
    ) -> tuple[Tensor, float] | None:
        """What is drawn of a clip; None, and a line, if it cannot be used."""
        try:
            if not self.holds(clip, shape.frames):
                path, frames = clip.item.path, clip.facts.frames
                raise DataError(f"{path} has {frames} frames, a clip takes {shape.frames}")
            return self.draw(clip, shape, generator, progress)
        except DataError as error:
            warn(str(error))
            return None

    def most_workers(self) -> int:
        """How many workers of a process can have a shard each."""
        return max(len(self.shards) // self.process[1], 1)

    def samples(self, own: int, among: int, seed: int, done: int) -> Iterator[Indexed | None]:
        """The videos of every `among`-th shard, round after round, after so many that are done."""
        turn = 0
        while True:
            shuffled = order(len(self.shards), seed + turn).tolist()
            for number in shuffled[own::among]:
                path, count = self.shards[number]
                if done >= count:
                    done -= count
                    continue
                shuffling = random.Random(f"{seed} {turn} {number}")
                for sample in islice(read_shard(path, count, shuffling), done, None):
                    yield None if sample is None else video_of(path, sample)
                done = 0
            turn += 1


def video_of(path: Path, sample: dict) -> Indexed | None:
    """The video of a sample, with what is known of it; None, and a line, if it holds none."""
    key = sample["__key__"]
    suffix = next((suffix for suffix in VIDEO_SUFFIXES if suffix[1:] in sample), None)
    try:
        if suffix is None:
            raise DataError(f"{path}, {key} holds no video ({', '.join(VIDEO_SUFFIXES)})")
        known = json.loads(sample["json"]) if "json" in sample else {}
        known = known if isinstance(known, dict) else {}  # of others
        blob = Blob(f"{path}, {known.get('name', key)}", sample[suffix[1:]])
        text = sample["txt"].decode().strip() if "txt" in sample else None
        facts = Facts(*known["facts"]) if "facts" in known else facts_of(blob)
        return Indexed(Item(key, blob, text=text or None), facts)
    except (DataError, ValueError, TypeError) as error:
        warn(str(error) if isinstance(error, DataError) else f"{path}, {key}: {error}")
        return None
