"""What a stage is asked for: checks of it, and what is meant where it is left out.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from make_a_video_pytorch.ops.checks import must_be_floating
from make_a_video_pytorch.recipes.denoising import Scheduler

GUIDED = ("cond", "context", "context_mask", "fps")  # by these, or the same on both sides
PREDICTIONS = ("epsilon", "sample", "v_prediction")
BUILT_FOR = {"cond": "cond_dim", "context": "context_dim", "context_mask": "context_dim",
             "fps": "condition_on_fps"}  # fmt: skip


def taken_by(model: object) -> tuple[str, ...]:
    """The conditions that a model is built for, as its `config` says, or all that there may be."""
    config = getattr(model, "config", None)
    if not isinstance(config, Mapping) or not {*BUILT_FOR.values()} <= {*config}:
        return tuple(BUILT_FOR)
    names = {}
    call = cast("Callable[..., object]", getattr(model, "forward", model))
    if "encoder_hidden_states" in inspect.signature(call).parameters:  # as diffusers calls it
        names = {"context": "encoder_hidden_states", "context_mask": "encoder_attention_mask"}
    built = (name for name, option in BUILT_FOR.items() if config[option] not in (None, False))
    return tuple(names.get(name, name) for name in built)


def count_of(batch: int | None, given: Mapping[str, object]) -> int:
    """How many videos are asked for; one if nothing says it.

    Raises:
        ValueError: if that is said in several ways.
    """
    sizes = {
        name: len(value) for name, value in given.items()
        if (isinstance(value, Tensor) and value.ndim) or isinstance(value, (list, tuple))
    }  # fmt: skip
    said = sizes if batch is None else {"batch": batch, **sizes}
    if len({*said.values()}) > 1:
        raise ValueError(f"`{'`, `'.join(said)}` must be of as many videos: {said}")
    return next(iter(said.values()), 1)


def place_of(
    model: object, device: torch.device | str | None, dtype: torch.dtype | None
) -> tuple[torch.device | str, torch.dtype]:
    """Where to compute and in which dtype, as the model does if it is not said."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if device is None:
        device = "cpu" if first is None else first.device
    if dtype is None:
        known = first is not None and first.is_floating_point()
        dtype = first.dtype if first is not None and known else torch.float32
    return device, dtype


def must_be_its_own(told: Mapping[str, object], conditions: Mapping[str, object]) -> None:
    """Raise a ValueError for a condition that is given and that a stage sets itself."""
    for name in conditions:
        if name in told:
            raise ValueError(f"`{name}` must be left out: the stage sets it")


def must_be_guided_by(guidance: float, conditions: Mapping[str, object]) -> None:
    """Raise a ValueError for a condition that guidance would leave on both sides."""
    for name, value in conditions.items():
        if guidance != 1 and name not in GUIDED and isinstance(value, Tensor):
            raise ValueError(
                f"`guidance` (={guidance}) must be 1 with `{name}`, by which it does not guide: "
                "let the model be `guide(model, scale, null=...)`"
            )


def must_be_learned_from(clips: Tensor, scheduler: Scheduler) -> str:
    """What a scheduler's model predicts.

    Raises:
        TypeError: if `clips` is no tensor.
        ValueError: if it is none of clips or images, or the scheduler does not say what it does.
    """
    must_be_floating(clips=clips)
    if clips.ndim not in (4, 5):
        raise ValueError(
            f"`clips` (shape {tuple(clips.shape)}) must be (b c f h w), or images (b c h w)"
        )
    kind = getattr(getattr(scheduler, "config", None), "prediction_type", None)
    if kind not in PREDICTIONS or not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"`scheduler` (a {type(scheduler).__name__}, with `prediction_type` {kind!r}) must "
            f"have `alphas_cumprod` and one of {PREDICTIONS}, to learn by"
        )
    return str(kind)
