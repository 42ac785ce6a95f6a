"""Noise that frames share."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from make_a_video_pytorch.ops.checks import typechecked


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
    shared, own = shared_and_own(shape, alpha)
    device = device_of(generator)
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
