"""What stands in the place of a condition that is left out.

Letters: b batch, n tokens, d features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from make_a_video_pytorch.ops.checks import at_least, must_be_tensor, typechecked
from make_a_video_pytorch.ops.decision import as_bools, must_be_mask

# A condition and what stands in its place, by name, both of one shape (b ...).
Pairs = dict[str, tuple[Tensor, Tensor]]


class StandIn(NamedTuple):
    """What stands in the place of a condition, and what messages call it."""

    called: str
    tensor: Tensor

    def expanded(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """One for each sample of a condition of this `shape` (b ...)."""
        if self.tensor.shape not in (shape, (1, *shape[1:]), shape[1:]):
            raise ValueError(
                f"`{self.called}` (shape {tuple(self.tensor.shape)}) must be (b ...), (1 ...) or "
                f"(...), with (b ...) = {shape}"
            )
        return self.tensor.to(like).expand(shape)


class NullConditions(nn.Module):
    """Learned stand-ins for a `cond` and a `context` that are left out, at first zeros.

    Give one to `drop_conditions` in training, and the same one to `guide`.

    Args:
        cond_dim: width of the U-Net's `cond`, if it has one.
        context_dim: features of its `context` tokens, if it has one.

    Raises:
        ValueError: if a size is below 1.

    Example:
        >>> from make_a_video_pytorch.guidance import drop_conditions
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


def paired(
    given: Mapping[str, object],
    null: NullConditions | Mapping[str, Tensor] | None,
    negative: Mapping[str, Tensor] | None = None,
    batch: int | None = None,
) -> Pairs:
    """Each condition that is `given`, beside what stands in its place.

    That is what `negative` or else `null` holds by its name, or else zeros, and for a `context`
    no token to see: where it has another number of tokens, both get as many, and a mask that
    says which are theirs.

    Args:
        given: tensors (b ...), or None, by name.
        null: what a model was trained with, learned or tensors (b ...), (1 ...) or (...).
        negative: such tensors, in the place of those.
        batch: b, if it is known.

    Raises:
        TypeError: if what is given is no tensor.
        ValueError: if a shape does not fit, or `negative` is of what is not given.
    """
    conditions = checked(given, batch)
    stand_ins = stand_ins_of(null, negative, conditions)
    pairs: Pairs = {}
    for name, value in conditions.items():
        if name == "context":
            pairs |= paired_tokens(
                value,
                conditions.get("context_mask"),
                stand_ins.get("context"),
                stand_ins.get("context_mask"),
            )
        elif name != "context_mask":
            null_value = torch.zeros_like(value)
            if name in stand_ins:
                null_value = stand_ins[name].expanded(tuple(value.shape), value)
            pairs[name] = value, null_value
    return pairs


def checked(given: Mapping[str, object], batch: int | None) -> dict[str, Tensor]:
    """The conditions that are not None, if they are tensors of one batch."""
    must_be_tensor(**given)
    conditions = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    names = [name for name in conditions if name != "context_mask"]
    for name in names:
        value, letters = conditions[name], {"cond": "b d", "context": "b n d"}.get(name)
        batch = len(value) if batch is None and value.ndim > 0 else batch
        of_rank = value.ndim > 0 if letters is None else value.ndim == len(letters.split())
        if not of_rank or len(value) != batch:
            raise ValueError(
                f"`{name}` (shape {tuple(value.shape)}) must be ({letters or 'b ...'}), with b = "
                f"{batch}"
            )
    if "context_mask" in conditions:
        if "context" not in conditions:
            raise ValueError("`context_mask` must be left out, since no `context` was given")
        context, mask = conditions["context"], as_bools(context_mask=conditions["context_mask"])
        must_be_mask("context_mask", mask, "(b, n)", tuple(context.shape[:2]))
        conditions["context_mask"] = mask.to(context.device)
    return conditions


def stand_ins_of(
    null: NullConditions | Mapping[str, Tensor] | None,
    negative: Mapping[str, Tensor] | None,
    conditions: dict[str, Tensor],
) -> dict[str, StandIn]:
    """What stands in the place of `conditions`, by name, as far as it is said."""
    stand_ins: dict[str, StandIn] = {}
    for source, tensors in (("null", null), ("negative", negative)):
        if isinstance(tensors, NullConditions):
            tensors = learned(tensors, conditions.keys() - (negative or {}).keys(), conditions)
        if not tensors:
            continue
        if "context" in tensors:
            stand_ins.pop("context_mask", None)  # is of other tokens
        elif "context_mask" in tensors:
            raise ValueError(f"`{source}` (with `context_mask`) must have a `context` to it")
        for name, tensor in tensors.items():
            must_be_tensor(**{f"{source}[{name!r}]": tensor})
            of = "context" if name == "context_mask" else name
            if source == "negative" and of not in conditions:
                raise ValueError(f"`negative` (with `{name}`) needs `{of}` to be given by name")
            stand_ins[name] = StandIn(f"{source}[{name!r}]", tensor)
    return stand_ins


def learned(
    null: NullConditions, names: set[str], conditions: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The stand-ins of `null` for `conditions` of these names: a vector (d), and a token (1 d)."""
    nulls = {}
    for name, parameter in (("cond", null.cond), ("context", null.context)):
        if name not in names:
            continue
        given = conditions[name]
        if parameter is None or parameter.shape != given.shape[-1:]:
            size = None if parameter is None else parameter.shape[0]
            raise ValueError(
                f"`null` (`{name}_dim`={size}) must have `{name}_dim` = {given.shape[-1]}, as "
                f"`{name}` (shape {tuple(given.shape)}) has"
            )
        nulls[name] = parameter if name == "cond" else parameter[None]
    return nulls


def paired_tokens(
    context: Tensor, mask: Tensor | None, null: StandIn | None, null_mask: StandIn | None
) -> Pairs:
    """Tokens (b n d) and those in their place, and masks (b n) where there is a need for them."""
    batch, tokens, features = context.shape
    null_tokens = context.new_zeros(batch, 0, features)
    if null is not None:
        if null.tensor.ndim not in (2, 3):
            raise ValueError(
                f"`{null.called}` (shape {tuple(null.tensor.shape)}) must be (b n d), (1 n d) or "
                f"(n d), with b = {batch} and d = {features}"
            )
        null_tokens = null.expanded((batch, null.tensor.shape[-2], features), context)
    own, null_seen = null_tokens.shape[1], None
    if null_mask is not None:
        bools = as_bools(**{null_mask.called: null_mask.tensor})
        like = torch.zeros((), dtype=torch.bool, device=context.device)
        null_seen = StandIn(null_mask.called, bools).expanded((batch, own), like)
    if own == tokens and mask is None and null_seen is None:
        return {"context": (context, null_tokens)}
    most = max(own, tokens)
    return {
        "context": (padded(context, most), padded(null_tokens, most)),
        "context_mask": (seen(context, mask, most), seen(null_tokens, null_seen, most)),
    }


def padded(tokens: Tensor, most: int) -> Tensor:
    """(b n d) with zeros up to (b most d)."""
    return F.pad(tokens, (0, 0, 0, most - tokens.shape[1]))


def seen(tokens: Tensor, mask: Tensor | None, most: int) -> Tensor:
    """Which of `most` tokens are to be seen (b most), if `mask` says it of the first ones."""
    if mask is None:
        mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
    return F.pad(mask, (0, most - tokens.shape[1]))
