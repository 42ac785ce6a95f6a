"""Clips at a frame rate."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from make_a_video_pytorch.ops.checks import at_least, typechecked
from make_a_video_pytorch.recipes.noise import device_of


@typechecked
def sample_fps(
    count: int, progress: float | int, *, lowest: float | int = 1, highest: float | int = 30,
    concentration: int = 9, generator: Generator | None = None,
) -> Tensor:
    """Frames per second to train `count` clips at: (count), from high ones to low ones.

    Make-A-Video (section 3.4) draws them from a beta distribution and goes from little motion to
    much as training goes on. Here it is Beta(k, n + 1 - k) with n = `concentration` and k from n
    down to 1, stretched to [`lowest`, `highest`].

    Args:
        count: how many.
        progress: how much of the training is done, from 0 to 1.
        lowest: the least fps.
        highest: the most fps.
        concentration: how narrowly they lie about their mean, at least 1.
        generator: where randomness comes from.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> early, late = sample_fps(99, 0.0), sample_fps(99, 1.0)
        >>> early.shape, early.mean() > late.mean()
        (torch.Size([99]), tensor(True))
    """
    at_least(1, count=count, concentration=concentration)
    if not 0 <= progress <= 1:
        raise ValueError(f"`progress` (={progress}) must be between 0 and 1")
    if not 0 < lowest <= highest:
        raise ValueError(
            f"`lowest` (={lowest}) must be positive and at most `highest` (={highest})"
        )
    # the k-th smallest of n uniform numbers is distributed so
    uniform = torch.rand(count, concentration, generator=generator, device=device_of(generator))
    k = concentration - round(progress * (concentration - 1))
    return lowest + (highest - lowest) * uniform.kthvalue(k).values


@typechecked
def sample_clip(
    num_frames: int, source_fps: float | int, frames: int, fps: float | int,
    generator: Generator | None = None,
) -> tuple[Tensor, float]:
    """Which frames of a video make a clip at about `fps`, and the fps that it really has.

    The start is drawn evenly. What a video cannot give is met as nearly as it can: no frame is
    shown twice, and a clip that would last longer than the video is sped up less.

    Args:
        num_frames: frames of the video.
        source_fps: its frames per second.
        frames: frames of the clip.
        fps: frames per second that the clip is to have.
        generator: where randomness comes from.

    Returns:
        The indices (frames) on the CPU, rising, and the clip's frames per second, to condition on.

    Raises:
        ValueError: if the video has fewer frames than the clip, or a rate is not positive.

    Example:
        >>> indices, fps = sample_clip(num_frames=60, source_fps=30, frames=4, fps=10)
        >>> indices - indices[0], fps
        (tensor([0, 3, 6, 9]), 10.0)
    """
    at_least(1, num_frames=num_frames, frames=frames)
    if not (0 < source_fps < math.inf and 0 < fps < math.inf):
        raise ValueError(f"`source_fps` (={source_fps}) and `fps` (={fps}) must be positive")
    if frames > num_frames:
        raise ValueError(f"`frames` (={frames}) must be at most `num_frames` (={num_frames})")
    longest = (num_frames - 1) / max(frames - 1, 1)
    step = max(min(source_fps / fps, longest), 1.0)
    # a little more, so that rounding does not take a whole frame away
    offsets = (torch.arange(frames, dtype=torch.float64) * step + 1e-6).long()
    starts = num_frames - int(offsets[-1])
    start = torch.randint(starts, (), generator=generator, device=device_of(generator))
    return start.cpu() + offsets, source_fps / step
