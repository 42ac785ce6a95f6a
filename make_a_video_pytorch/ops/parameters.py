"""Which parameters act across frames, and how layers are zeroed."""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.nn import Parameter

M = TypeVar("M", bound=nn.Module)


def zero_init(layer: M) -> M:
    """Zero every parameter of `layer` and return it."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def acts_across_frames(module: nn.Module, *names: str) -> None:
    """Mark the children of `module` of these `names`, with all they hold, as acting across frames.

    So is what is wrapped around such a child, or put in its place, later.
    """
    vars(module)["_across_frames"] = names
    for part in temporal_modules(module):
        for inner in part.modules():
            vars(inner)["is_temporal"] = True


def temporal_modules(module: nn.Module) -> list[nn.Module]:
    """What acts across frames in `module`; it may hold more that does so too."""
    found = []
    for part in module.modules():
        if vars(part).get("is_temporal", False):
            found.append(part)
        children = (getattr(part, name) for name in vars(part).get("_across_frames", ()))
        found.extend(child for child in children if child is not None)
    return found


def temporal_parameters(module: nn.Module) -> list[Parameter]:
    """The parameters of `module` that act across frames, each once.

    They are those of temporal convolutions, temporal attention with its position bias, token
    shifts, temporal resampling and the condition on frames per second. An image trains none of
    them. Together with `spatial_parameters` the list is complete, and the two are disjoint.

    Args:
        module: one of this library's modules, or any module built from them.

    Example:
        >>> sum(parameter.numel() for parameter in temporal_parameters(PseudoConv3d(4)))
        52
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"`module` (a {type(module).__name__}) must be an nn.Module")
    found: dict[Parameter, None] = {}
    for part in temporal_modules(module):
        found.update(dict.fromkeys(part.parameters()))
    return list(found)


def spatial_parameters(module: nn.Module) -> list[Parameter]:
    """The parameters of `module` that act within a frame: all but its `temporal_parameters`.

    Args:
        module: one of this library's modules, or any module built from them.

    Example:
        >>> for parameter in spatial_parameters(PseudoConv3d(4)):
        ...     parameter.requires_grad = False  # train nothing but motion
    """
    across_frames = set(temporal_parameters(module))
    return [parameter for parameter in module.parameters() if parameter not in across_frames]
