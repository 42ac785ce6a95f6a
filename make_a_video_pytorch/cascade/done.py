"""What a run of a cascade has done, in a folder, to go on from.

Files are written whole or not at all, so that a run may be stopped anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor


class Done:
    """The windows that are done, each a file `STAGE/NUMBER.pt` in a folder, and what was asked.

    Args:
        folder: where; it is made if there is none.
        asked: what the result depends on, fit for JSON.

    Raises:
        ValueError: if the folder is of a run that was asked for something else.
    """

    def __init__(self, folder: Path, asked: Mapping[str, object]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "run.json"
        said = json.loads(json.dumps(asked))
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            if found := difference(before, said):
                name, was, now = found
                raise ValueError(
                    f"`checkpoint` (={str(folder)!r}) is of another run: `{name}` was {was} and "
                    f"is {now}"
                )
        else:
            write(path, lambda part: part.write_text(json.dumps(said, indent=1), encoding="utf-8"))

    def tensors(self, name: str) -> dict[str, Tensor] | None:
        """Those of a file, if there is one."""
        path = self.folder / f"{name}.pt"
        if not path.exists():
            return None
        found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return found

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write such a file."""
        path = self.folder / f"{name}.pt"
        path.parent.mkdir(exist_ok=True)
        # what is a view of a whole video would be written whole
        own = {key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}
        write(path, lambda part: torch.save(own, part))


def difference(
    before: Mapping[str, object], now: Mapping[str, object]
) -> tuple[str, object, object] | None:
    """The name of the first entry that is another one, and what it was and is."""
    for name in sorted({*before, *now}):
        was, has = before.get(name), now.get(name)
        if isinstance(was, Mapping) and isinstance(has, Mapping):
            if found := difference(was, has):
                return f"{name}.{found[0]}", *found[1:]
        elif was != has:
            return name, was, has
    return None


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """Write a file by `fill`, which is given another path, and only then give it its name."""
    part = path.with_name(f"{path.name}.part")
    fill(part)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def digest(value: object) -> object:
    """What stands for a condition: a number, or of a tensor a short text that no other has."""
    if not isinstance(value, Tensor):
        return value
    plain = value.detach().cpu().contiguous()
    said = hashlib.sha256(plain.flatten().view(torch.uint8).numpy().tobytes())
    said.update(f"{tuple(plain.shape)} {plain.dtype}".encode())
    return said.hexdigest()[:16]
