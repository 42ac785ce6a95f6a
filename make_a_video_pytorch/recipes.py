"""What a training loop around a video U-Net easily gets wrong.

Frames to keep and to fill in, clips at a frame rate, and noise that frames share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Generator, Tensor

from make_a_video_pytorch.ops.checks import at_least, typechecked

# Frame interpolation: Make-A-Video (Singer et al. 2022), section 3.3


@typechecked
def every(frames: int, step: int) -> Tensor:
    """Which of `frames` to keep for a factor of `step`: 0, step, 2 step, ...; bool (f).

    Make-A-Video fills in 16 frames to 76 = 15 * 5 + 1, which is `every(76, 5)`.
    """
    at_least(1, frames=frames, step=step)
    return torch.arange(frames) % step == 0


@typechecked
def head(frames: int, count: int = 1) -> Tensor:
    """Keep the first `count` of `frames`; from one of them a picture is animated: bool (f)."""
    at_least(1, frames=frames, count=count)
    return torch.arange(frames) < count


@typechecked
def tail(frames: int, count: int = 1) -> Tensor:
    """Keep the last `count` of `frames`, to find out what led to them: bool (f)."""
    return head(frames, count).flip(0)


@typechecked
def at(frames: int, indices: Iterable[int]) -> Tensor:
    """Keep the frames with these `indices`; negative ones count from the end: bool (f)."""
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
    """The condition to fill in frames by: the kept ones, zeros for the others, and the mask.

    Four channels for a picture of three, which go in as `cond_images` of a U-Net grown by
    `unet.grow(cond_channels=4)` (Make-A-Video, section 3.3).

    Shapes: `video` (b c f h w), `kept` bool (f) or (b f) -> (b c+1 f h w).

    Raises:
        ValueError: if `video` is no video, or `kept` not of bools or of another shape.
    """
    if video.ndim != 5:
        raise ValueError(f"`video` (shape {tuple(video.shape)}) must be (b c f h w)")
    batch, _, frames, height, width = video.shape
    if kept.dtype != torch.bool or kept.shape not in ((frames,), (batch, frames)):
        raise ValueError(
            f"`kept` (shape {tuple(kept.shape)}, {kept.dtype}) must be a bool tensor (f) = "
            f"{(frames,)} or (b f) = {(batch, frames)}"
        )
    mask = kept.to(video.device).expand(batch, frames)[:, None, :, None, None]
    mask = mask.expand(batch, 1, frames, height, width)
    return torch.cat((video.masked_fill(~mask, 0), mask.to(video.dtype)), dim=1)


# Clips at a frame rate: Make-A-Video, section 3.4


@typechecked
def sample_fps(
    count: int,
    progress: float | int,
    *,
    lowest: float | int = 1,
    highest: float | int = 30,
    concentration: int = 9,
    generator: Generator | None = None,
) -> Tensor:
    """Frames per second to train `count` clips at: (count), from high ones to low ones.

    Make-A-Video draws them from a beta distribution and goes from little motion to much as
    training goes on. Here it is Beta(k, n + 1 - k) with n = `concentration` and k from n down
    to 1, stretched to [`lowest`, `highest`].

    Args:
        count: how many.
        progress: how much of the training is done, from 0 to 1.
        lowest: the least fps.
        highest: the most fps.
        concentration: how narrowly they lie about their mean, at least 1.
        generator: where randomness comes from.

    Raises:
        ValueError: if an argument is out of its range.
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
    num_frames: int,
    source_fps: float | int,
    frames: int,
    fps: float | int,
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


# Noise that frames share: PYoCo (Ge et al. 2023)


@typechecked
def mixed_noise(
    shape: tuple[int, ...], alpha: float | int = 1, *, generator: Generator | None = None
) -> Tensor:
    """Standard normal noise (b c f h w), alpha^2 / (1 + alpha^2) of it the same in all frames.

    PYoCo's mixed noise model. At 0 every frame has its own noise.

    Raises:
        ValueError: if `shape` is not that of a video, or `alpha` negative or infinite.
    """
    shared, own = shared_and_own(shape, alpha)
    device = device_of(generator)
    common = torch.randn((*shape[:2], 1, *shape[3:]), generator=generator, device=device)
    return shared * common + own * torch.randn(shape, generator=generator, device=device)


@typechecked
def progressive_noise(
    shape: tuple[int, ...], alpha: float | int = 2, *, generator: Generator | None = None
) -> Tensor:
    """Standard normal noise (b c f h w), each frame's alpha^2 / (1 + alpha^2) the one's before.

    PYoCo's progressive noise model, an autoregression over the frames.

    Raises:
        ValueError: if `shape` is not that of a video, or `alpha` negative or infinite.
    """
    shared, own = shared_and_own(shape, alpha)
    noise = torch.randn(shape, generator=generator, device=device_of(generator))
    frames = list(noise.unbind(2))
    for index in range(1, len(frames)):
        frames[index] = shared * frames[index - 1] + own * frames[index]
    return torch.stack(frames, dim=2)


def shared_and_own(shape: tuple[int, ...], alpha: float) -> tuple[float, float]:
    """The weights of what frames share and of what is their own, whose squares sum to one."""
    if len(shape) != 5 or shape[2] < 1:
        raise ValueError(f"`shape` (={shape}) must be that of a video (b c f h w)")
    if not 0 <= alpha < math.inf:
        raise ValueError(f"`alpha` (={alpha}) must be at least 0, and finite")
    own = 1 / math.hypot(1, alpha)
    return alpha * own, own


def device_of(generator: Generator | None) -> torch.device | None:
    """Where numbers from `generator` must be drawn."""
    return None if generator is None else generator.device
