"""What is an image, what is a video, and which samples and frames temporal parts run on.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from make_a_video_pytorch.ops.checks import must_be_floating, must_be_multiple, must_be_tensor
from make_a_video_pytorch.ops.layout import in_layout
from make_a_video_pytorch.ops.past import Past


@dataclass(frozen=True)
class Temporal:
    """Whether, and for what, temporal parts run, as decided by the outermost module.

    A module called by a user decides from its input. What it calls in turn must not decide
    again: inside a U-Net that compresses frames, a clip may be down to one frame and is still
    a video, whose temporal parts run (and get their gradients).

    A batch may hold images, or rather clips whose frames are images, beside videos. Where the
    frames of the videos are halved, those of the images are not: the halved clips then lie in
    the first half of the frames, with padding behind them.
    """

    runs: bool                    # False: on nothing
    videos: Tensor | None = None  # (b): on the samples that are True; on all if None
    real: Tensor | None = None    # (b f): False is padding, which no temporal part may see
    past: Past | None = None      # in a stream: the frames before this chunk

    def choose(self, run: Tensor, skipped: Tensor) -> Tensor:
        """`run` (b ...) in the samples that are videos, `skipped` (b ...) in the others."""
        if self.videos is None:
            return run
        return torch.where(self.videos.view(-1, *[1] * (run.ndim - 1)), run, skipped)

    def without_padding(self, video: Tensor) -> Tensor:
        """`video` (b c f h w) with zeros for the frames that are padding."""
        return video if self.real is None else hide(video, self.real)

    def halve(self, x: Tensor, halved: Tensor) -> Tensor:
        """`halved` (b f/2 ...) of the videos, in the first half; `x` (b f ...) of the images."""
        if self.videos is None:
            return halved
        padding = halved.new_zeros(())
        padding = padding.expand(x.shape[0], x.shape[1] - halved.shape[1], *halved.shape[2:])
        return self.choose(torch.cat((halved, padding), dim=1), x)

    def halved(self, frames: int) -> Temporal:
        """The decision where `frames` have been halved."""
        real = self.real
        if real is None and self.videos is not None:
            real = torch.ones(len(self.videos), frames, dtype=torch.bool, device=self.videos.device)
        if real is not None:
            real = self.halve(real, real[:, ::2])
        return Temporal(self.runs, self.videos, real)


def as_video(
    x: Tensor,
    dim: int,
    enable_time: bool | Tensor | Temporal = True,
    frame_mask: Tensor | None = None,
) -> tuple[Tensor, Temporal]:
    """`x` as a video in the library's layout, and whether temporal parts run on it.

    An image is a video of one frame, and a video of one frame is an image: temporal parts run on
    neither. The arguments and errors are those of `decide`.

    Returns:
        The video (b c f h w), laid out b f h w c in memory (no copy if it is so already), and
        the decision.
    """
    temporal = decide(x, dim, enable_time, frame_mask)
    return video_of(x, frame_mask), temporal


def video_of(x: Tensor, frame_mask: Tensor | None) -> Tensor:
    """`x` as a video in the layout; its padding, which may hold anything, becomes zero."""
    video = in_layout(x)
    return video if frame_mask is None else hide(video, frame_mask)


def decide(
    x: Tensor, dim: int, enable_time: bool | Tensor | Temporal, frame_mask: Tensor | None
) -> Temporal:
    """Whether temporal parts run on the image or video `x`, as its caller asked.

    Args:
        x: image (b c h w) or video (b c f h w), in any memory format.
        dim: the number of channels that the calling module takes.
        enable_time: what the caller was given: one bool, or one for each sample (b); a `Temporal`
            is a decision already made.
        frame_mask: what the caller was given: False (b f) for frames that are padding, which
            follow the real ones.

    Raises:
        TypeError: if `x` or `frame_mask` is no tensor, or `enable_time` neither bool nor tensor.
        ValueError: if `x` is of integers or bools, has neither 4 nor 5 dimensions, not `dim`
            channels, or a size of 0 other than that of the batch, if `enable_time` or
            `frame_mask` is a tensor of another shape or dtype, or if `frame_mask` has padding
            before a frame.
    """
    must_be_floating(x=x)
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
    if isinstance(enable_time, Temporal):
        return enable_time
    frames = x.shape[2] if x.ndim == 5 else 1
    videos = None
    if isinstance(enable_time, Tensor):
        must_be_mask("enable_time", enable_time, "(b)", (x.shape[0],))
        videos, enable_time = enable_time.to(x.device), True
    if not isinstance(enable_time, bool):
        raise TypeError(
            f"`enable_time` (a {type(enable_time).__name__}) must be a bool or a bool tensor (b)"
        )
    if frame_mask is not None:
        must_be_mask("frame_mask", frame_mask, "(b f)", (x.shape[0], frames))
        must_come_last(frame_mask)
        frame_mask = frame_mask.to(x.device)
        several = frame_mask.sum(1) > 1  # a clip of one frame is an image
        videos = several if videos is None else videos & several
    if not enable_time or frames == 1:
        return Temporal(False)
    return Temporal(True, videos, frame_mask)


def must_come_last(frame_mask: Tensor) -> None:
    """Raise a ValueError where padding (False) is followed by a frame, but not in a graph."""
    if torch.compiler.is_compiling():
        return
    misplaced = (frame_mask[:, 1:] & ~frame_mask[:, :-1]).any(1).nonzero()
    if len(misplaced):
        raise ValueError(
            f"`frame_mask` (={frame_mask[misplaced[0, 0]].tolist()} for sample "
            f"{misplaced[0, 0].item()}) must have all its False at the end of a clip"
        )


def must_be_frames(
    frames: int, frame_mask: Tensor | None, enable_time: bool | Tensor | Temporal, multiple: int
) -> None:
    """Raise a ValueError for clips whose `frames` compression by `multiple` does not divide.

    Padded clips are not looked at while compiling, since a graph cannot depend on values.
    """
    must_be_multiple(multiple, "the product of `temporal_compression`", frames=frames)
    if frame_mask is None or torch.compiler.is_compiling():
        return
    lengths = frame_mask.sum(1)
    if isinstance(enable_time, Tensor):
        lengths = lengths[enable_time.to(lengths.device)]
    for length in lengths[lengths % multiple != 0].tolist():
        raise ValueError(
            f"`frame_mask` (with a clip of {length} frames) must leave clips whose frames are "
            f"divisible by {multiple}, the product of `temporal_compression`"
        )


def must_be_mask(name: str, mask: Tensor, letters: str, shape: tuple[int, ...]) -> None:
    """Raise an error that names a `mask` that is not one of this `shape`."""
    must_be_tensor(**{name: mask})
    if mask.dtype != torch.bool or mask.shape != shape:
        raise ValueError(
            f"`{name}` (shape {tuple(mask.shape)}, {mask.dtype}) must be a bool tensor {letters} = "
            f"{shape}"
        )


def as_bools(**argument: Tensor) -> Tensor:
    """A mask of bools, or of numbers that are 0 or 1 as tokenizers give it, as bools.

    Raises:
        TypeError: if it is no tensor.
        ValueError: if it holds another number, as a mask that is added to scores does, in which
            0 is what is seen. While compiling it is not looked at.
    """
    must_be_tensor(**argument)
    ((name, mask),) = argument.items()
    if mask.dtype == torch.bool:
        return mask
    if not torch.compiler.is_compiling():
        other = mask[(mask != 0) & (mask != 1)]
        if len(other):
            raise ValueError(
                f"`{name}` (with {other[0].item()}) must be of bools, or hold only 0, for tokens "
                "that are not to be seen, and 1"
            )
    return mask > 0  # unseen, a mask that is added to scores is never taken for its opposite


def hide(video: Tensor, frame_mask: Tensor) -> Tensor:
    """`video` (b c f h w) with zeros where `frame_mask` (b f) is False, whatever was there."""
    padding = ~frame_mask.to(video.device)[..., None, None, None]
    # in the order in memory, so that a batch of one keeps the strides of the layout
    return video.movedim(1, -1).masked_fill(padding, 0).movedim(-1, 1)
