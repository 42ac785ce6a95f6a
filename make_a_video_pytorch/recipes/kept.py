"""Frames to keep while others are filled in."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from make_a_video_pytorch.ops.checks import at_least, typechecked


@typechecked
def every(frames: int, step: int) -> Tensor:
    """Keep 0, `step`, 2 `step`, ... of `frames`, to have more frames per second: bool (f).

    Example:
        >>> every(76, 5).sum()  # Make-A-Video (Singer et al. 2022) fills in 16 frames to 76
        tensor(16)
    """
    at_least(1, frames=frames, step=step)
    return torch.arange(frames) % step == 0


@typechecked
def head(frames: int, count: int = 1) -> Tensor:
    """Keep the first `count` of `frames`; from one of them a picture is animated: bool (f).

    Example:
        >>> head(5, 2)
        tensor([ True,  True, False, False, False])
    """
    at_least(1, frames=frames, count=count)
    return torch.arange(frames) < count


@typechecked
def tail(frames: int, count: int = 1) -> Tensor:
    """Keep the last `count` of `frames`, to find out what led to them: bool (f).

    Example:
        >>> tail(5, 2)
        tensor([False, False, False,  True,  True])
    """
    return head(frames, count).flip(0)


@typechecked
def at(frames: int, indices: Iterable[int]) -> Tensor:
    """Keep those of `frames` with these `indices`; negative ones count from the end: bool (f).

    Example:
        >>> at(5, [0, -1])
        tensor([ True, False, False, False,  True])
    """
    at_least(1, frames=frames)
    kept = torch.zeros(frames, dtype=torch.bool)
    for index in indices:
        if isinstance(index, bool):  # a mask already, or a slip
            raise TypeError(f"`indices` (={index}) must be ints")
        if not -frames <= index < frames:
            raise ValueError(f"`indices` (={index}) must be from {-frames} to {frames - 1}")
        kept[index] = True
    return kept


def kept_frames(video: Tensor, kept: Tensor) -> Tensor:
    """The condition to fill in frames, or pixels, by: the kept ones, zeros, and the mask.

    Four channels for a picture of three, which go in as `cond_images` of a U-Net grown by
    `unet.grow(cond_channels=4)` (Make-A-Video, section 3.3): (b c+1 f h w).

    Args:
        video: (b c f h w); what is in the other frames does not matter.
        kept: True for the frames to keep, bool (f) or (b f), or for pixels, (b f h w).

    Raises:
        ValueError: if `video` is no video, or `kept` not of bools or of another shape.

    Example:
        >>> kept_frames(torch.ones(2, 3, 5, 8, 8), every(5, 4))[0, :, :, 0, 0].tolist()[2:]
        [[1.0, 0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0, 1.0]]
    """
    if video.ndim != 5:
        raise ValueError(f"`video` (shape {tuple(video.shape)}) must be (b c f h w)")
    batch, _, frames, height, width = video.shape
    whole = batch, frames, height, width
    if kept.dtype != torch.bool or kept.shape not in ((frames,), whole[:2], whole):
        raise ValueError(
            f"`kept` (shape {tuple(kept.shape)}, {kept.dtype}) must be a bool tensor (f), (b f) or "
            f"(b f h w), with (b f h w) = {whole}"
        )
    mask = kept if kept.ndim == 4 else kept.expand(batch, frames)[..., None, None].expand(whole)
    mask = mask.to(video.device)[:, None]
    return torch.cat((video.masked_fill(~mask, 0), mask.to(video.dtype)), dim=1)
