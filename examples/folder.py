"""What a folder of videos or pictures holds, and what is written about it.

Videos are found at any depth, and so are clips that lie as numbered pictures: a folder that holds
pictures only, named by one prefix and successive numbers. Texts lie beside them, `clip.txt` beside
`clip.mp4`, or in a `metadata.jsonl` or `metadata.csv` with `file_name` and `text`. What begins with
a dot is passed over.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import TextIO

from decoding import Blob
from errors import DataError
from keys import key_of

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".mpg", ".mpeg", ".ts",
                  ".mts", ".m2ts", ".ogv", ".flv", ".wmv", ".3gp", ".3g2", ".asf", ".divx", ".dv",
                  ".f4v", ".h264", ".hevc", ".m2v", ".mxf", ".vob", ".y4m")  # fmt: skip
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".jfif",
                    ".jp2", ".pgm", ".ppm", ".tga")  # fmt: skip
METADATA = ("metadata.jsonl", "metadata.csv")


@dataclass(frozen=True)
class Item:
    """A video, a picture, or a folder of numbered pictures."""

    name: str  # from the folder that was searched on
    path: Path | Blob
    pictures: tuple[Path, ...] = ()  # in their order, if it is a folder of them
    text: str | None = None

    @property
    def stamp(self) -> list[object]:
        """What changes when the files do."""
        stats = [path.stat() for path in self.pictures or (self.path,)]
        if not all(S_ISREG(s.st_mode) for s in stats):
            raise DataError(f"{self.path} is no file")  # but a pipe, which would be waited for
        # of each, for one may be replaced by one that is older
        return [len(stats), key_of([[s.st_size, s.st_mtime_ns] for s in stats])]


def warn(message: str) -> None:
    """Say what is passed over."""
    print(f"skipped: {message}", file=sys.stderr)


def videos_in(path: Path) -> list[Item]:
    """The videos of a folder and the clips of numbered pictures, or the one video `path` is."""
    return items_in(path, VIDEO_SUFFIXES, "video", numbered=True)


def pictures_in(path: Path) -> list[Item]:
    """The pictures of a folder, or the one that `path` is."""
    return items_in(path, PICTURE_SUFFIXES, "picture", numbered=False)


def items_in(path: Path, suffixes: tuple[str, ...], kind: str, numbered: bool) -> list[Item]:
    """The files of these suffixes, sorted by name, and their texts.

    Raises:
        DataError: if there is no such path, no such file in it, or a text cannot be read.
    """
    if not os.path.exists(path):  # which gives False where `Path.exists` raises
        raise DataError(f"no such file or folder: {path}")
    if os.path.isfile(path):
        if path.suffix.lower() not in suffixes:
            raise DataError(f"{path} is no {kind} ({', '.join(suffixes)})")
        return [Item(path.name, path, text=text_beside(path))]
    items, texts = [], {}
    for folder, below, names in folders_in(path):
        texts.update(texts_in(folder))
        if numbered and not below and (pictures := numbered_pictures(folder, names)):
            items.append(Item(name_of(folder, path), folder, pictures))
        items += [
            Item(name_of(folder / name, path), folder / name)
            for name in names
            if (folder / name).suffix.lower() in suffixes
        ]
    if not items:
        raise DataError(f"no {kind} in {path} ({', '.join(suffixes)})")
    items.sort(key=lambda item: item.name)
    return [
        Item(item.name, item.path, item.pictures, texts.get(item.path) or text_beside(item.path))
        for item in items
    ]


def folders_in(root: Path) -> list[tuple[Path, list[str], list[str]]]:
    """Every folder from `root` on, through links too, with the names of its folders and files.

    A folder is looked at once, so that links in a circle have an end.
    """
    seen, found = set(), []
    for folder, below, names in os.walk(
        root, followlinks=True, onerror=lambda e: warn(f"{e.filename}: {e.strerror}")
    ):
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in seen:
            below.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        found.append((Path(folder), below, sorted(n for n in names if not n.startswith("."))))
    return found


def numbered_pictures(folder: Path, names: list[str]) -> tuple[Path, ...]:
    """The pictures of `folder` in the order of their numbers, if it holds nothing else."""
    parts = [re.fullmatch(r"(.*?)(\d+)(\.\w+)", name) for name in names]
    if len(parts) < 2 or not all(parts):
        return ()
    if len({(part[1], part[3].lower()) for part in parts}) > 1:
        return ()
    by_number = {int(part[2]): folder / part[0] for part in parts}
    first = min(by_number)
    successive = set(by_number) == set(range(first, first + len(parts)))
    if parts[0][3].lower() not in PICTURE_SUFFIXES or not successive:
        return ()
    return tuple(by_number[number] for number in sorted(by_number))


def name_of(path: Path, root: Path) -> str:
    """What an item is called: its path from `root` on."""
    return path.relative_to(root).as_posix() if path != root else path.resolve().name


def text_beside(path: Path) -> str | None:
    """What is written in the file of the same name that ends in `.txt`."""
    if os.path.isfile(path):
        file = path.with_suffix(".txt")
    else:
        path = path if path.name not in ("", "..") else path.resolve()
        file = path.parent / f"{path.name}.txt"
    if not os.path.isfile(file):
        return None
    try:
        return file.read_text(encoding="utf-8-sig").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a text: {error}") from error


def texts_in(folder: Path) -> dict[Path, str]:
    """The texts that a `metadata.jsonl` or `metadata.csv` in `folder` gives, by file.

    Raises:
        DataError: with the line, if one does not parse.
    """
    texts = {}
    for file in (folder / name for name in METADATA):
        if not os.path.isfile(file):
            continue
        try:
            content = file.read_bytes()
            lines = io.StringIO(content.decode("utf-8-sig"), newline="")
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            number = content.count(b"\n", 0, error.start) + 1
            raise DataError(f"{file}, line {number} is no utf-8: {error.reason}") from error
        for number, row in rows_of(lines, file):
            texts.update(text_of(folder, row, f"{file}, line {number}"))
    return texts


def rows_of(lines: TextIO, file: Path) -> Iterator[tuple[int, object]]:
    """What the lines of a metadata file hold, each with its number."""
    if file.suffix == ".csv":
        table = csv.DictReader(lines, strict=True, skipinitialspace=True)
        try:
            for row in table:
                yield table.line_num, row
        except csv.Error as error:
            raise DataError(f"{file}, line {table.line_num + 1} is no CSV: {error}") from error
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = getattr(error, "msg", None) or error
            raise DataError(f"{file}, line {number} is no JSON: {reason}") from error


def text_of(folder: Path, row: object, where: str) -> dict[Path, str]:
    """The text of one line, by its file."""
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise DataError(f"{where} has no `file_name`")
    text = row.get("text")
    if text is not None and not isinstance(text, str):
        raise DataError(f"{where} has a `text` that is none: {text!r}")
    return {folder / row["file_name"]: text.strip()} if text and text.strip() else {}
