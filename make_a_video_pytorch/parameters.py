"""Which parameters act across frames, and how layers are zeroed (floor 0)."""

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


def acts_across_frames(module: M) -> M:
    """Mark `module` and all it holds as acting across frames, and return it."""
    for part in module.modules():
        part.is_temporal = True
    return module


def temporal_parameters(module: nn.Module) -> list[Parameter]:
    """The parameters of `module` that act across frames, each once.

    They are those of temporal convolutions, temporal attention with its position bias, token
    shifts, temporal resampling and the condition on frames per second. An image trains none of
    them. Together with `spatial_parameters` the list is complete, and the two are disjoint.

    Args:
        module: one of this library's modules, or any module built from them.
    """
    found: dict[Parameter, None] = {}
    for part in module.modules():
        if getattr(part, "is_temporal", False):
            found.update(dict.fromkeys(part.parameters()))
    return list(found)


def spatial_parameters(module: nn.Module) -> list[Parameter]:
    """The parameters of `module` that act within a frame: all but its `temporal_parameters`."""
    across_frames = set(temporal_parameters(module))
    return [parameter for parameter in module.parameters() if parameter not in across_frames]
