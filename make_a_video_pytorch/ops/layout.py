"""The one memory layout that images and videos live in.

Letters: b batch, c channels, f frames, h height, w width.

Shapes at every public boundary are b c h w and b c f h w. In memory everything is kept in the
order b f h w c (torch's `channels_last_3d`), because in that order each of these is a view:

    spatial convolution     (b f) c h w, channels_last
    temporal convolution    b c f (h w), channels_last, kernel (k, 1)
    norms, projections      b f h w c, last dim
    spatial attention       (b f) (h w) c
    temporal attention      b f (h w) c, the pixels folded into the heads
"""

from __future__ import annotations

import torch
from torch import Tensor


def in_layout(x: Tensor) -> Tensor:
    """`x`, an image (b c h w) or a video (b c f h w) in any memory format, as (b c f h w).

    It is laid out b f h w c in memory, without a copy if it is so already.
    """
    if x.ndim == 4:
        x = x.unsqueeze(2)
    pixels = x.movedim(1, -1).contiguous()
    # The strides of dimensions of size 1 are arbitrary and can send a convolution back to the
    # contiguous layout; a view of the flat memory has the ones that the shape implies.
    return pixels.flatten().view(pixels.shape).movedim(-1, 1)


def as_given(video: Tensor, x: Tensor) -> Tensor:
    """`video` (b c f h w) with the rank of `x`: an image loses its single frame again."""
    return video.squeeze(2) if x.ndim == 4 else video


# These go through the order in memory, where all dimensions merge: flattening a permuted shape
# gives a batch of one a stride that convolutions take for another memory format.


def fold_frames(video: Tensor) -> Tensor:
    """b c f h w -> (b f) c h w, a view in the library's layout."""
    return video.movedim(1, -1).flatten(0, 1).movedim(-1, 1)


def unfold_frames(images: Tensor, frames: int) -> Tensor:
    """(b f) c h w -> b c f h w, a view in the library's layout."""
    pixels: Tensor = images.movedim(1, -1).unflatten(0, (-1, frames))
    return pixels.movedim(-1, 1)


def fold_pixels(video: Tensor) -> Tensor:
    """b c f h w -> b c f (h w), a view in the library's layout."""
    return video.movedim(1, -1).flatten(2, 3).movedim(-1, 1)


def unfold_pixels(pixels: Tensor, height: int, width: int) -> Tensor:
    """b c f (h w) -> b c f h w, a view in the library's layout."""
    video: Tensor = pixels.movedim(1, -1).unflatten(2, (height, width))
    return video.movedim(-1, 1)


def is_planar(images: Tensor) -> bool:
    """Whether `images` (b c h w) lie in memory channel by channel, and in no other order."""
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return images.is_contiguous() and not channels_last


def memory_format_of(x: Tensor) -> torch.memory_format:
    """The memory format in which a caller who gave `x` expects the answer."""
    channels_last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    if x.is_contiguous(memory_format=channels_last) and not x.is_contiguous():
        return channels_last
    return torch.contiguous_format
