"""The tar files of shards: which there are, how many samples each has, and its samples in turn."""

from __future__ import annotations

import json
import random
import re
import tarfile
from collections.abc import Iterator
from glob import glob
from itertools import groupby, islice, repeat
from pathlib import Path

from errors import DataError
from folder import warn

INDEX = "index.json"
AT_ONCE = 16  # samples that are shuffled, in memory, while a shard is read


def webdataset() -> object:
    """The library, which is needed for shards alone."""
    try:
        import webdataset as library
    except ModuleNotFoundError as error:
        raise DataError("shards need webdataset: pip install webdataset") from error
    return library


def read_shard(path: Path, count: int, shuffling: random.Random) -> Iterator[dict | None]:
    """The samples of a shard, shuffled a few at a time, and None for those that are missing."""
    problems: list[str] = []
    samples = samples_in(path, problems)
    given = 0
    for sample in islice(
        webdataset().shuffle(AT_ONCE, initial=AT_ONCE, rng=shuffling)(samples), count
    ):
        given += 1
        yield sample
    if given < count:  # a tar file that ends between two members is whole to tarfile
        warn(f"{path} cannot be read to its end: {[*problems, f'{given} clips of {count}'][0]}")
    yield from repeat(None, count - given)


def samples_in(path: Path, problems: list[str]) -> Iterator[dict]:
    """The samples of a tar file up to where it breaks off; why it did is put into `problems`."""
    iterators = webdataset().tariterators

    def ended(error: Exception) -> bool:
        problems.append(str(error.args[0] if error.args else error).partition(" @ ")[0])
        return False

    try:
        with path.open("rb") as file:
            opened = [{"url": str(path), "stream": file}]
            files = iterators.tar_file_expander(opened, handler=ended)
            yield from iterators.group_by_keys(files, handler=ended)
    except OSError as error:
        problems.append(error.strerror or "damaged")
    except (tarfile.TarError, ValueError) as error:
        ended(error)


def paths_of(pattern: str) -> list[Path]:
    """The files of a pattern with `*`, or with braces, of which every name must be there."""
    if not (names := sorted(glob(pattern))) and "{" in pattern:
        from braceexpand import UnbalancedBracesError, braceexpand  # comes with webdataset

        try:
            parts = list(braceexpand(pattern))
        except UnbalancedBracesError as error:
            raise DataError(f"{pattern} has braces that do not match") from error
        for part in parts:
            if not (found := sorted(glob(part))):
                raise DataError(f"no such shard: {part}")
            names += found
    return [Path(name) for name in names if Path(name).is_file()]


def counts_of(paths: list[Path]) -> list[int]:
    """How many samples the shards have, by the index beside them, or by their headers."""
    indices: dict[Path, dict] = {}
    for folder in {path.parent for path in paths}:
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            index = None
        indices[folder] = index if isinstance(index, dict) else {}
    found = [indices[path.parent].get(path.name) for path in paths]
    return [
        count if isinstance(count, int) and count > 0 else count_in(path)
        for path, count in zip(paths, found, strict=True)
    ]


def count_in(path: Path) -> int:
    """How many samples webdataset finds in a shard: files in a row of one key are one."""
    key_of = webdataset().tariterators.base_plus_ext
    files = (member.name for member, _ in members_of(path) if member.isreg())
    keys = (key_of(name)[0] for name in files if not re.match(r"__[^/]*__($|/)", name))
    return sum(1 for _ in groupby(key for key in keys if key is not None))


def members_of(path: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """What a tar file holds, up to where it breaks off."""
    try:
        with tarfile.open(path) as shard:
            for member in shard:
                yield member, shard
    except (tarfile.TarError, OSError) as error:
        warn(f"{path} cannot be read to its end: {error}")
