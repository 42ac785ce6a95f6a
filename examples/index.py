"""What is known of the files of a collection, kept in a file beside them."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from decoding import Facts, facts_of, size_of_picture
from errors import DataError
from folder import PICTURE_SUFFIXES, Item, warn
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
    known = read_index(places)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        entries = pool.map(lambda item: entry_of(item, known.get(item.name)), items)
        entries = list(tqdm(entries, desc="index", unit="file", total=len(items), delay=2))
    index = {item.name: entry for item, entry in zip(items, entries, strict=True)}
    if index != known:
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


def entry_of(item: Item, known: dict | None) -> dict:
    """What the index says of a file: what is `known`, if the file is still the same."""
    stamp = None
    try:
        stamp = item.stamp
        if known is not None and known["stamp"] == stamp:
            return known
        return {"stamp": stamp, "facts": list(facts_about(item))}
    except DataError as error:
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


def read_index(places: list[Path]) -> dict[str, dict]:
    """The first index that can be read, or an empty one."""
    for place in places:
        try:
            index = json.loads(place.read_text(encoding="utf-8"))
            return {name: entry for name, entry in index.items() if "stamp" in entry}
        except (OSError, ValueError, AttributeError, TypeError):  # none, or of something else
            continue
    return {}


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
