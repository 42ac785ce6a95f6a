"""What a training loop around a video U-Net easily gets wrong.

Frames to keep while others are filled in: `kept_frames`, and `every`, `head`, `tail` and `at` to
say which. Clips at a frame rate: `sample_fps` and `sample_clip`. Noise that frames share:
`mixed_noise` and `progressive_noise`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Generator, Tensor

from make_a_video_pytorch.ops.checks import at_least, typechecked

__all__ = ["at", "every", "head", "kept_frames", "mixed_noise", "progressive_noise", "sample_clip",
           "sample_fps", "tail"]


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
    uniform = torch.rand(count, concentration, generator=generator, device=_device_of(generator))
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
    start = torch.randint(starts, (), generator=generator, device=_device_of(generator))
    return start.cpu() + offsets, source_fps / step


@typechecked
def mixed_noise(
    shape: tuple[int, ...], alpha: float | int = 1, *, generator: Generator | None = None
) -> Tensor:
    """Standard normal noise, alpha^2 / (1 + alpha^2) of it the same in all frames.

    The mixed noise model of PYoCo (Ge et al. 2023).

    Args:
        shape: (b, c, f, h, w).
        alpha: how much is shared; at 0 every frame has its own noise.
        generator: where randomness comes from.

    Raises:
        ValueError: if `shape` is not that of a video, or `alpha` negative or infinite.

    Example:
        >>> noise = mixed_noise((1, 3, 8, 64, 64), alpha=2)
        >>> (noise[:, :, 0] * noise[:, :, 7]).mean() > 0.7  # expected are 4 / 5
        tensor(True)
    """
    shared, own = _shared_and_own(shape, alpha)
    device = _device_of(generator)
    common = torch.randn((*shape[:2], 1, *shape[3:]), generator=generator, device=device)
    return shared * common + own * torch.randn(shape, generator=generator, device=device)


@typechecked
def progressive_noise(
    shape: tuple[int, ...], alpha: float | int = 2, *, generator: Generator | None = None
) -> Tensor:
    """Standard normal noise, alpha^2 / (1 + alpha^2) of each frame that of the one before.

    PYoCo's progressive noise model, an autoregression over the frames. `shape`, `alpha` and
    `generator` are those of `mixed_noise`, and so are the errors.

    Example:
        >>> noise = progressive_noise((1, 3, 8, 64, 64), alpha=2)
        >>> (noise[:, :, 0] * noise[:, :, 7]).mean() < 0.6  # expected are 0.8 ** 3.5
        tensor(True)
    """
    shared, own = _shared_and_own(shape, alpha)
    noise = torch.randn(shape, generator=generator, device=_device_of(generator))
    frames = list(noise.unbind(2))
    for index in range(1, len(frames)):
        frames[index] = shared * frames[index - 1] + own * frames[index]
    return torch.stack(frames, dim=2)


def _shared_and_own(shape: tuple[int, ...], alpha: float) -> tuple[float, float]:
    """The weights of what frames share and of what is their own, whose squares sum to one."""
    if len(shape) != 5 or shape[2] < 1:
        raise ValueError(f"`shape` (={shape}) must be that of a video (b c f h w)")
    if not 0 <= alpha < math.inf:
        raise ValueError(f"`alpha` (={alpha}) must be at least 0, and finite")
    own = 1 / math.hypot(1, alpha)
    return alpha * own, own


def _device_of(generator: Generator | None) -> torch.device | None:
    """Where numbers from `generator` must be drawn."""
    return None if generator is None else generator.device
