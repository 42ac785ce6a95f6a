"""How strongly to guide each sample and each frame.

Letters: b batch, f frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsFloat

import torch
from torch import Tensor

from make_a_video_pytorch.ops.checks import is_one_of

Scale = Tensor | SupportsFloat | Sequence[object]


def as_numbers(name: str, scale: Scale) -> Tensor | float:
    """A number of Python, NumPy or torch as a float, or as the tensor that it is; more as a tensor.

    Raises:
        TypeError: if it is not of numbers.
    """
    if isinstance(scale, Tensor):
        return scale
    try:
        if isinstance(scale, SupportsFloat) and getattr(scale, "ndim", 0) == 0:
            return float(scale)
        return torch.as_tensor(scale)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`{name}` (={scale!r}) must be a number, or of numbers") from error


def as_scale(name: str, scale: Tensor | float, x: Tensor) -> Tensor:
    """A `scale` as (b|1 f|1), for the image or video `x`.

    Raises:
        ValueError: if it is neither one number, nor (b), (f), (b 1), (1 f) or (b f), or if it
            could be two of them.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    numbers = torch.as_tensor(scale, dtype=dtype, device=x.device)
    batch, frames = x.shape[0], x.shape[2] if x.ndim == 5 else 1
    if numbers.numel() == 1:
        return numbers.reshape(1, 1)
    if numbers.ndim == 1 and batch == frames == len(numbers):
        raise ValueError(
            f"`{name}` (shape {tuple(numbers.shape)}) could be of the samples or of the frames of "
            f"`x` (shape {tuple(x.shape)}): give it as (b 1) or as (1 f)"
        )
    if is_one_of(numbers.shape, (batch,), (batch, 1), (1, frames), (batch, frames)):
        return numbers.view(len(numbers), -1)
    if is_one_of(numbers.shape, (frames,)):
        return numbers.view(1, -1)
    raise ValueError(
        f"`{name}` (shape {tuple(numbers.shape)}) must be one number, (b), (f), (b 1), (1 f) or "
        f"(b f), with b = {batch} and f = {frames}"
    )


def within(interval: Sequence[float], timestep: object, x: Tensor) -> Tensor:
    """Which samples and frames of `x` are at a `timestep` of the `interval`: bool (b|1 f|1).

    Raises:
        ValueError: if `timestep` is neither a number nor a tensor of one, (b) or (b f), nor a
            tuple that holds one such.
    """
    low, high = interval
    if isinstance(timestep, tuple) and len(timestep) == 1:  # as `per_frame` marks it
        (timestep,) = timestep
    if not isinstance(timestep, (Tensor, SupportsFloat)):
        raise ValueError(
            f"`timestep` (={timestep!r}) must be a number or a tensor, given first after `x` or by "
            "its name, with an `interval`"
        )
    numbers = torch.as_tensor(timestep, device=x.device)
    numbers = numbers.to(torch.promote_types(numbers.dtype, torch.float32))  # as wide as bounds
    frames = x.shape[2] if x.ndim == 5 else 1
    numbers = numbers.reshape(-1, 1) if numbers.ndim < 2 else numbers
    shape = tuple(numbers.shape)
    if shape[0] not in (1, len(x)) or shape[1] not in (1, frames) or numbers.ndim != 2:
        raise ValueError(
            f"`timestep` (shape {shape}) must be one number, (b) or (b f), with b = {len(x)} and "
            f"f = {frames}"
        )
    return (low <= numbers) & (numbers <= high)


def beside(scale: Tensor, prediction: Tensor) -> Tensor:
    """A `scale` (b|1 f|1) as it is multiplied with a `prediction` (b c f h w) or (b ...)."""
    if prediction.ndim == 5:
        return scale[:, None, :, None, None]
    if scale.shape[1] > 1:
        raise ValueError(
            f"`scale` (of each frame) needs a prediction (b c f h w), and not one of shape "
            f"{tuple(prediction.shape)}"
        )
    return scale.view(-1, *[1] * (prediction.ndim - 1))
