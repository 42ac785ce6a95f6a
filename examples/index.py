"""What is known of the files of a collection, kept in a file beside them; and their frames."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from decoding import Facts, Picture, facts_of, read_frames, read_picture, size_of_picture
from errors import DataError
from folder import PICTURE_SUFFIXES, Item, warn
from torch import Tensor
from tqdm import tqdm


class Indexed(NamedTuple):
    """A file, and what is known of it."""

    item: Item
    facts: Facts


def indexed(
    items: list[Item], root: Path, name: str, strict: bool, cache: Path | None
) -> list[Indexed]:
    """Those of `items` that can be read, in their order.

    What was found out of a file is kept, in `root` or else in `cache`, as long as the file's size
    and time are the same.

    Args:
        items: the files.
        root: the folder in which they lie, or a single file, for which nothing is kept.
        name: of the file that is kept.
        strict: a file that cannot be read is an error, and not a warning.
        cache: where it is kept if `root` cannot be written to.

    Raises:
        DataError: if no file can be read.
    """
    places = [folder / name for folder in (root, cache) if folder is not None and root.is_dir()]
    kept = [read_index(place) for place in places]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        entries = pool.map(lambda item: entry_of(item, kept), items)
        entries = list(tqdm(entries, desc="index", unit="file", total=len(items), delay=2))
    index = {item.name: entry for item, entry in zip(items, entries, strict=True)}
    if index not in kept:
        write_index(places, index)
    usable = []
    for item, entry in zip(items, entries, strict=True):
        if "error" in entry:
            refuse(entry["error"], strict or len(items) == 1)
        else:
            usable.append(Indexed(item, Facts(*entry["facts"])))
    if not usable:
        raise DataError(f"nothing in {root} can be read")
    return usable


def entry_of(item: Item, kept: list[dict[str, dict]]) -> dict:
    """What the index says of a file: what one of those `kept` says, if the file is the same."""
    stamp = None
    try:
        stamp = item.stamp
        for index in kept:
            if item.name in index and index[item.name]["stamp"] == stamp:
                return index[item.name]
        return {"stamp": stamp, "facts": list(facts_about(item))}
    except DataError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
            stamp = None  # what may not be opened now is tried again
        return {"stamp": stamp, "error": str(error)}
    except OSError as error:
        return {"stamp": stamp, "error": f"{item.path} cannot be read: {error.strerror}"}


def facts_about(item: Item) -> Facts:
    """What is known of a video, of a picture, or of numbered pictures, which have no rate."""
    if item.pictures or item.path.suffix.lower() in PICTURE_SUFFIXES:
        pictures = item.pictures or (item.path,)
        return Facts(len(pictures), 0.0, *size_of_picture(pictures[0]))
    return facts_of(item.path)


def refuse(problem: str, strict: bool) -> None:
    """Say what is passed over, or end with it."""
    if strict:
        raise DataError(problem)
    warn(problem)


def read_index(place: Path) -> dict[str, dict]:
    """The index of this file, or what can be used of it."""
    try:
        index = json.loads(place.read_text(encoding="utf-8"))
        return {name: entry for name, entry in index.items() if is_entry(entry)}
    except (OSError, ValueError, AttributeError, RecursionError):  # none, or of something else
        return {}


def is_entry(entry: object) -> bool:
    """Whether this is what an index says of a file."""
    if not isinstance(entry, dict) or "stamp" not in entry:
        return False
    facts = entry.get("facts")
    if isinstance(facts, list) and len(facts) == len(Facts._fields):
        return all(isinstance(fact, int | float) for fact in facts)
    return isinstance(entry.get("error"), str)


def write_index(places: list[Path], index: dict[str, dict]) -> None:
    """Write the index to the first place that takes it, all of it or nothing."""
    for place in places:
        temporary = place.with_name(f"{place.name}.{os.getpid()}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(index), encoding="utf-8")
            temporary.replace(place)
            return
        except OSError:
            temporary.unlink(missing_ok=True)


def pictures_of(file: Indexed, indices: Sequence[int], height: int, width: int) -> list[Picture]:
    """The frames of these indices."""
    if file.item.pictures:
        return [read_picture(file.item.pictures[index], width, height) for index in indices]
    if file.facts.fps == 0:
        return [read_picture(file.item.path, width, height)]
    # in the middle of the time for which a frame is shown
    times = [(index + 0.5) / file.facts.fps for index in indices]
    return read_frames(file.item.path, times, width, height)


def as_clip(pictures: list[Picture]) -> Tensor:
    """Pictures as a clip (c f h w) in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(3, 0, 1, 2).float() / 127.5 - 1
