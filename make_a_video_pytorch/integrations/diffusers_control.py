"""A ControlBranch as a model of diffusers, which `diffusers` exports."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, TypeVar

from diffusers import ConfigMixin, ModelMixin
from diffusers.loaders import PeftAdapterMixin
from torch import Tensor

from make_a_video_pytorch.integrations.diffusers_unet import as_mask, signature_with
from make_a_video_pytorch.modules.stream import Streamable
from make_a_video_pytorch.ops.decision import Temporal
from make_a_video_pytorch.unet.control import ControlBranch
from make_a_video_pytorch.unet.unet import SpaceTimeUnet

C = TypeVar("C", bound="ControlBranchModel")


class ControlBranchModel(ModelMixin, ConfigMixin, PeftAdapterMixin, Streamable[list[Tensor]]):
    """A ControlBranch that diffusers saves, loads and shares, beside its SpaceTimeUnetModel.

    It takes the arguments of `ControlBranch`, which its `config` then holds. The branch itself is
    `branch`.

    Args:
        cond_channels: channels of the pictures.
        arguments: those of the SpaceTimeUnet that is controlled.

    Raises:
        TypeError: if an argument is of a wrong type, or unknown.
        ValueError: if a value is out of range.

    Example:
        >>> unet = SpaceTimeUnetModel(dim=8, attn_dim_head=8, attn_heads=2)
        >>> branch = ControlBranchModel.from_branch(ControlBranch.from_unet(unet.unet))
        >>> x = torch.randn(1, 3, 8, 16, 16)
        >>> unet(x, 5, features=branch(x, 5, cond_images=x)).sample.shape
        torch.Size([1, 3, 8, 16, 16])
    """

    _supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["ResnetBlock", "SpatioTemporalAttention"]

    def __init__(self, *, cond_channels: int = 3, **arguments: object) -> None:
        super().__init__()
        self.branch = ControlBranch(cond_channels=cond_channels, **arguments)
        self.register_to_config(**self.branch.config)

    @classmethod
    def from_branch(cls: type[C], branch: ControlBranch) -> C:
        """One that gives what `branch` gives, with a copy of its weights.

        Args:
            branch: trained or not.
        """
        build: Callable[..., C] = cls
        model = build(**branch.config)
        model.branch.load_state_dict(branch.state_dict())
        model.train(branch.training)
        return model

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether the branch computes blocks again in backward, as `enable_...` of it sets it."""
        return self.branch.unet.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, value: bool) -> None:
        self.branch.unet.gradient_checkpointing = value

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        *,
        cond_images: Tensor,
        conditioning_scale: Tensor | float = 1.0,
        enable_time: bool | Tensor | Temporal = True,
        cond: Tensor | None = None,
        fps: Tensor | float | None = None,
        noise_level: Tensor | float | None = None,
        frame_mask: Tensor | None = None,
    ) -> list[Tensor]:
        """The `features` for a SpaceTimeUnetModel.

        Args:
            sample: image (b channels h w) or video (b channels f h w).
            timestep: one number, (b) or (b f).
            encoder_hidden_states: tokens (b n context_dim).
            encoder_attention_mask: False or 0 (b n) for tokens that are not to be seen.
            cond_images: pictures (b cond_channels [f] h w).
            conditioning_scale: how strongly to control: one number, (f) or (b f).
            enable_time: run the temporal parts: one bool, or one for each sample (b).
            cond: a vector (b cond_dim).
            fps: frames per second, one number or (b).
            noise_level: of the U-Net's own `cond_images`.
            frame_mask: False (b f) for frames that are padding.

        Raises:
            TypeError: if `cond_images` is no tensor.
            ValueError: if an argument is missing, of another shape or not what the U-Net was built
                for.
        """
        return self.branch(
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
            scale=conditioning_scale,
        )

    if TYPE_CHECKING:
        __call__ = forward


# diffusers reads here what a saved config may hold
ControlBranchModel.__init__.__signature__ = signature_with(  # type: ignore[attr-defined]
    inspect.signature(SpaceTimeUnet), inspect.signature(ControlBranchModel.__init__)
)
