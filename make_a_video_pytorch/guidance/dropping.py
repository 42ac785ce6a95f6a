"""Conditions to train with, of which some are left out, as guidance asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, overload

import torch
from torch import Generator, Tensor

from make_a_video_pytorch.guidance.nulls import NullConditions, paired
from make_a_video_pytorch.ops.checks import typechecked
from make_a_video_pytorch.ops.decision import must_be_mask

Dropped = Tensor | float | int


class Conditions(TypedDict, total=False):
    """The arguments for a SpaceTimeUnet that `drop_conditions` gives, as far as it was given them.

    Shapes: `cond` (b cond_dim), `context` (b n context_dim), `context_mask` bool (b n),
    `cond_images` (b cond_channels [f] h w).
    """

    cond: Tensor
    context: Tensor
    context_mask: Tensor
    cond_images: Tensor


@overload
def drop_conditions(
    dropped: Dropped,
    *,
    cond: Tensor | None = None,
    context: Tensor | None = None,
    context_mask: Tensor | None = None,
    cond_images: Tensor | None = None,
    dropped_images: Dropped | None = None,
    null: NullConditions | Mapping[str, Tensor] | None = None,
    generator: Generator | None = None,
) -> Conditions: ...


@overload
def drop_conditions(
    dropped: Dropped,
    *,
    null: Mapping[str, Tensor],
    dropped_images: Dropped | None = None,
    generator: Generator | None = None,
    **conditions: Tensor | None,
) -> dict[str, Tensor]: ...


@typechecked
def drop_conditions(
    dropped: Dropped,
    *,
    cond: Tensor | None = None,
    context: Tensor | None = None,
    context_mask: Tensor | None = None,
    cond_images: Tensor | None = None,
    dropped_images: Dropped | None = None,
    null: NullConditions | Mapping[str, Tensor] | None = None,
    generator: Generator | None = None,
    **others: Tensor | None,
) -> Conditions | dict[str, Tensor]:
    """Conditions to train with: those of the samples that are dropped become null.

    Algorithm 1 of Ho and Salimans 2022. A null `cond` and null `cond_images` are zeros and a null
    `context` has no token to see, or else they are what `null` says. Pictures are dropped
    independently of the rest (Brooks et al. 2023, section 3.2), for a scale of their own.

    Args:
        dropped: the probability with which a sample is dropped, or which ones are, bool (b).
        cond: vectors (b cond_dim).
        context: tokens (b n context_dim).
        context_mask: False or 0 (b n) for tokens that are not to be seen.
        cond_images: pictures (b cond_channels [f] h w).
        dropped_images: of which samples they are dropped, in the same way; as often as `dropped`
            says, or of the same samples, if left out.
        null: the learned null conditions, or what stands in the place of each, by its name:
            tensors (b ...), (1 ...) or (...), of a context as many tokens as it likes.
        generator: where randomness comes from.
        **others: conditions (b ...) by other names, which `null` has.

    Returns:
        The arguments for the U-Net, as far as given; and a `context_mask` where it is needed.

    Raises:
        TypeError: if an argument is of a wrong type, or of a name that `null` does not have.
        ValueError: if no condition is given, a probability is none, or a shape does not fit.

    Example:
        >>> kept = drop_conditions(torch.tensor([True, False]), cond=torch.ones(2, 3))
        >>> kept["cond"].tolist()
        [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
        >>> unet = SpaceTimeUnet(dim=4, dim_mult=(1,), self_attns=(False,), cond_dim=3,
        ...     temporal_compression=(False,), resnet_block_depths=(1,))
        >>> unet(torch.randn(2, 3, 5, 8, 8), timestep=9, **kept).shape
        torch.Size([2, 3, 5, 8, 8])
    """
    for name in others:
        if not isinstance(null, Mapping) or name not in null:
            raise TypeError(
                f"`{name}` is no argument of `drop_conditions`, unless `null` holds what stands "
                "in its place"
            )
    given = {"cond": cond, "context": context, "context_mask": context_mask}
    pairs = paired({**given, "cond_images": cond_images, **others}, null)
    if not pairs:
        raise ValueError("`cond`, `context`, `cond_images` or another condition must be given")
    batch = len(next(iter(pairs.values()))[0])
    rows = drawn("dropped", dropped, batch, generator)
    of_images = rows
    if cond_images is not None and not (dropped_images is None and isinstance(dropped, Tensor)):
        often = dropped if dropped_images is None else dropped_images
        of_images = drawn("dropped_images", often, batch, generator)
    return {
        name: torch.where(along(of_images if name == "cond_images" else rows, value), null, value)
        for name, (value, null) in pairs.items()
    }


def drawn(name: str, dropped: Dropped, batch: int, generator: Generator | None) -> Tensor:
    """Which samples are dropped, bool (b)."""
    if not isinstance(dropped, Tensor):
        if not 0 <= dropped <= 1:
            raise ValueError(f"`{name}` (={dropped}) must be between 0 and 1")
        where = None if generator is None else generator.device
        dropped = torch.rand(batch, generator=generator, device=where) < dropped
    must_be_mask(name, dropped, "(b)", (batch,))
    return dropped


def along(rows: Tensor, value: Tensor) -> Tensor:
    """(b) as (b 1 ...), beside `value` (b ...)."""
    return rows.to(value.device).view(-1, *[1] * (value.ndim - 1))
