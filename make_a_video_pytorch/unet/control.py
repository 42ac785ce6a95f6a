"""Control of a U-Net by pictures: a ControlNet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from make_a_video_pytorch.modules.conv import PseudoConv3d
from make_a_video_pytorch.modules.stream import Streamable
from make_a_video_pytorch.ops.checks import at_least, is_one_of, typechecked
from make_a_video_pytorch.ops.decision import Temporal
from make_a_video_pytorch.ops.layout import as_given, in_layout
from make_a_video_pytorch.ops.parameters import zero_init
from make_a_video_pytorch.unet.conditions import as_pictures
from make_a_video_pytorch.unet.stages import mean_of_pairs
from make_a_video_pytorch.unet.unet import SpaceTimeUnet


class ControlBranch(nn.Module, Streamable[list[Tensor]]):
    """A copy of a U-Net's way down and middle, which tells the U-Net what pictures show.

    A ControlNet (Zhang et al. 2023, section 3) over frames: the pictures, such as outlines or
    depths, enter by a convolution, and what each part of the way down makes of them leaves by
    another, to be added to the U-Net's skips and to its middle. Both are zero at first, with
    temporal parts that are the identity, so that at first nothing changes, bit for bit. The U-Net
    stays as it is: freeze it, and train the branch.

    Args:
        cond_channels: channels of the pictures.
        unet: the arguments of the SpaceTimeUnet that is controlled, but for its `cond_channels`:
            the branch does not see what the U-Net itself is shown.

    Attributes:
        config: the constructor's arguments, fit for JSON.

    Raises:
        TypeError: if an argument is of a wrong type, or unknown.
        ValueError: if a value is out of range.

    Example:
        >>> unet = SpaceTimeUnet(dim=8, attn_dim_head=8, attn_heads=2)
        >>> branch = ControlBranch.from_unet(unet, cond_channels=1)
        >>> x, outlines = torch.randn(1, 3, 8, 16, 16), torch.rand(1, 1, 8, 16, 16)
        >>> features = branch(x, 500, cond_images=outlines)
        >>> torch.equal(unet(x, 500, features=features), unet(x, 500))  # until it is trained
        True
    """

    @typechecked
    def __init__(self, *, cond_channels: int = 3, **unet: object) -> None:
        super().__init__()
        at_least(1, cond_channels=cond_channels)
        self.cond_channels = cond_channels
        self.unet = SpaceTimeUnet(**unet)  # type: ignore[arg-type]  # which it checks itself
        self.config = {**self.unet.config, "cond_channels": cond_channels}
        causal = self.unet.config["causal"] is True
        dims = self.unet.dims
        self.cond_in = zero_conv(cond_channels, dims[0], 3, causal)
        widths = [dim for dim in dims[1:] for _ in range(2)]
        self.outs = nn.ModuleList(zero_conv(dim, dim, 1, causal) for dim in [*widths, dims[-1]])
        for part in ("ups", "conv_out"):  # the way up is the U-Net's own
            delattr(self.unet, part)

    @classmethod
    def from_unet(cls, unet: SpaceTimeUnet, *, cond_channels: int = 3) -> ControlBranch:
        """A branch for `unet`, with a copy of its weights.

        Args:
            unet: trained, as a rule.
            cond_channels: channels of the pictures.

        Raises:
            ValueError: if something is wrapped around a part of `unet`.
        """
        build: Callable[..., ControlBranch] = cls
        branch = build(**{**unet.config, "cond_channels": cond_channels})
        like = next(unet.parameters())
        branch.to(like.device, like.dtype).train(unet.training)
        weights, own = unet.state_dict(), branch.unet.state_dict()
        for name in sorted(own.keys() - weights.keys()):
            raise ValueError(f"`{name}` is hidden by what is wrapped around it: take it off first")
        seen = weights["conv_in.spatial_conv.weight"][:, : unet.channels]
        weights["conv_in.spatial_conv.weight"] = seen  # of `x`, not of the U-Net's own pictures
        branch.unet.load_state_dict({name: weights[name] for name in own})
        return branch

    def forward(
        self,
        x: Tensor,
        timestep: Tensor | float | None = None,
        enable_time: bool | Tensor | Temporal = True,
        *,
        cond_images: Tensor,
        cond: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        fps: Tensor | float | None = None,
        noise_level: Tensor | float | None = None,
        frame_mask: Tensor | None = None,
        scale: Tensor | float = 1.0,
    ) -> list[Tensor]:
        """The `features` for the U-Net, which is given the same arguments.

        Args:
            x: image (b channels h w) or video (b channels f h w).
            timestep: as the U-Net's, and so are the next ones.
            enable_time: run the temporal parts: one bool, or one for each sample (b).
            cond_images: pictures (b cond_channels [f] h w); one stands for all frames.
            cond: a vector (b cond_dim).
            context: tokens (b n context_dim).
            context_mask: False or 0 (b n) for tokens that are not to be seen.
            fps: frames per second.
            noise_level: of the U-Net's own `cond_images`.
            frame_mask: False (b f) for frames that are padding.
            scale: how strongly to control: one number, or one of each frame, (f) or (b f).

        Returns:
            One tensor (b c [f] h w) for each skip of the U-Net and one for its middle. Those of
            several branches are added up, one by one.

        Raises:
            TypeError: if `cond_images` is no tensor.
            ValueError: as the U-Net's, or if `cond_images` or `scale` is of another shape.
        """
        video, along = self.unet.enter(
            x, timestep, enable_time, frame_mask, cond_images=None, cond=cond, context=context,
            context_mask=context_mask, fps=fps, noise_level=noise_level,
        )  # fmt: skip
        pictures = in_layout(as_pictures(cond_images, self.cond_channels, video, frame_mask))
        strength = per_frame("scale", scale, video)
        video = self.unet.conv_in(video, along.temporal) + self.cond_in(pictures, along.temporal)
        video = self.unet.down(video, along)
        made = [*along.skips, self.unet.mid(video, along)]
        stages = [*along.levels, (along.temporal, along.emb)]
        features = []
        for index, (skip, out) in enumerate(zip(made, self.outs, strict=True)):
            stage = index // 2
            if stage > 0 and index % 2 == 0 and self.unet.compresses[stage - 1]:
                before, _ = stages[stage - 1]
                strength = mean_of_pairs(before, strength) if before.runs else strength
            temporal, _ = stages[stage]
            feature = out(skip, temporal) * strength[:, None, :, None, None]
            features.append(as_given(feature, x))
        return features

    if TYPE_CHECKING:
        __call__ = forward


def zero_conv(dim: int, dim_out: int, kernel_size: int, causal: bool) -> PseudoConv3d:
    """A pseudo-3D convolution that is zero at first, and over frames the identity."""
    conv = PseudoConv3d(dim, dim_out, kernel_size, temporal_kernel_size=3, causal=causal)
    zero_init(conv.spatial_conv)
    return conv


def per_frame(name: str, value: Tensor | float, video: Tensor) -> Tensor:
    """A number, or one of each frame, as (b f)."""
    batch, frames = video.shape[0], video.shape[2]
    numbers = torch.as_tensor(value, dtype=video.dtype, device=video.device)
    if not is_one_of(numbers.shape, (), (frames,), (batch, frames)):
        raise ValueError(
            f"`{name}` (shape {tuple(numbers.shape)}) must be one number, (f) = {(frames,)} or "
            f"(b f) = {(batch, frames)}"
        )
    return numbers.expand(batch, frames)
