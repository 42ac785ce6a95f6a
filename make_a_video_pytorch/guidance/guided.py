"""A model that is led by its conditions, to sample with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from make_a_video_pytorch.guidance.nulls import NullConditions, Pairs, paired
from make_a_video_pytorch.guidance.scales import Scale, as_numbers, as_scale, beside, within
from make_a_video_pytorch.ops.checks import must_be_tensor, typechecked
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
            the conditioned prediction (Lin et al. 2023, section 3.4), over what is guided of it.
        interval: the lowest and the highest timestep at which to guide (Kynkäänniemi et al.
            2024). At others there is no guidance, and where none of the batch is within it, no
            second prediction is computed (but in a graph, which has both).

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
    strengths = {"scale": as_numbers("scale", scale)}
    if image_scale is not None:
        strengths["image_scale"] = as_numbers("image_scale", image_scale)
    of_null = null if isinstance(null, Mapping) else ()
    names = {*OURS, *of_null, *(negative or ()), *([PICTURES] if image_scale is not None else ())}
    count = len(strengths) + 1

    def guided(x: Tensor, /, *args: object, **arguments: object) -> R:
        must_be_tensor(x=x)
        given = {name: arguments[name] for name in arguments if name in names}
        pairs = paired(given, null, negative, len(x))
        must_lead(pairs, names, image_scale is not None)
        scales = [as_scale(name, strength, x) for name, strength in strengths.items()]
        # a number that is 1 is known without a look at a tensor
        needed = any(isinstance(s, Tensor) or s != 1 for s in strengths.values())
        if interval is not None:
            inside = within(interval, args[0] if args else arguments.get("timestep"), x)
            scales = [torch.where(inside, number, 1) for number in scales]
            # a compiler cannot depend on values
            needed = needed and (torch.compiler.is_compiling() or bool(inside.any()))
        if not needed:
            return predict(x, *args, **arguments)

        others = {name: value for name, value in arguments.items() if name not in pairs}
        out = predict(
            *(repeated(value, len(x), count, f"args[{n}]") for n, value in enumerate((x, *args))),
            **{name: repeated(value, len(x), count, name) for name, value in others.items()},
            **{name: stacked(name, pair, count) for name, pair in pairs.items()},
        )
        real = arguments.get("frame_mask")
        return mixed(out, len(x), scales, rescale, real if isinstance(real, Tensor) else None)

    return cast("Callable[P, R]", guided)


def must_lead(pairs: Pairs, names: set[str], by_pictures: bool) -> None:
    """Raise a ValueError if there is nothing to guide by, beside pictures that lead themselves."""
    beside = {PICTURES} if by_pictures else set()
    if beside - pairs.keys():
        raise ValueError(f"`{PICTURES}` must be given by name, for an `image_scale`")
    if not pairs.keys() - beside:
        led = sorted(names - {"context_mask"} - beside)
        raise ValueError(f"one of `{'`, `'.join(led)}` must be given by name, to guide by")


def repeated(value: object, batch: int, count: int, name: str) -> object:
    """An argument for all predictions: the tensors (b ...) in it so many times.

    Raises:
        ValueError: if one is of as many samples as all predictions together.
    """

    def repeat(leaf: object, name: str) -> object:
        if not isinstance(leaf, Tensor) or leaf.ndim == 0:
            return leaf
        if len(leaf) == batch * count and batch > 0:
            raise ValueError(
                f"`{name}` (shape {tuple(leaf.shape)}) must be (b ...), with b = {batch} as in "
                "`x`: it is repeated here"
            )
        return torch.cat([leaf] * count) if len(leaf) == batch else leaf

    return map_leaves(repeat, value, name)


def stacked(name: str, pair: tuple[Tensor, Tensor], count: int) -> Tensor:
    """A condition for all predictions: with all, with the pictures only, with none."""
    value, null = pair
    if count == 2:
        return torch.cat((value, null))
    return torch.cat((value, value, null) if name == PICTURES else (value, null, null))


def mixed(out: R, batch: int, scales: list[Tensor], rescale: float, real: Tensor | None) -> R:
    """What a model gives for all predictions, with one in the place of each.

    Raises:
        ValueError: if there is no tensor (b ...) in it.
    """
    count, found = len(scales) + 1, []

    def mix_leaf(leaf: object, name: str) -> object:
        if not isinstance(leaf, Tensor) or leaf.ndim == 0 or len(leaf) != batch * count:
            return leaf
        found.append(name)
        predictions = leaf.chunk(count) if batch else (leaf,) * count
        if not leaf.is_floating_point():
            return predictions[0]
        return mix(predictions, scales, rescale, real)

    result = map_leaves(mix_leaf, out)
    if not found:
        raise ValueError(f"`unet` (gave a {type(out).__name__}) must give tensors (b ...)")
    return cast("R", result)


def mix(
    predictions: tuple[Tensor, ...], scales: list[Tensor], rescale: float, real: Tensor | None
) -> Tensor:
    """The guided prediction, of those with all conditions, with pictures only and with none."""
    dtype = torch.promote_types(predictions[0].dtype, torch.float32)
    full, *others = (prediction.to(dtype) for prediction in predictions)
    scale, *image_scale = (beside(number, full).to(dtype) for number in scales)
    out = torch.lerp(others[0], full, scale)
    if image_scale:
        out = out + (image_scale[0] - 1) * (others[0] - others[1])
    if rescale > 0:
        guided = scales[0] != 1 if len(scales) == 1 else (scales[0] != 1) | (scales[1] != 1)
        out = rescaled(out, full, beside(guided, full), rescale, real)
    return out.to(predictions[0].dtype)


def rescaled(
    out: Tensor, full: Tensor, guided: Tensor, rescale: float, real: Tensor | None
) -> Tensor:
    """`out` with the deviation of `full`, as far as `rescale` says, of what is `guided`.

    Frames that are not, or that are no `real` ones, neither count nor change.
    """
    if real is not None and out.ndim == 5:
        guided = guided & real.to(out.device)[:, None, :, None, None]
    counts = guided.expand(out.shape).to(out.dtype)
    total = counts.flatten(1).sum(1).clamp(min=1)

    def variance(x: Tensor) -> Tensor:
        across = [1] * (x.ndim - 1)
        mean = ((x * counts).flatten(1).sum(1) / total).view(-1, *across)
        return ((x - mean).square() * counts).flatten(1).sum(1) / total

    had = variance(out)
    ratio = torch.where(had > 0, variance(full), 1) / torch.where(had > 0, had, 1)
    factor = torch.lerp(torch.ones_like(ratio), ratio.sqrt(), rescale)
    return torch.where(guided, out * factor.view(-1, *[1] * (out.ndim - 1)), out)
