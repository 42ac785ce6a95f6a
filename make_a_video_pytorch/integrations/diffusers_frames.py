"""The frames of a pipeline: those that are kept, and latents of a VAE.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Generator, Tensor


class Kept(NamedTuple):
    """Frames that are kept."""

    clean: Tensor  # (b c f h w), in latents
    kept: Tensor   # bool (b f): which of them


def count_of(latents: Tensor | None, image: object, video: object) -> int:
    """For how many videos these are, where nothing else says it."""
    for given, rank in ((latents, 5), (video, 5), (image, 4)):
        if isinstance(given, Tensor) and given.ndim == rank:
            return len(given)
    return len(image) if isinstance(image, (list, tuple)) else 1


def starting_noise(
    pipeline: DiffusionPipeline,
    shape: tuple[int, int, int, int, int],
    latents: Tensor | None,
    generator: Generator | list[Generator] | None,
) -> Tensor:
    """The noise of this `shape` (b c f h w) that sampling starts from, as the scheduler scales it.

    Raises:
        ValueError: if `latents`, which stand for it, are of another shape.
    """
    device, dtype = pipeline._execution_device, pipeline.unet.dtype
    if latents is None:
        noise: Tensor = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
    elif latents.shape != shape:
        raise ValueError(
            f"`latents` (shape {tuple(latents.shape)}) must be (b c f h w) = {shape}, as the other "
            "arguments say"
        )
    else:
        noise = latents.to(device, dtype)
    return noise * getattr(pipeline.scheduler, "init_noise_sigma", 1.0)


def frames_to_keep(
    pipeline: DiffusionPipeline,
    image: object,
    video: object,
    kept: Tensor | None,
    shape: tuple[int, int, int, int, int],
) -> Kept | None:
    """The frames to keep, in latents of this `shape` (b c f h w), if there are any.

    Raises:
        ValueError: if they are given twice, incompletely, or in another number.
    """
    batch, _, frames, height, width = shape
    if image is None and video is None and kept is None:
        return None
    if image is not None and (video is not None or kept is not None):
        raise ValueError("`image` must be left out, if `video` and `kept` are given")
    if image is not None:
        kept = torch.arange(frames) < 1
    if kept is None or (image is None and video is None):
        raise ValueError("`video` and `kept` must be given together")
    factor, processor = pipeline.vae_scale_factor, pipeline.video_processor
    size = {"height": height * factor, "width": width * factor}
    if image is not None:
        pixels = processor.preprocess(image, **size).unsqueeze(2)
        pixels = F.pad(pixels, (0, 0, 0, 0, 0, frames - 1))
    else:
        pixels = processor.preprocess_video(video, **size)
    if pixels.shape[2] != frames or len(pixels) not in (1, batch):
        raise ValueError(
            f"`video` (as (b c f h w): {tuple(pixels.shape)}) must have b = {batch} and f = "
            f"{frames}, as `num_frames` says"
        )
    if kept.dtype != torch.bool or kept.shape not in ((frames,), (batch, frames)):
        raise ValueError(
            f"`kept` (shape {tuple(kept.shape)}, {kept.dtype}) must be a bool tensor (f) = "
            f"{(frames,)} or (b f) = {(batch, frames)}"
        )
    device, dtype = pipeline._execution_device, pipeline.unet.dtype
    clean = encoded(pipeline, pixels.to(device, dtype)).expand(batch, -1, -1, -1, -1)
    return Kept(clean, kept.to(device).expand(batch, frames))


def put_back(keep: Kept, latents: Tensor) -> Tensor:
    """`latents` (b c f h w) with the frames that are kept as they are to be."""
    return torch.where(keep.kept[:, None, :, None, None], keep.clean.to(latents), latents)


def encoded(pipeline: DiffusionPipeline, videos: Tensor) -> Tensor:
    """`videos` (b c f h w) in [-1, 1] as latents, those of their frames, if there is a VAE."""
    vae = pipeline.vae
    if vae is None:
        return videos
    frames = videos.transpose(1, 2)
    latents: Tensor = vae.encode(frames.flatten(0, 1).to(vae.dtype)).latent_dist.mode()
    latents = (latents - shift_of(vae)) * vae.config.scaling_factor
    clips: Tensor = latents.unflatten(0, frames.shape[:2])
    return clips.transpose(1, 2).to(videos.dtype)


def decoded(pipeline: DiffusionPipeline, latents: Tensor) -> Tensor:
    """What `encoded` made latents of."""
    vae = pipeline.vae
    if vae is None:
        return latents
    frames = latents.transpose(1, 2)
    scaled = frames.flatten(0, 1).to(vae.dtype) / vae.config.scaling_factor
    pixels: Tensor = vae.decode(scaled + shift_of(vae)).sample
    videos: Tensor = pixels.unflatten(0, frames.shape[:2])
    return videos.transpose(1, 2)


def shift_of(vae: ModelMixin) -> float:
    """What is taken from latents of a `vae` before they are scaled."""
    return getattr(vae.config, "shift_factor", None) or 0.0
