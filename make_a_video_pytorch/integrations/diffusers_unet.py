"""A SpaceTimeUnet as a model of diffusers, which `diffusers` exports."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

from diffusers import ConfigMixin, ModelMixin
from diffusers.loaders import PeftAdapterMixin
from diffusers.utils import BaseOutput
from torch import Tensor

from make_a_video_pytorch.modules.stream import Streamable
from make_a_video_pytorch.ops.decision import Temporal, as_bools
from make_a_video_pytorch.unet.growth import inherit
from make_a_video_pytorch.unet.unet import SpaceTimeUnet

U = TypeVar("U", bound="SpaceTimeUnetModel")


@dataclass
class VideoOutput(BaseOutput):
    """What a U-Net predicts.

    Attributes:
        sample: (b channels_out [f] h w).
    """

    sample: Tensor


class SpaceTimeUnetModel(
    ModelMixin, ConfigMixin, PeftAdapterMixin, Streamable[VideoOutput | tuple[Tensor]]
):
    """A SpaceTimeUnet that diffusers saves, loads, shares and puts into pipelines.

    It takes the arguments of `SpaceTimeUnet`, which its `config` then holds, and one more. The
    U-Net itself is `unet`. Loading sets tensors one by one: load a file of 0.4.0 or 1.0.0 into a
    `SpaceTimeUnet`, which converts it, and take that by `from_unet`.

    Args:
        sample_size: height and width, or one number for both, of what pipelines sample if they
            are not told; in latents where there is a VAE.
        arguments: those of SpaceTimeUnet.

    Raises:
        TypeError: if an argument is of a wrong type, or unknown.
        ValueError: if a value is out of range.

    Example:
        >>> model = SpaceTimeUnetModel(dim=8, attn_dim_head=8, attn_heads=2, context_dim=6)
        >>> model(torch.randn(1, 3, 8, 16, 16), 5, torch.randn(1, 7, 6)).sample.shape
        torch.Size([1, 3, 8, 16, 16])
    """

    _supports_gradient_checkpointing = True
    _repeated_blocks: ClassVar[list[str]] = ["ResnetBlock", "SpatioTemporalAttention"]
    _no_split_modules: ClassVar[list[str]] = ["ResnetBlock", "SpatioTemporalAttention"]

    def __init__(
        self, *, sample_size: int | Sequence[int] | None = None, **arguments: object
    ) -> None:
        super().__init__()
        self.unet = SpaceTimeUnet(**arguments)  # type: ignore[arg-type]  # which it checks itself
        self.register_to_config(sample_size=sample_size, **self.unet.config)

    @classmethod
    def from_unet(
        cls: type[U], unet: SpaceTimeUnet, *, sample_size: int | Sequence[int] | None = None
    ) -> U:
        """One that predicts as `unet` does, with a copy of its weights.

        Args:
            unet: trained or not.
            sample_size: as in the constructor.

        Raises:
            ValueError: if something is wrapped around a part of `unet`.
        """
        model = cls(sample_size=sample_size, **unet.config)
        inherit(model.unet, unet)
        model.train(unet.training)
        return model

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether the U-Net computes blocks again in backward, as `enable_...` of it sets it."""
        return self.unet.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, value: bool) -> None:
        self.unet.gradient_checkpointing = value

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        *,
        enable_time: bool | Tensor | Temporal = True,
        cond_images: Tensor | None = None,
        cond: Tensor | None = None,
        fps: Tensor | float | None = None,
        noise_level: Tensor | float | None = None,
        frame_mask: Tensor | None = None,
        features: Sequence[Tensor] | None = None,
        timestep_cond: None = None,
        class_labels: None = None,
        cross_attention_kwargs: None = None,
        added_cond_kwargs: None = None,
        return_dict: bool = True,
    ) -> VideoOutput | tuple[Tensor]:
        """Predict from a noisy image or video, as pipelines and training scripts ask for it.

        Args:
            sample: image (b channels h w) or video (b channels f h w).
            timestep: one number, (b), or (b f) for a noise level of each frame.
            encoder_hidden_states: tokens (b n context_dim), the U-Net's `context`.
            encoder_attention_mask: False or 0 (b n) for tokens that are not to be seen.
            enable_time: run the temporal parts: one bool, or one for each sample (b).
            cond_images: pictures (b cond_channels [f] h w) beside `sample`.
            cond: a vector (b cond_dim).
            fps: frames per second, one number or (b).
            noise_level: the timestep that `cond_images` have noise of, one number or (b).
            frame_mask: False (b f) for frames that are padding at the end of a shorter clip.
            features: what a `ControlBranchModel` gives.
            timestep_cond, class_labels, cross_attention_kwargs, added_cond_kwargs: not taken.
            return_dict: give a `VideoOutput`, or else a tuple.

        Raises:
            TypeError: if what is not taken is given.
            ValueError: if an argument is missing, of another shape or not what the U-Net was built
                for.
        """
        not_taken = {
            "timestep_cond": timestep_cond,
            "class_labels": class_labels,
            "cross_attention_kwargs": cross_attention_kwargs,
            "added_cond_kwargs": added_cond_kwargs,
        }
        for name, value in not_taken.items():
            if value is not None:
                raise TypeError(f"`{name}` must be left out: this U-Net cannot take it")
        out = self.unet(
            sample,
            timestep,
            enable_time,
            cond_images=cond_images,
            cond=cond,
            context=encoder_hidden_states,
            context_mask=as_mask(encoder_attention_mask),
            fps=fps,
            noise_level=noise_level,
            frame_mask=frame_mask,
            features=features,
        )
        return VideoOutput(sample=out) if return_dict else (out,)

    if TYPE_CHECKING:
        __call__ = forward


def as_mask(mask: Tensor | None) -> Tensor | None:
    """A mask of tokens (b n), as tokenizers give it, as bools; errors are those of `as_bools`."""
    return None if mask is None else as_bools(encoder_attention_mask=mask)


def signature_with(arguments: inspect.Signature, own: inspect.Signature) -> inspect.Signature:
    """`own` with the arguments of `arguments` in the place of its last, which takes any."""
    *first, _ = own.parameters.values()
    named = {p.name for p in first}
    added = [p for p in arguments.parameters.values() if p.name not in named]
    return own.replace(parameters=[*first, *added])


# diffusers reads here what a saved config may hold
SpaceTimeUnetModel.__init__.__signature__ = signature_with(  # type: ignore[attr-defined]
    inspect.signature(SpaceTimeUnet), inspect.signature(SpaceTimeUnetModel.__init__)
)
