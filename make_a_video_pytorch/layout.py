"""What is an image, what is a video, and the one memory layout both live in (floor 0).

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

import enum

import torch
from torch import Tensor


class Temporal(enum.IntEnum):
    """Whether temporal parts run, as decided by the outermost module.

    A module called by a user decides from its input. What it calls in turn must not decide
    again: inside a U-Net that compresses frames, a clip may be down to one frame and is still
    a video, whose temporal parts run (and get their gradients).
    """

    OFF = 0
    ON = 1


def as_video(x: Tensor, dim: int, enable_time: bool | Temporal = True) -> tuple[Tensor, Temporal]:
    """`x` as a video in the library's layout, and whether temporal parts run on it.

    An image is a video of one frame, and a video of one frame is an image: temporal parts run on
    neither.

    Args:
        x: image (b c h w) or video (b c f h w), in any memory format.
        dim: the number of channels that the calling module takes.
        enable_time: what the caller was given; a `Temporal` is a decision already made.

    Returns:
        The video (b c f h w), laid out b f h w c in memory (no copy if it is so already), and
        the decision.

    Raises:
        TypeError: if `x` is no tensor.
        ValueError: if `x` has neither 4 nor 5 dimensions, not `dim` channels, or a size of 0 other
            than that of the batch.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"`x` (a {type(x).__name__}) must be a tensor")
    if x.ndim not in (4, 5):
        raise ValueError(
            f"`x` (shape {tuple(x.shape)}) must be an image (b c h w) or a video (b c f h w)"
        )
    if x.shape[1] != dim:
        raise ValueError(
            f"`x` (shape {tuple(x.shape)}) must have {dim} channels in dimension 1, as in "
            "(b c h w) and (b c f h w)"
        )
    if 0 in x.shape[2:]:
        raise ValueError(f"`x` (shape {tuple(x.shape)}) must have frames and pixels")
    if not isinstance(enable_time, Temporal):
        runs = bool(enable_time) and x.ndim == 5 and x.shape[2] > 1
        enable_time = Temporal.ON if runs else Temporal.OFF
    if x.ndim == 4:
        x = x.unsqueeze(2)
    pixels = x.movedim(1, -1).contiguous()
    # The strides of dimensions of size 1 are arbitrary and can send a convolution back to the
    # contiguous layout; a view of the flat memory has the ones that the shape implies.
    return pixels.flatten().view(pixels.shape).movedim(-1, 1), enable_time


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
    return images.movedim(1, -1).unflatten(0, (-1, frames)).movedim(-1, 1)


def fold_pixels(video: Tensor) -> Tensor:
    """b c f h w -> b c f (h w), a view in the library's layout."""
    return video.movedim(1, -1).flatten(2, 3).movedim(-1, 1)


def unfold_pixels(pixels: Tensor, height: int, width: int) -> Tensor:
    """b c f (h w) -> b c f h w, a view in the library's layout."""
    return pixels.movedim(1, -1).unflatten(2, (height, width)).movedim(-1, 1)


def memory_format_of(x: Tensor) -> torch.memory_format:
    """The memory format in which a caller who gave `x` expects the answer."""
    channels_last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    if x.is_contiguous(memory_format=channels_last) and not x.is_contiguous():
        return channels_last
    return torch.contiguous_format
