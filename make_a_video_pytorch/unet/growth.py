"""How a larger U-Net takes over the weights of a smaller one."""

from __future__ import annotations

import operator
from typing import TypeVar

import torch
from torch import nn

from make_a_video_pytorch.ops.parameters import temporal_modules

G = TypeVar("G", bound="Growable")


class Growable(nn.Module):
    """A module that can be built again with more, from its `config`, a table of its arguments."""

    config: dict[str, object]

    def grow(self: G, **updates: object) -> G:
        """A new U-Net of these constructor arguments but for `updates`, with the same outputs.

        It has this one's weights. Larger tensors have them as their leading slices and zeros in
        the rest, and what is new starts as the identity, so that training goes on where it was:
        a decoder becomes a frame interpolation network (Make-A-Video, section 3.3) by
        `unet.grow(cond_channels=4)`, and one that predicts its variance by
        `unet.grow(channels_out=6)`, whose further channels are zero at first. Frozen parameters
        stay frozen but for the tensors that are larger now.

        Args:
            updates: `cond_channels`, `channels_out`, `cond_dim` or entries of
                `resnet_block_depths` that are larger, `context_dim` where there was none, or one
                of `condition_on_timestep`, `condition_on_fps`, `condition_on_noise_level`,
                `attn_pos_bias` and the entries of `self_attns` that was False; `flash_attn` and
                `gradient_checkpointing` freely.

        Raises:
            TypeError: if there is no such argument, or it is of another type.
            ValueError: if an update would change the outputs.
        """
        grown = type(self)(**{**self.config, **updates})
        must_keep_outputs(self.config, grown.config)
        inherit(grown, self)
        return grown


def must_keep_outputs(config: dict[str, object], grown: dict[str, object]) -> None:
    """Raise a ValueError that names an argument by which a U-Net of `config` cannot be `grown`."""
    for name, new in grown.items():
        if not keeps_outputs(name, config, new):
            raise ValueError(
                f"`{name}` (={new!r}) cannot grow from {config[name]!r}: the outputs would not "
                "stay the same"
            )


def keeps_outputs(name: str, config: dict[str, object], new: object) -> bool:
    """Whether a U-Net of this `config` can have `new` for the argument `name`."""
    old = config[name]
    if new == old or name in ("flash_attn", "gradient_checkpointing"):
        return True
    if name.startswith("condition_on_") or name == "attn_pos_bias":
        return new is True
    if name == "channels_out":
        return is_as_many(new, config["channels"] if old is None else old)
    if name in ("cond_channels", "cond_dim"):
        return is_as_many(new, 0 if old is None else old)
    if name == "context_dim":  # the norm over more features would be another
        return old is None
    if isinstance(new, tuple) and isinstance(old, tuple) and len(new) == len(old):
        grows = name in ("self_attns", "resnet_block_depths")
        return grows and all(map(operator.ge, new, old))
    return False


def is_as_many(new: object, old: object) -> bool:
    """Whether both are numbers and `new` is at least `old`."""
    return isinstance(new, int) and isinstance(old, int) and new >= old


@torch.no_grad()
def inherit(new: nn.Module, old: nn.Module) -> None:
    """Give `new`, a larger module of the same kind, the weights of `old`, their device and dtype.

    A tensor that is larger has them as its leading slice. What is beyond stays as it was
    initialised if it acts across frames, where that is the identity, and is zero otherwise. A
    part that `old` does not have is made to start as the identity (its `start_as_identity`).

    Raises:
        ValueError: if something is wrapped around a part of `old`.
    """
    like = next(old.parameters())
    new.to(like.device, like.dtype).train(old.training)
    parts = dict(old.named_modules())
    temporal = {part for found in temporal_modules(new) for part in found.modules()}
    for name, part in new.named_modules():
        if name not in parts:
            if hasattr(part, "start_as_identity"):
                part.start_as_identity()
            continue
        weights = dict(parts[name].named_parameters(recurse=False))
        targets = dict(part.named_parameters(recurse=False))
        if not isinstance(parts[name], type(part)) or targets.keys() - weights.keys():
            raise ValueError(
                f"`{name}` (a {type(parts[name]).__name__}) must be a {type(part).__name__} "
                "to be grown: take off what is wrapped around it first"
            )
        for key, target in targets.items():
            weight = weights[key]
            target.data = target.data.to(weight)  # a module may hold several dtypes
            larger = target.shape != weight.shape
            if larger and part not in temporal:
                nn.init.zeros_(target)
            target[tuple(slice(size) for size in weight.shape)] = weight
            target.requires_grad_(weight.requires_grad or larger)
