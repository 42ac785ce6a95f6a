"""What is computed once and kept in files, under a name that says what made it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from errors import DataError
from safetensors.torch import save_file
from torch import Tensor

TEXT_SUFFIXES = (".json", ".txt", ".model")  # settings and vocabularies: their contents are theirs


def fingerprint(folder: Path) -> str:
    """What changes when a model of this folder does.

    The contents of its settings and vocabularies, and the sizes and times of its weights.

    Raises:
        DataError: if there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}")
    found: list[object] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        stat = path.stat()
        says = [stat.st_size, stat.st_mtime_ns]
        if path.suffix in TEXT_SUFFIXES:
            says = [hashlib.sha256(path.read_bytes()).hexdigest()]
        found.append([path.relative_to(folder).as_posix(), says])
    return key_of(found)


def key_of(what: object) -> str:
    """A name for `what`, which is fit for JSON."""
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:40]


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a file, all of it or nothing, though another process may write the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
    temporary.replace(path)
