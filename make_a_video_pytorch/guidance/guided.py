"""A model that is led by its conditions, to sample with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, TypeGuard, TypeVar, cast

import torch
from torch import Tensor

from make_a_video_pytorch.guidance.nulls import NullConditions, Pairs, paired
from make_a_video_pytorch.guidance.scales import Scale, as_scale, beside, is_one, within
from make_a_video_pytorch.ops.checks import typechecked
from make_a_video_pytorch.ops.trees import map_leaves

P = ParamSpec("P")
R = TypeVar("R")

PICTURES = "cond_images"
OURS = ("cond", "context", "context_mask")


@typechecked
def guide(
    unet: Callable[P, R],
    scale: Scale,
    *,
    image_scale: Scale | None = None,
    null: NullConditions | Mapping[str, Tensor] | None = None,
    negative: Mapping[str, Tensor] | None = None,
    rescale: float | int = 0,
    interval: Sequence[float | int] | None = None,
) -> Callable[P, R]:
    """A model that is called as `unet` and gives null + scale * (conditioned - null).

    Equation 6 of Ho and Salimans 2022 with `scale` = 1 + w: 1 is no guidance, 0 no condition.
    Guided by are `cond`, `context`, and whatever `null` or `negative` has by its name; every
    other argument serves all predictions, which are made in one batch: what in it is a tensor
    (b ...), in tuples, lists, dicts and dataclasses too, is repeated.

    With an `image_scale`, `cond_images` are guided by for themselves (Brooks et al. 2023,
    section 3.2): null + image_scale * (pictured - null) + scale * (conditioned - pictured), in a
    batch of three times the size.

    Args:
        unet: a SpaceTimeUnet, or anything that takes and gives tensors (b ...), as an inflated
            model of another library.
        scale: how strongly to follow the conditions: one number, or one of each sample (b) or
            frame (f); where b is f, as (b 1) or (1 f); or of each frame of each sample (b f).
        image_scale: how strongly to follow `cond_images`, in the same way.
        null: what the model was trained with in the place of conditions, as `drop_conditions`
            was given it.
        negative: what to lead away from, in the place of that, by the name of the condition:
            tensors (b ...), (1 ...) or (...), of a `context` as many tokens as it likes, with a
            `context_mask` of their own.
        rescale: how far, from 0 to 1, each sample's standard deviation is brought back to that of
            the conditioned prediction (Lin et al. 2023, section 3.4).
        interval: the lowest and the highest timestep at which to guide (Kynkäänniemi et al.
            2024). At others there is no guidance, and no second prediction is computed.

    Returns:
        The function to call in its place, its first argument by place, conditions by name. It
        raises a ValueError if it is given none of them, or if a shape does not fit.

    Raises:
        TypeError: if an argument is of a wrong type.
        ValueError: if `rescale` is not from 0 to 1, or the `interval` ends before it begins.

    Example:
        >>> def unet(x, timestep, *, cond, context=None, context_mask=None):
        ...     return x + cond[:, :, None, None]
        >>> guided = guide(unet, 3.0)
        >>> guided(torch.zeros(1, 2, 4, 4), 9, cond=torch.ones(1, 2)).unique()
        tensor([3.])
        >>> guided = guide(unet, 3.0, negative={"cond": torch.full((2,), 0.5)})
        >>> guided(torch.zeros(1, 2, 4, 4), 9, cond=torch.ones(1, 2)).unique()
        tensor([2.])
    """
    if not 0 <= rescale <= 1:
        raise ValueError(f"`rescale` (={rescale}) must be between 0 and 1")
    if interval is not None and (len(interval) != 2 or not interval[0] <= interval[1]):
        raise ValueError(f"`interval` (={interval}) must be the lowest timestep and the highest")
    predict = cast("Callable[..., R]", unet)
    learned_names = OURS if isinstance(null, NullConditions) else (null or ())
    names = {*OURS, *learned_names, *(negative or ())}
    if image_scale is not None:
        names.add(PICTURES)

    def guided(x: Tensor, /, *args: object, **arguments: object) -> R:
        given = {name: arguments[name] for name in arguments if name in names}
        pairs = paired(given, null, negative, len(x))
        must_lead(pairs, names, image_scale)
        scales = [as_scale("scale", scale, x)]
        if image_scale is not None:
            scales.append(as_scale("image_scale", image_scale, x))
        needed = not (is_one(scale) and is_one(image_scale))
        if interval is not None:
            inside = within(interval, args[0] if args else arguments.get("timestep"), x)
            scales = [torch.where(inside, number, 1) for number in scales]
            # a compiler cannot depend on values
            needed = needed and (torch.compiler.is_compiling() or bool(inside.any()))
        if not needed:
            return predict(x, *args, **arguments)

        count = len(scales) + 1

        def repeated(leaf: object, name: str) -> object:
            return torch.cat([leaf] * count) if is_batch(leaf, len(x)) else leaf

        def mixed(leaf: object, name: str) -> object:
            if not is_batch(leaf, len(x) * count):
                return leaf
            return mix(leaf.chunk(count), scales, rescale)

        out = predict(
            *(map_leaves(repeated, value) for value in (x, *args)),
            **{name: map_leaves(repeated, arguments[name]) for name in arguments.keys() - names},
            **{name: stacked(name, pair, count) for name, pair in pairs.items()},
        )
        return cast("R", map_leaves(mixed, out))

    return cast("Callable[P, R]", guided)


def is_batch(leaf: object, size: int) -> TypeGuard[Tensor]:
    """Whether `leaf` is a tensor (b ...), b being `size`."""
    return isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == size


def must_lead(pairs: Pairs, names: set[str], image_scale: Scale | None) -> None:
    """Raise a ValueError if there is nothing to guide by."""
    if image_scale is not None and PICTURES not in pairs:
        raise ValueError(f"`{PICTURES}` must be given by name, for an `image_scale`")
    if not pairs.keys() - ({PICTURES} if image_scale is not None else set()):
        led = sorted(names - {"context_mask"} - ({PICTURES} if image_scale is not None else set()))
        raise ValueError(f"one of `{'`, `'.join(led)}` must be given by name, to guide by")


def stacked(name: str, pair: tuple[Tensor, Tensor], count: int) -> Tensor:
    """A condition for all predictions: with all, with the pictures only, with none."""
    value, null = pair
    if count == 2:
        return torch.cat((value, null))
    return torch.cat((value, value, null) if name == PICTURES else (value, null, null))


def mix(predictions: tuple[Tensor, ...], scales: list[Tensor], rescale: float) -> Tensor:
    """The guided prediction, of those with all conditions, with pictures only and with none."""
    conditioned, *_ = predictions
    dtype = torch.promote_types(conditioned.dtype, torch.float32)
    conditioned, *others = (prediction.to(dtype) for prediction in predictions)
    scale, *image_scale = (beside(number, conditioned).to(dtype) for number in scales)
    out = torch.lerp(others[0], conditioned, scale)
    if image_scale:
        out = out + (image_scale[0] - 1) * (others[0] - others[1])
    if rescale > 0:
        wanted, had = (t.flatten(1).std(1, correction=0) for t in (conditioned, out))
        ratio = torch.where(had > 0, wanted / had, 1)
        ratio = torch.lerp(torch.ones_like(ratio), ratio, rescale)
        out = out * ratio.view(-1, *[1] * (out.ndim - 1))
    return out.to(predictions[0].dtype)
