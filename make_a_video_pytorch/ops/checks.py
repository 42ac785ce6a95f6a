"""Checks of the torch version and of constructor arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TypeVar, cast

import torch
from beartype import BeartypeConf, beartype
from packaging.version import Version
from torch import Tensor

if Version(torch.__version__).release < (2, 6):  # only with an older torch
    raise ImportError(f"make-a-video-pytorch needs torch 2.6 or later, found {torch.__version__}")

F = TypeVar("F", bound=Callable[..., object])


def typechecked(function: F) -> F:
    """Check the annotated arguments of `function` on every call; a violation is a TypeError.

    For a constructor the check is made at the first call: those of all would be most of the time
    that an import takes.
    """
    conf = BeartypeConf(violation_type=WrongType, is_color=False)
    if function.__name__ != "__init__":
        return beartype(conf=conf)(function)
    checked: Callable[..., object] | None = None

    @wraps(function)
    def constructor(*args: object, **kwargs: object) -> object:
        nonlocal checked
        if checked is None:
            checked = beartype(conf=conf)(function)
        return checked(*args, **kwargs)

    return cast("F", constructor)


class WrongType(TypeError):
    """A TypeError that says of an argument what beartype says at more length."""

    def __init__(self, message: str) -> None:
        said = re.compile(r"parameter (\w+)=(.*?) violates type hint (.*?), as ", re.DOTALL)
        if found := said.search(message):
            name, value, hint = found.groups()
            hint = re.sub(r"<class '(.*?)'>", r"\1", hint)
            hint = re.sub(r"\[~\w+\]|~", "", hint)  # what a type is generic in
            hint = re.sub(r"\b(?:\w+\.)+", "", hint)  # the modules of the types
            value = value.strip('"')  # around what is no string
            message = f"`{name}` (={value}) must be of type {hint}"
        super().__init__(message)


def at_least(minimum: int, **arguments: int) -> None:
    """Raise a ValueError that names the first of `arguments` below `minimum`."""
    for name, value in arguments.items():
        if value < minimum:
            raise ValueError(f"`{name}` (={value}) must be at least {minimum}")


def must_be_tensor(**arguments: object) -> None:
    """Raise a TypeError that names the first of `arguments` that is given and no tensor."""
    for name, value in arguments.items():
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"`{name}` (a {type(value).__name__}) must be a tensor")


def must_be_floating(**arguments: object) -> None:
    """Raise an error that names the first of `arguments` that is given and no floating tensor."""
    must_be_tensor(**arguments)
    for name, value in arguments.items():
        if isinstance(value, Tensor) and not value.is_floating_point():
            raise ValueError(f"`{name}` ({value.dtype}) must be of a floating point dtype")


def is_one_of(shape: tuple[int, ...], *shapes: tuple[int, ...]) -> bool:
    """Whether `shape` is one of `shapes`; a compiler answers `in` wrongly for symbolic sizes."""
    return any(shape == other for other in shapes)


def must_be_taken(taken: bool, option: str, **argument: object) -> None:
    """Raise a ValueError for an `argument` that is given though its `option` was not built."""
    for name, value in argument.items():
        if value is not None and not taken:
            raise ValueError(f"`{name}` must be left out, since no `{option}` was given")


def one_per_stage(dim_mult: Sequence[int], **arguments: Sequence[int]) -> None:
    """Raise an error for an argument that has not one int or bool for each of `dim_mult`."""
    for name, values in {"dim_mult": dim_mult, **arguments}.items():
        if not all(isinstance(value, int) for value in values):  # beartype samples one entry
            raise TypeError(f"`{name}` (={tuple(values)}) must have int or bool entries")
        if len(values) != len(dim_mult):
            raise ValueError(
                f"`{name}` (={tuple(values)}) must have {len(dim_mult)} entries, one for each of "
                f"`dim_mult` (={tuple(dim_mult)})"
            )
        counts = name in ("dim_mult", "resnet_block_depths")
        if counts and min(values, default=0) < 1:
            raise ValueError(f"`{name}` (={tuple(values)}) must have entries of at least 1")
        if not counts and not set(values) <= {0, 1}:
            raise ValueError(f"`{name}` (={tuple(values)}) must have True or False as entries")


def must_be_multiple(divisor: int, meaning: str, **sizes: int) -> None:
    """Raise a ValueError that names the first of `sizes` that `divisor` does not divide."""
    for name, size in sizes.items():
        if size % divisor:
            raise ValueError(f"`{name}` (={size}) must be divisible by {divisor}, {meaning}")
