"""The space-time U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from make_a_video_pytorch.modules.attention import SpatioTemporalAttention
from make_a_video_pytorch.modules.conv import PseudoConv3d
from make_a_video_pytorch.modules.resnet import ResnetBlock
from make_a_video_pytorch.modules.stream import Streamable
from make_a_video_pytorch.ops.checks import at_least, must_be_multiple, one_per_stage, typechecked
from make_a_video_pytorch.ops.decision import Temporal, as_bools, as_video, must_be_frames
from make_a_video_pytorch.unet.conditions import Conditioned
from make_a_video_pytorch.unet.growth import Growable
from make_a_video_pytorch.unet.stages import Along, Staged


class SpaceTimeUnet(Conditioned, Staged, Growable, Streamable[Tensor]):
    """A diffusion U-Net for images and videos.

    Make-A-Video (Singer et al. 2022, section 3.2): the U-Net of an image diffusion model whose
    convolutions and attentions are followed by ones over frames. Those start as the identity, so
    that at first `unet(video)` equals `unet(video, enable_time=False)`, bit for bit in fp32 on a
    CPU. With `temporal_compression` frames are at first averaged on the way down and repeated on
    the way up, and it is a still clip that gives the image's output in every frame.

    Every condition is optional twice: what the U-Net is not built for costs nothing, and what it
    is built for may be left out of a call, as for the null condition of classifier-free guidance.
    All enter by weights that are zero at first.

    Shapes: image (b channels h w) or video (b channels f h w) -> (b channels_out [f] h w), in the
    memory format of what was given.

    Args:
        dim: features at full resolution.
        channels: channels of the picture.
        dim_mult: features of each stage, as multiples of `dim`; one entry a stage, as in the
            next three arguments.
        self_attns: whether a stage has attention; the middle always has.
        temporal_compression: whether a stage halves the frames on the way down.
        resnet_block_depths: residual blocks in a stage.
        attn_dim_head: width of an attention head.
        attn_heads: number of attention heads.
        condition_on_timestep: take a diffusion timestep.
        attn_pos_bias: continuous relative position bias in attention.
        flash_attn: fused attention kernels; False is the explicit softmax, which can be
            differentiated twice.
        causal_time_attn: attention over frames sees no later ones.
        attn_rotary: rotary positions in attention, axial in space.
        causal: no temporal part sees later frames; excludes `temporal_compression`.
        channels_out: channels predicted, twice as many for a learned variance; `channels` if
            None.
        cond_channels: channels of `cond_images`, which are concatenated to `x`.
        cond_dim: width of the vector `cond`, added to the timestep's embedding; none if None.
        context_dim: features of the tokens of `context`, attended to wherever there is
            attention; none if None.
        condition_on_fps: take the frames per second, which have no effect on images.
        condition_on_noise_level: take how much noise `cond_images` have (Ho et al. 2021).
        temporal_window: frames that attention sees on either side, in each stage; all if None.
        gradient_checkpointing: compute blocks again in backward instead of keeping them.

    Attributes:
        config: the constructor's arguments, fit for JSON: `SpaceTimeUnet(**unet.config)` has the
            same shapes.
        image_size_multiple: height and width must be multiples of it, two to the number of stages.
        frame_multiple: the frames of a video must be multiples of it, two to the number of
            stages with `temporal_compression`.

    Example:
        >>> unet = SpaceTimeUnet(dim=8, attn_dim_head=8, attn_heads=2)
        >>> unet(torch.randn(4, 3, 32, 32), 500).shape
        torch.Size([4, 3, 32, 32])
        >>> unet(torch.randn(2, 3, 8, 32, 32), torch.tensor([250, 999])).shape
        torch.Size([2, 3, 8, 32, 32])
    """

    @typechecked
    def __init__(
        self,
        *,
        dim: int,
        channels: int = 3,
        dim_mult: Sequence[int] = (1, 2, 4, 8),
        self_attns: Sequence[bool | int] = (False, False, False, True),
        temporal_compression: Sequence[bool | int] = (False, True, True, True),
        resnet_block_depths: Sequence[int] = (2, 2, 2, 2),
        attn_dim_head: int = 64,
        attn_heads: int = 8,
        condition_on_timestep: bool = True,
        attn_pos_bias: bool = True,
        flash_attn: bool = True,
        causal_time_attn: bool = False,
        attn_rotary: bool = False,
        causal: bool = False,
        channels_out: int | None = None,
        cond_channels: int = 0,
        cond_dim: int | None = None,
        context_dim: int | None = None,
        condition_on_fps: bool = False,
        condition_on_noise_level: bool = False,
        temporal_window: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            dim, condition_on_timestep, cond_dim, condition_on_fps, cond_channels,
            condition_on_noise_level,
        )  # fmt: skip
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.config = {k: tuple(v) if isinstance(v, Sequence) else v for k, v in given.items()}
        channels_out = channels if channels_out is None else channels_out
        at_least(
            1,
            channels=channels,
            channels_out=channels_out,
            attn_dim_head=attn_dim_head,
            attn_heads=attn_heads,
        )
        one_per_stage(
            dim_mult,
            self_attns=self_attns,
            temporal_compression=temporal_compression,
            resnet_block_depths=resnet_block_depths,
        )
        if causal and any(temporal_compression):
            raise ValueError(
                f"`temporal_compression` (={tuple(temporal_compression)}) must be all False with "
                "`causal`: a compressed frame holds a later one"
            )

        self.channels = channels
        self.channels_out = channels_out
        self.gradient_checkpointing = gradient_checkpointing
        self.compresses = tuple(map(bool, temporal_compression))
        self.frame_multiple: int = 2 ** sum(self.compresses)
        self.image_size_multiple: int = 2 ** len(dim_mult)

        self.dims = dims = [dim, *(mult * dim for mult in dim_mult)]
        attention = partial(
            SpatioTemporalAttention,
            dim_head=attn_dim_head,
            heads=attn_heads,
            pos_bias=attn_pos_bias,
            flash=flash_attn,
            causal_time_attn=causal or causal_time_attn,
            rotary=attn_rotary,
            temporal_window=temporal_window,
            context_dim=context_dim,
        )
        resnet = partial(ResnetBlock, causal=causal)
        self.build_stages(dims, self_attns, resnet_block_depths, resnet, attention)
        dim_in = channels + cond_channels
        self.conv_in = PseudoConv3d(dim_in, dim, 7, temporal_kernel_size=3, causal=causal)
        self.conv_out = PseudoConv3d(dim, channels_out, 3, temporal_kernel_size=3, causal=causal)
        with torch.no_grad():
            self.conv_in.spatial_conv.weight[:, channels:].zero_()

    def forward(
        self,
        x: Tensor,
        timestep: Tensor | float | None = None,
        enable_time: bool | Tensor | Temporal = True,
        *,
        cond_images: Tensor | None = None,
        cond: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        fps: Tensor | float | None = None,
        noise_level: Tensor | float | None = None,
        frame_mask: Tensor | None = None,
        features: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Predict from a noisy image or video; with `enable_time=False`, frame by frame.

        Args:
            x: image (b channels h w) or video (b channels f h w).
            timestep: the diffusion step, one number, (b), or (b f) for a noise level of each
                frame, of any dtype; given if and only if the U-Net was built with
                `condition_on_timestep`.
            enable_time: run the temporal parts on a video of more than one frame: one bool, or
                one for each sample (b), as for a batch of videos and of clips of images.
            cond_images: pictures (b cond_channels [f] h w) beside `x`: a video of low resolution
                resized, frames to be kept, an earlier prediction. One picture stands for all
                frames. Zeros if left out.
            cond: a vector (b cond_dim), such as an image embedding. Zeros if left out.
            context: tokens (b n context_dim), such as a text's.
            context_mask: False or 0 (b n) for tokens that are not to be seen.
            fps: frames per second of the clip, one number or (b); on images it has no effect.
            noise_level: the timestep that `cond_images` have noise of, one number or (b).
            frame_mask: False (b f) for frames that are padding at the end of a shorter clip,
                whose length is a multiple of `frame_multiple`. They come out as zeros.
            features: what a `ControlBranch` gives: tensors (b c [f] h w), one to be added to each
                skip, in the order of the way down, and the last to the middle's output; f is
                that of the stage, and one picture stands for all frames.

        Raises:
            ValueError: if `x` has another rank, other channels or sizes that are no multiples, or
                another argument is missing, of another shape or not what the U-Net was built for.
        """
        video, along = self.enter(
            x, timestep, enable_time, frame_mask, cond_images=cond_images, cond=cond,
            context=context, context_mask=context_mask, fps=fps, noise_level=noise_level,
        )  # fmt: skip
        # no name here for what goes in, so that its memory is free on the way down
        video = self.down(self.conv_in(video, along.temporal), along)
        video = self.mid(video, along)
        if features is not None:
            video = along.with_features(video, features)
        video = self.up(video, along)
        return self.out(video, along, x, frame_mask)

    if TYPE_CHECKING:
        __call__ = forward

    def enter(
        self,
        x: Tensor,
        timestep: Tensor | float | None,
        enable_time: bool | Tensor | Temporal,
        frame_mask: Tensor | None,
        *,
        cond_images: Tensor | None,
        cond: Tensor | None,
        context: Tensor | None,
        context_mask: Tensor | None,
        fps: Tensor | float | None,
        noise_level: Tensor | float | None,
    ) -> tuple[Tensor, Along]:
        """`x` and its pictures as a video (b c f h w), for `conv_in`, and what travels along."""
        video, temporal = as_video(x, self.channels, enable_time, frame_mask)
        frames, height, width = video.shape[2:]
        must_be_multiple(
            self.image_size_multiple, "two to the number of stages", height=height, width=width
        )
        if temporal.runs:
            must_be_frames(frames, frame_mask, enable_time, self.frame_multiple)
        if self.frame_multiple > 1 and not isinstance(enable_time, Tensor):
            # as no clip is of one frame, no sample is an image
            temporal = Temporal(temporal.runs, None, temporal.real)
        emb = self.embed(timestep, cond, fps, noise_level, video, temporal)
        if context_mask is not None:
            context_mask = as_bools(context_mask=context_mask)  # once, and not in every block
        along = Along(temporal, emb, {"context": context, "context_mask": context_mask}, [], [])
        video = self.beside(video, cond_images, frame_mask)
        return video, along
