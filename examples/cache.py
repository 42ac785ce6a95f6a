"""What is computed once and kept in files, under a name that says what made it."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from pathlib import Path

from errors import DataError
from folder import folders_in
from keys import key_of
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

TEXT_SUFFIXES = (".json", ".txt", ".model")  # settings and vocabularies: their contents are theirs

# what the libraries raise for a folder or a file that holds something else, or half of it
UNREADABLE = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError,
              ImportError, SafetensorError)  # fmt: skip


def fingerprint(folder: Path) -> str:
    """What changes when a model of this folder does.

    The contents of its settings and vocabularies, and the sizes and times of its weights, at any
    depth, through links too. What begins with a dot is passed over: downloads leave notes there.

    Raises:
        DataError: if there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}")
    files = [inner / name for inner, _, names in folders_in(folder) for name in names]
    found: list[object] = []
    for path in sorted(path for path in files if path.is_file()):
        stat = path.stat()
        says = [stat.st_size, stat.st_mtime_ns]
        if path.suffix in TEXT_SUFFIXES:
            says = [hashlib.sha256(path.read_bytes()).hexdigest()]
        found.append([path.relative_to(folder).as_posix(), says])
    return key_of(found)


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a file, all of it or nothing, though another process may write the same.

    Raises:
        DataError: if it cannot be written.
    """
    # by chance: machines that share a folder may share process numbers too
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be written: {reason_of(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # of what was interrupted


def reason_of(error: Exception) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
