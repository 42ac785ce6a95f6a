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
from glob import glob
from itertools import chain, islice
from pathlib import Path

import torch
from buckets import Shape, order
from collection import Batch, Clips
from decoding import Blob, Facts, facts_of
from errors import DataError
from folder import VIDEO_SUFFIXES, Item, warn
from index import Indexed
from torch import Generator

INDEX = "index.json"
AT_ONCE = 16  # samples that are shuffled, in memory, while a shard is read


def webdataset() -> object:
    """The library, which is needed for shards alone."""
    try:
        import webdataset as library
    except ModuleNotFoundError as error:
        raise DataError("shards need webdataset: pip install webdataset") from error
    return library


def process() -> tuple[int, int]:
    """Which one of how many processes this is."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class Shards(Clips):
    """Clips of the videos in tar files, with the interface of `Clips` but for random access.

    Args:
        pattern: the files, as `shards/*.tar`.
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
        self.shape, self.longest = shape, shape.frames
        paths = [Path(name) for name in sorted(glob(pattern)) if Path(name).is_file()]
        counted = [(path, count) for path, count in zip(paths, counts_of(paths), strict=True)]
        self.shards = [(path, count) for path, count in counted if count]
        if not self.shards:
            raise DataError(f"no clip in {pattern}")

    def texts(self) -> set[str]:
        """What is written about the clips."""
        found = set()
        for path, _ in self.shards:
            for member, shard in members_of(path):
                if member.name.endswith(".txt"):
                    found.add(shard.extractfile(member).read().decode().strip())
        return found - {""}

    def following(
        self, steps: range, first: int, count: int, frames: int, seed: int
    ) -> Iterator[Batch]:
        """The batches of the `steps` from number `first` on that are this process's to read.

        The batches of the steps are dealt to the workers of all processes in turn. Each goes
        through shards of its own, and where it is to begin follows from how many clips each has:
        shards that were done are not opened again, and of the one in which a step begins nothing
        is decoded up to there. With as many processes and workers as before, a resumed training
        sees what the interrupted one would have seen.
        """
        worker = torch.utils.data.get_worker_info()
        workers = 1 if worker is None else worker.num_workers
        place = 0 if worker is None else worker.id
        rank, world = process()
        if len(self.shards) < workers * world:
            raise DataError(f"{len(self.shards)} shards are too few for {world} processes")
        turn = (first - steps.start + place) % workers  # whose batches these were from the start
        own = rank * workers + turn
        seed = seed * 1_000_003 + steps.start
        clips: Iterator[Indexed | None] | None = None
        spare: list[Indexed] = []
        for step in range(first + place, steps.stop, workers):
            if clips is None:
                done = (step - steps.start) // workers * count
                clips = self.samples(own, workers * world, seed, done)
            generator = Generator().manual_seed((seed + step * world + rank) ^ 0x5EED)
            found = [clip for clip in islice(clips, count) if clip is not None]
            found = [clip for clip in found if self.is_long_enough(clip, frames)]
            if not (others := [*found, *spare]):
                raise DataError(f"{count} videos in turn cannot be used, of the first of a worker")
            while len(found) < count:  # in the place of those that cannot be used
                found.append(others[int(torch.randint(len(others), (), generator=generator))])
            shape = self.shape._replace(frames=frames)
            progress = (step - steps.start) / len(steps)
            yield self.batch(found, [*found, *spare], shape, generator, progress)
            spare = found[-1:]

    def most_workers(self) -> int:
        """How many workers of a process can have a shard each."""
        return max(len(self.shards) // process()[1], 1)

    def is_long_enough(self, clip: Indexed, frames: int) -> bool:
        """Whether a clip of so many frames can be drawn; if not, it is said."""
        if self.holds(clip, frames):
            return True
        warn(f"{clip.item.path} has {clip.facts.frames} frames, a clip takes {frames}")
        return False

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


def read_shard(path: Path, count: int, shuffling: random.Random) -> Iterator[dict | None]:
    """The samples of a shard, shuffled a few at a time, and None for those that are missing."""
    library = webdataset()

    def ended(error: Exception) -> bool:
        warn(f"{path} cannot be read to its end: {error}")
        return False

    with path.open("rb") as file:
        opened = [{"url": str(path), "stream": file}]
        files = library.tariterators.tar_file_expander(opened, handler=ended)
        found = until_it_breaks(library.tariterators.group_by_keys(files, handler=ended), ended)
        found = library.shuffle(AT_ONCE, initial=AT_ONCE, rng=shuffling)(found)
        yield from islice(chain(found, iter(lambda: None, 0)), count)


def until_it_breaks(samples: Iterator[dict], ended: object) -> Iterator[dict]:
    """The samples of a tar file up to where it breaks off."""
    try:
        yield from samples
    except (tarfile.TarError, OSError, ValueError) as error:
        ended(error)


def video_of(path: Path, sample: dict) -> Indexed | None:
    """The video of a sample, with what is known of it; None, and a line, if it holds none."""
    key = sample["__key__"]
    suffix = next((suffix for suffix in VIDEO_SUFFIXES if suffix[1:] in sample), None)
    try:
        if suffix is None:
            raise DataError(f"{path}, {key} holds no video ({', '.join(VIDEO_SUFFIXES)})")
        known = json.loads(sample["json"]) if "json" in sample else {}
        blob = Blob(f"{path}, {known.get('name', key)}", sample[suffix[1:]])
        text = sample["txt"].decode().strip() if "txt" in sample else None
        facts = Facts(*known["facts"]) if "facts" in known else facts_of(blob)
        return Indexed(Item(key, blob, text=text or None), facts)
    except (DataError, ValueError, TypeError) as error:
        warn(str(error) if isinstance(error, DataError) else f"{path}, {key}: {error}")
        return None


def counts_of(paths: list[Path]) -> list[int]:
    """How many samples the shards have, by the index beside them, or by their headers."""
    indices: dict[Path, dict] = {}
    for folder in {path.parent for path in paths}:
        try:
            indices[folder] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            indices[folder] = {}
    return [int(indices[path.parent].get(path.name) or len(keys_of(path))) for path in paths]


def keys_of(path: Path) -> set[str]:
    """The samples of a shard."""
    return {member.name.partition(".")[0] for member, _ in members_of(path)}


def members_of(path: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """What a tar file holds, up to where it breaks off."""
    try:
        with tarfile.open(path) as shard:
            for member in shard:
                yield member, shard
    except (tarfile.TarError, OSError) as error:
        warn(f"{path} cannot be read to its end: {error}")
