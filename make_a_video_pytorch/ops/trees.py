"""Arguments and results that hold tensors in tuples, lists, dicts and dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def map_leaves(
    function: Callable[[object, str], object],
    tree: object,
    name: str = "",
    leaves: type | tuple[type, ...] = (),
) -> object:
    """`tree` with `function(leaf, name)` for each leaf, `name` being what the tree is called.

    Its branches are tuples, lists, dicts and dataclasses, or of subclasses of these but for
    `leaves`, and come back as what they were: the same object, where no leaf of it has changed.
    """
    if isinstance(tree, leaves):
        return function(tree, name)
    if isinstance(tree, (Tensor, int, float)):  # a compiler cannot look into a symbolic number
        return function(tree, name)
    old: dict[object, object]
    if is_dataclass(tree):
        old = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
    elif isinstance(tree, dict):
        old = dict(tree)
    elif isinstance(tree, (tuple, list)):
        old = dict(enumerate(tree))
    else:
        return function(tree, name)
    new = {
        key: map_leaves(function, value, f"{name}[{key!r}]", leaves) for key, value in old.items()
    }
    # torch 2.6 cannot compile `is` between lists
    if not torch.compiler.is_compiling() and all(new[key] is old[key] for key in old):
        return tree
    return rebuilt(tree, new)


def is_dataclass(tree: object) -> TypeGuard[DataclassInstance]:
    """As that of `dataclasses`, which torch 2.6 cannot compile, but False for a class."""
    return hasattr(tree, "__dataclass_fields__") and not isinstance(tree, type)


def rebuilt(tree: object, items: dict[object, object]) -> object:
    """A branch like `tree`, that holds `items`."""
    if is_dataclass(tree):
        given = [field.name for field in dataclasses.fields(tree) if field.init]
        return dataclasses.replace(tree, **{name: items[name] for name in given})
    if type(tree) is dict:
        return items
    if isinstance(tree, dict):
        tree = copy.copy(tree)
        tree.update(items)
        return tree
    kind: Callable[..., object] = type(tree)
    return kind(*items.values()) if hasattr(tree, "_fields") else kind(items.values())
