"""Classifier-free guidance: Ho and Salimans 2022.

In training, give the U-Net what `drop_conditions` leaves of the conditions. In sampling, call
`guide(unet, scale)` in the place of the U-Net.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypedDict

import torch
from torch import Generator, Tensor, nn

from make_a_video_pytorch.ops.checks import at_least, must_be_tensor, typechecked
from make_a_video_pytorch.ops.decision import must_be_mask

__all__ = ["Conditions", "NullConditions", "drop_conditions", "guide"]

_P = ParamSpec("_P")


class Conditions(TypedDict, total=False):
    """The arguments for a SpaceTimeUnet that `drop_conditions` gives, as far as it was given them.

    Shapes: `cond` (b cond_dim), `context` (b n context_dim), `context_mask` bool (b n).
    """

    cond: Tensor
    context: Tensor
    context_mask: Tensor


class NullConditions(nn.Module):
    """Learned stand-ins for a `cond` and a `context` that are left out, at first zeros.

    Give one to `drop_conditions` in training, and the same one to `guide`.

    Args:
        cond_dim: width of the U-Net's `cond`, if it has one.
        context_dim: features of its `context` tokens, if it has one.

    Raises:
        ValueError: if a size is below 1.

    Example:
        >>> null = NullConditions(cond_dim=4)
        >>> drop_conditions(1.0, cond=torch.ones(2, 4), null=null)["cond"].sum().item()
        0.0
        >>> null.cond.shape
        torch.Size([4])
    """

    cond: nn.Parameter | None
    context: nn.Parameter | None

    @typechecked
    def __init__(self, *, cond_dim: int | None = None, context_dim: int | None = None) -> None:
        super().__init__()
        for name, size in (("cond", cond_dim), ("context", context_dim)):
            if size is not None:
                at_least(1, **{f"{name}_dim": size})
            parameter = None if size is None else nn.Parameter(torch.zeros(size))
            self.register_parameter(name, parameter)


@typechecked
def drop_conditions(
    dropped: Tensor | float | int,
    *,
    cond: Tensor | None = None,
    context: Tensor | None = None,
    context_mask: Tensor | None = None,
    null: NullConditions | None = None,
    generator: Generator | None = None,
) -> Conditions:
    """Conditions to train with: those of the samples that are dropped become null (Algorithm 1).

    A null `cond` is zeros and a null `context` has no token to see, or else they are the learned
    ones of `null`, a token in the first place.

    Args:
        dropped: the probability with which a sample is dropped, or which ones are, bool (b).
        cond: vectors (b cond_dim).
        context: tokens (b n context_dim).
        context_mask: False (b n) for tokens that are not to be seen.
        null: the learned null conditions.
        generator: where randomness comes from.

    Returns:
        The arguments for the U-Net, `cond`, `context` and `context_mask`, as far as given.

    Raises:
        TypeError: if an argument is of a wrong type.
        ValueError: if no condition is given, the probability is none, or a shape does not fit.

    Example:
        >>> kept = drop_conditions(torch.tensor([True, False]), cond=torch.ones(2, 3))
        >>> kept["cond"].tolist()
        [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
        >>> unet = SpaceTimeUnet(dim=4, dim_mult=(1,), self_attns=(False,), cond_dim=3,
        ...     temporal_compression=(False,), resnet_block_depths=(1,))
        >>> unet(torch.randn(2, 3, 5, 8, 8), timestep=9, **kept).shape
        torch.Size([2, 3, 5, 8, 8])
    """
    batch, device = _must_be_conditions(cond, context, context_mask)
    if not isinstance(dropped, Tensor):
        if not 0 <= dropped <= 1:
            raise ValueError(f"`dropped` (={dropped}) must be between 0 and 1")
        where = None if generator is None else generator.device
        dropped = torch.rand(batch, generator=generator, device=where) < dropped
    must_be_mask("dropped", dropped, "(b)", (batch,))
    dropped = dropped.to(device)

    kept: Conditions = {}
    if cond is not None:
        null_cond = cond.new_zeros(()) if null is None else _learned(null.cond, "cond", cond)
        kept["cond"] = torch.where(dropped[:, None], null_cond, cond)
    if context is not None:
        if context_mask is None:
            context_mask = context.new_ones(context.shape[:2], dtype=torch.bool)
        context_mask = context_mask.to(device)
        if null is not None and context.shape[1] == 0:  # make room for the learned token
            context = context.new_zeros(batch, 1, context.shape[2])
            context_mask = context_mask.new_zeros(batch, 1)
        null_mask = torch.zeros_like(context_mask)
        if null is not None:
            token = _learned(null.context, "context", context)
            context = torch.where(dropped[:, None, None], token, context)
            null_mask[:, :1] = True
        kept["context"] = context
        kept["context_mask"] = torch.where(dropped[:, None], null_mask, context_mask)
    return kept


@typechecked
def guide(
    unet: Callable[_P, Tensor], scale: float | int, *, null: NullConditions | None = None
) -> Callable[_P, Tensor]:
    """A model that is called as `unet` and gives null + scale * (conditioned - null).

    Equation 6 with `scale` = 1 + w: 1 is no guidance, 0 no condition. `cond` and `context` are
    guided by; every other argument, such as `cond_images`, serves both predictions, which are
    made in one batch of twice the size.

    Args:
        unet: a SpaceTimeUnet, or anything called like one.
        scale: how strongly to follow the conditions.
        null: the learned null conditions that it was trained with.

    Returns:
        The function to call in its place, its first argument by place. It raises a ValueError if
        it is given neither `cond` nor `context`, or if a shape does not fit.

    Raises:
        TypeError: if an argument is of a wrong type.

    Example:
        >>> def unet(x, timestep, *, cond, context=None, context_mask=None):
        ...     return x + cond[:, :, None, None]
        >>> guided = guide(unet, 3.0)
        >>> guided(torch.zeros(1, 2, 4, 4), 9, cond=torch.ones(1, 2)).unique()
        tensor([3.])
    """
    predict: Callable[..., Tensor] = unet  # with arguments of twice the size

    def guided(
        x: Tensor,
        /,
        *args: object,
        cond: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        **others: object,
    ) -> Tensor:
        batch = x.shape[0]
        _must_be_conditions(cond, context, context_mask, batch)

        def twice(value: object) -> object:
            if isinstance(value, Tensor) and value.ndim and value.shape[0] == batch:
                return _twice(value)
            return value

        conditions = drop_conditions(
            torch.arange(2 * batch) >= batch,
            cond=_twice(cond),
            context=_twice(context),
            context_mask=_twice(context_mask),
            null=null,
        )
        others = {name: twice(value) for name, value in others.items()}
        out = predict(_twice(x), *map(twice, args), **conditions, **others)
        conditioned, unconditioned = out.chunk(2)
        return torch.lerp(unconditioned, conditioned, scale)

    as_unet: Callable[..., Tensor] = guided
    return as_unet


def _twice(tensor: Tensor | None) -> Tensor | None:
    """b ... -> 2b ..."""
    return None if tensor is None else torch.cat((tensor, tensor))


def _must_be_conditions(
    cond: Tensor | None,
    context: Tensor | None,
    context_mask: Tensor | None,
    batch: int | None = None,
) -> tuple[int, torch.device]:
    """Raise an error that names what is not of one batch; return its size, and the device."""
    must_be_tensor(cond=cond, context=context, context_mask=context_mask)
    given = cond if cond is not None else context
    if given is None:
        raise ValueError("`cond` or `context` must be given")
    batch = len(given) if batch is None else batch
    for name, value, letters in (("cond", cond, "b d"), ("context", context, "b n d")):
        if value is None:
            continue
        if value.ndim != len(letters.split()) or len(value) != batch:
            raise ValueError(
                f"`{name}` (shape {tuple(value.shape)}) must be ({letters}), with b = {batch}"
            )
    if context_mask is not None:
        if context is None:
            raise ValueError("`context_mask` must be left out, since no `context` was given")
        must_be_mask("context_mask", context_mask, "(b, n)", tuple(context.shape[:2]))
    return batch, given.device


def _learned(parameter: Tensor | None, name: str, like: Tensor) -> Tensor:
    """The learned null condition, if it is one for conditions `like` these."""
    if parameter is None or parameter.shape != like.shape[-1:]:
        size = None if parameter is None else parameter.shape[0]
        raise ValueError(
            f"`null` (`{name}_dim`={size}) must have `{name}_dim` = {like.shape[-1]}, as `{name}` "
            f"(shape {tuple(like.shape)}) has"
        )
    return parameter.to(like.dtype)
