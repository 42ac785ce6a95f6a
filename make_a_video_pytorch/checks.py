"""Checks of the torch version and of constructor arguments (floor 0)."""

from __future__ import annotations

from typing import TypeVar

import torch
from beartype import BeartypeConf, beartype
from packaging.version import Version

if Version(torch.__version__).release < (2, 6):
    raise ImportError(f"make-a-video-pytorch needs torch 2.6 or later, found {torch.__version__}")

T = TypeVar("T")


def typechecked(function: T) -> T:
    """Check the annotated arguments of `function` on every call; a violation is a TypeError."""
    return beartype(conf=BeartypeConf(violation_type=TypeError))(function)


def at_least(minimum: int, **arguments: int) -> None:
    """Raise a ValueError that names the first of `arguments` below `minimum`."""
    for name, value in arguments.items():
        if value < minimum:
            raise ValueError(f"`{name}` (={value}) must be at least {minimum}")
