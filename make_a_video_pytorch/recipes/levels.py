"""Noise levels of each frame, to train a U-Net that streams.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from make_a_video_pytorch.ops.checks import at_least, must_be_tensor, typechecked
from make_a_video_pytorch.recipes.noise import device_of


@typechecked
def frame_timesteps(
    batch: int,
    frames: int,
    *,
    steps: int = 1000,
    chunk: int = 1,
    rising: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """A timestep for each frame, to train with: (b f), from 0 to `steps` - 1.

    Diffusion Forcing (Chen et al. 2024, section 3.2) draws them independently, so that a model can
    be given any earlier frames, clean ones or noisy ones, and asked for those that follow. A
    model that streams chunks has one for each chunk.

    Args:
        batch: clips.
        frames: of a clip.
        steps: timesteps of the schedule.
        chunk: as many frames in turn have the same one.
        rising: sort them, so that no frame has more noise than one that comes later, as when a
            frame is denoised before the next one is done.
        generator: where randomness comes from.

    Raises:
        ValueError: if a number is below 1.

    Example:
        >>> frame_timesteps(2, 6, chunk=3, rising=True).unique_consecutive(dim=1).shape
        torch.Size([2, 2])
    """
    at_least(1, batch=batch, frames=frames, steps=steps, chunk=chunk)
    chunks = -(-frames // chunk)
    drawn = torch.randint(
        steps, (batch, chunks), generator=generator, device=device_of(generator)
    )
    if rising:
        drawn = drawn.sort(dim=1).values
    return drawn.repeat_interleave(chunk, dim=1)[:, :frames]


def each_frame(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """What a `function` of samples, such as a scheduler's `add_noise`, makes of frames.

    Schedulers of diffusers take a timestep for each sample; here each frame is one, with its own.

    Args:
        function: takes tensors (b ...) and gives one (b c h w).
        tensors: videos (b c f h w), and numbers of each of their frames (b f).

    Returns:
        A video (b c f h w).

    Raises:
        TypeError: if one is no tensor.
        ValueError: if the first is no video, or another one of other samples or frames.

    Example:
        >>> def add_noise(x, noise, timestep):  # of a scheduler
        ...     return x + noise * timestep[:, None, None, None]
        >>> video, timesteps = torch.zeros(1, 1, 3, 2, 2), torch.tensor([[0, 4, 9]])
        >>> each_frame(add_noise, video, torch.ones_like(video), timesteps)[0, 0, :, 0, 0]
        tensor([0., 4., 9.])
    """
    must_be_tensor(**{f"tensors[{n}]": tensor for n, tensor in enumerate(tensors)})
    if not tensors or tensors[0].ndim != 5:
        shape = tuple(tensors[0].shape) if tensors else None
        raise ValueError(f"`tensors[0]` (shape {shape}) must be a video (b c f h w)")
    clip = tensors[0].shape[0], tensors[0].shape[2]
    folded = []
    for n, tensor in enumerate(tensors):
        by_frame = tensor.transpose(1, 2) if tensor.ndim == 5 else tensor
        if by_frame.shape[:2] != clip:
            raise ValueError(
                f"`tensors[{n}]` (shape {tuple(tensor.shape)}) must be (b c f h w) or (b f ...), "
                f"with (b f) = {clip}"
            )
        folded.append(by_frame.flatten(0, 1))
    frames: Tensor = function(*folded).unflatten(0, clip)
    return frames.transpose(1, 2)
