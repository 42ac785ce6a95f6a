"""What the U-Nets for other libraries share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from make_a_video_pytorch.ops.checks import must_be_taken
from make_a_video_pytorch.ops.positions import SinusoidalPosEmb
from make_a_video_pytorch.unet.growth import inherit, must_keep_outputs
from make_a_video_pytorch.unet.unet import SpaceTimeUnet

A = TypeVar("A", bound="Adapter")
V = TypeVar("V")

# arguments of SpaceTimeUnet that follow from what the other library conditions on
DERIVED = ("cond_channels", "cond_dim", "context_dim", "condition_on_noise_level")
# local variables of a subclass's constructor that are no settings
NO_SETTINGS = ("self", "__class__", "dim", "channels", "unet")


class Adapter(nn.Module):
    """A SpaceTimeUnet behind the interface of another library's U-Net.

    A subclass is one of the library's own U-Net too, whose methods it inherits, but not its
    parameters: that one's constructor is not run. Its `settings` are attributes, and they are
    arguments of the constructor beside those of the SpaceTimeUnet.

    The U-Net sees `x`, an earlier prediction and pictures of low resolution as channels in this
    order, and a vector followed by the sinusoids of the noise level of those pictures as `cond`.

    Args:
        settings: the arguments by the other library's names.
        arguments: those of the SpaceTimeUnet beside the next two.
        dim: features at full resolution.
        channels: channels of the picture.
        vector_dim: width of the vector to condition on, 0 for none.
        noise_cond: condition on the noise level of the pictures.
        context_dim: features of the tokens to condition on.

    Raises:
        TypeError: if an argument is of a wrong type, unknown, or follows from the others.
        ValueError: if a value is out of range.
    """

    self_cond: bool
    lowres_cond: bool

    def __init__(
        self,
        settings: dict[str, object],
        arguments: dict[str, object],
        *,
        dim: int,
        channels: int,
        vector_dim: int,
        noise_cond: bool,
        context_dim: int | None,
    ) -> None:
        nn.Module.__init__(self)
        for name in DERIVED:
            if name in arguments:
                raise TypeError(f"`{name}` must be left out: it follows from the other arguments")
        if not arguments.get("condition_on_timestep", True):
            raise ValueError("`condition_on_timestep` (=False) must be True")
        for name, value in settings.items():
            setattr(self, name, value)
        pictures = int(self.self_cond) + int(self.lowres_cond)
        self.noise_emb = SinusoidalPosEmb(dim) if noise_cond else None
        self.vector_dim = vector_dim
        arguments = {"dim": dim, "channels": channels, **arguments}
        build: Callable[..., SpaceTimeUnet] = SpaceTimeUnet  # it checks their types
        self.unet = build(
            **arguments,
            cond_channels=channels * pictures,
            cond_dim=(vector_dim + (dim if noise_cond else 0)) or None,
            context_dim=context_dim,
        )
        self.channels = self.unet.channels
        self.channels_out = self.unet.channels_out
        # by this name the other libraries read what a U-Net was built with
        self._locals = {**settings, **arguments}

    @classmethod
    def from_unet(cls: type[A], unet: SpaceTimeUnet, **settings: object) -> A:
        """One that predicts as `unet` does, with a copy of its weights.

        Where `unet` has conditions already, they must be those that `settings` ask for.

        Args:
            unet: trained or not.
            settings: the constructor's arguments by the other library's names, and the
                SpaceTimeUnet's that `unet` can grow by, such as `channels_out`.

        Returns:
            One in the dtype, on the device and in the mode of `unet`.

        Raises:
            ValueError: if the predictions would be others.
        """
        arguments = {name: value for name, value in unet.config.items() if name not in DERIVED}
        build: Callable[..., A] = cls
        adapter = build(**{**arguments, **settings})
        for name in DERIVED:
            had, asked = unet.config[name], adapter.unet.config[name]
            if had and had not in (asked, adapter.vector_dim if name == "cond_dim" else None):
                raise ValueError(
                    f"`unet` (with `{name}`={had}) must have `{name}`={asked} or none, as the "
                    "other arguments ask for"
                )
        adapter.take_over(unet)
        return adapter

    def cast_model_parameters(self: A, **updates: object) -> A:
        """This U-Net with what the other library needs of it, with the same predictions.

        Larger tensors have this one's weights and zeros elsewhere, where the library's own U-Nets
        would be built anew.

        Args:
            updates: the constructor's arguments that it needs.

        Returns:
            This one, where it has them already, or a larger one.

        Raises:
            ValueError: if the predictions would be others, as without a condition.
        """
        if all(getattr(self, name) == value for name, value in updates.items()):
            return self
        for name, value in updates.items():
            had: object = getattr(self, name)
            grows = had is None or had is False
            if name == "channels_out" and isinstance(value, int):
                grows = value > self.channels_out
            if value != had and not grows:
                raise ValueError(
                    f"`{name}` (={value}) must be {had}, as this U-Net was built: build it anew "
                    f"with `{name}`={value}"
                )
        build: Callable[..., A] = type(self)
        cast = build(**{**self._locals, **updates})
        cast.take_over(self)
        return cast

    def take_over(self, old: SpaceTimeUnet | Adapter) -> None:
        """Take the weights of `old`, a smaller one of its kind or the U-Net alone.

        Raises:
            ValueError: if the predictions would be others.
        """
        new, smaller = (self.unet, old) if isinstance(old, SpaceTimeUnet) else (self, old.unet)
        must_keep_outputs(smaller.config, self.unet.config)
        like = next(old.parameters())
        self.to(like.device, like.dtype).train(old.training)
        inherit(new, old)
        if isinstance(old, Adapter) and old.noise_emb is not None and not old.vector_dim:
            to_cond = self.unet.to_cond
            assert to_cond is not None
            with torch.no_grad():  # the noise level comes last, and was first
                to_cond.weight.copy_(to_cond.weight.roll(self.vector_dim, dims=1))

    def predict(
        self,
        x: Tensor,
        time: Tensor,
        enable_time: bool = True,
        *,
        vector: Tensor | None,
        context: Tensor | None,
        context_mask: Tensor | None,
        self_cond: Tensor | None,
        lowres_cond_img: Tensor | None,
        noise_level: Tensor | None,
    ) -> Tensor:
        """What the U-Net predicts, with what the library conditions on as its arguments."""
        must_be_taken(self.self_cond, "self_cond", self_cond=self_cond)
        must_be_taken(self.lowres_cond, "lowres_cond", lowres_cond_img=lowres_cond_img)
        pictures = []
        if self.self_cond:
            pictures.append(torch.zeros_like(x) if self_cond is None else self_cond)
        if self.lowres_cond:
            pictures.append(given("lowres_cond", lowres_cond_img=lowres_cond_img))
        vectors = []
        if self.vector_dim:
            vectors.append(x.new_zeros(len(x), self.vector_dim) if vector is None else vector)
        if self.noise_emb is not None:
            level = given("lowres_noise_cond", lowres_noise_level=noise_level)
            vectors.append(self.noise_emb(level))
        predicted: Tensor = self.unet(
            x,
            time,
            enable_time,
            cond_images=torch.cat(pictures, dim=1) if pictures else None,
            cond=torch.cat(vectors, dim=1).to(x.dtype) if vectors else None,
            context=context,
            context_mask=context_mask,
        )
        return predicted


def given(option: str, **argument: V | None) -> V:
    """The one `argument`, or a ValueError where it is left out though its `option` is on."""
    ((name, value),) = argument.items()
    if value is None:
        raise ValueError(f"`{name}` must be given, as `{option}` is True")
    return value
