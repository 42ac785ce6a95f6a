"""dalle2-pytorch's decoder for videos, which `dalle2` exports."""

from __future__ import annotations

from copy import copy
from typing import overload

import torch
from dalle2_pytorch import Decoder
from dalle2_pytorch.vqgan_vae import NullVQGanVAE
from torch import Tensor, nn

from make_a_video_pytorch.integrations.adapter import Adapter
from make_a_video_pytorch.ops.checks import at_least


class VideoDecoder(Decoder):
    """dalle2-pytorch's `Decoder` for images and videos, with its arguments.

    Images (b c h w) go the way of `Decoder`, to the number. Videos (b c f h w) train and sample
    likewise: outside the denoising loop a video is carried as an image of (c f) channels, so that
    its frames share one resize, one crop, one blur and one noise level.

    Args:
        unet: a SpaceTimeUnetForDalle2, or several for a cascade.
        arguments: those of `Decoder`.

    Raises:
        TypeError: if `unet` is another one.

    Example:
        >>> from make_a_video_pytorch.integrations.dalle2 import SpaceTimeUnetForDalle2
        >>> unet = SpaceTimeUnetForDalle2(dim=4, dim_mult=(1,), self_attns=(False,),
        ...     temporal_compression=(False,), resnet_block_depths=(1,), image_embed_dim=8)
        >>> decoder = VideoDecoder(unet, image_size=8, timesteps=10, sample_timesteps=2)
        >>> decoder.sample(image_embed=torch.randn(2, 8), video_frames=4).shape
        torch.Size([2, 3, 4, 8, 8])
    """

    def __init__(self, unet: Adapter | tuple[Adapter, ...], **arguments: object) -> None:
        for one in unet if isinstance(unet, tuple) else (unet,):
            if not isinstance(one, Adapter):
                raise TypeError(f"`unet` (a {type(one).__name__}) must be a SpaceTimeUnetForDalle2")
        super().__init__(unet, **arguments)
        self.frames: int | None = None  # of the video that is carried

    def forward(
        self,
        image: Tensor,
        text: Tensor | None = None,
        image_embed: Tensor | None = None,
        text_encodings: Tensor | None = None,
        unet_number: int | None = None,
        return_lowres_cond_image: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        """The loss on images or videos.

        Args:
            image: images (b c h w) or videos (b c f h w), no smaller than the U-Net's size.
            text: tokens of a text for the decoder's `clip`.
            image_embed: image embeddings (b d); by `clip` if left out, for a video that of its
                first frame, as in Make-A-Video (Singer et al. 2022).
            text_encodings: tokens (b n d).
            unet_number: which U-Net of a cascade, from 1.
            return_lowres_cond_image: return (loss, the pictures of low resolution).

        Returns:
            The loss, with the pictures of low resolution if asked for.

        Raises:
            ValueError: if a video is not of `channels`, or its frames are no multiple of the
                U-Net's `frame_multiple`.
            NotImplementedError: for a video with a VQGanVAE.
        """
        others = (text_encodings, unet_number, return_lowres_cond_image)
        out: Tensor | tuple[Tensor, Tensor | None]
        if image.ndim != 5:
            out = super().forward(image, text, image_embed, *others)
            return out
        if image.shape[1] != self.channels:
            raise ValueError(
                f"`image` (shape {tuple(image.shape)}) must have {self.channels} channels in "
                "dimension 1, as in (b c h w) and (b c f h w)"
            )
        carrier = self.carrying(image.shape[2])
        if image_embed is None and not self.unconditional and self.clip is not None:
            image_embed, _ = self.clip.embed_image(image[:, :, 0])
        out = Decoder.forward(carrier, image.flatten(1, 2), text, image_embed, *others)
        return (out[0], carrier.video(out[1])) if isinstance(out, tuple) else out

    @torch.no_grad()
    def sample(
        self,
        image: Tensor | None = None,
        *args: object,
        video_frames: int | None = None,
        **arguments: object,
    ) -> Tensor:
        """Sample images, or videos of so many frames, in [0, 1].

        Args:
            image: what a later U-Net starts from, images (b c h w) or videos (b c f h w).
            args, arguments: those of `Decoder.sample`.
            video_frames: frames to sample; images if left out and `image` is no video.

        Returns:
            Images (b c h w) or videos (b c f h w).

        Raises:
            ValueError: if `image` is not a video of `video_frames` frames.
            NotImplementedError: for a video with a VQGanVAE, or to be inpainted.
        """
        if image is not None:
            frames = image.shape[2] if image.ndim == 5 else None
            if video_frames not in (None, frames):
                raise ValueError(
                    f"`image` (shape {tuple(image.shape)}) must be a video (b c f h w) of "
                    f"`video_frames` = {video_frames}"
                )
            video_frames = frames
        sampled: Tensor
        if video_frames is None:
            sampled = super().sample(image, *args, **arguments)
            return sampled
        at_least(1, video_frames=video_frames)
        if arguments.get("inpaint_image") is not None:
            raise NotImplementedError("`inpaint_image` must be left out for videos")
        carrier = self.carrying(video_frames)
        image = None if image is None else image.flatten(1, 2)
        sampled = Decoder.sample(carrier, image, *args, **arguments)
        return carrier.video(sampled)

    def carrying(self, frames: int) -> VideoDecoder:
        """This decoder, of the same modules, for videos carried as images of (c f) channels."""
        if not all(isinstance(vae, NullVQGanVAE) for vae in self.vaes):
            raise NotImplementedError("`vae` must be left out for videos: VQGanVAE takes images")
        carrier = copy(self)
        carrier.frames = frames
        carrier.channels = self.channels * frames
        return carrier

    @overload
    def video(self, carried: Tensor) -> Tensor: ...

    @overload
    def video(self, carried: None) -> None: ...

    def video(self, carried: Tensor | None) -> Tensor | None:
        """b (c f) h w -> b c f h w, where a video is carried."""
        if carried is None or self.frames is None:
            return carried
        video: Tensor = carried.unflatten(1, (-1, self.frames))
        return video

    def p_losses(
        self, unet: nn.Module, x_start: Tensor, *args: object,
        lowres_cond_img: Tensor | None = None, **arguments: object,
    ) -> Tensor:
        """The loss of `Decoder`, on a video where one is carried."""
        lowres, x_start = self.video(lowres_cond_img), self.video(x_start)
        loss: Tensor = super().p_losses(unet, x_start, *args, lowres_cond_img=lowres, **arguments)
        return loss

    def p_sample_loop(
        self, unet: nn.Module, shape: tuple[int, ...], *,
        lowres_cond_img: Tensor | None = None, **arguments: object,
    ) -> Tensor:
        """The denoising loop of `Decoder`, over a video where one is carried."""
        if self.frames is not None:
            shape = (*shape[:2], self.frames, *shape[2:])
        lowres = self.video(lowres_cond_img)
        out: Tensor = super().p_sample_loop(unet, shape, lowres_cond_img=lowres, **arguments)
        return out if self.frames is None else out.flatten(1, 2)
