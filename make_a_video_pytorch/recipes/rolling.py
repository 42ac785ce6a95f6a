"""Videos of any length, sampled and learned chunk by chunk.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Generator, Tensor

from make_a_video_pytorch.ops.checks import at_least
from make_a_video_pytorch.recipes.denoising import Scheduler, denoised, signal_and_noise


@torch.no_grad()
def roll_out(
    stream: Callable[..., object],
    scheduler: Scheduler,
    noise: Iterable[Tensor],
    *,
    steps: int,
    level: int = 0,
    generator: Generator | None = None,
    **conditions: object,
) -> Iterator[Tensor]:
    """Sample a video of any length, chunk by chunk, each denoised behind those that are done.

    So do CausVid (Yin et al. 2025) and Self Forcing (Huang et al. 2025). A chunk that is done is
    shown to later ones at a low noise `level`, as in Diffusion Forcing (Chen et al. 2024, section
    3.3), which hides its small mistakes. The scheduler begins each chunk anew, so that one that
    remembers earlier steps, as DPM-Solver++, does not mix chunks up.

    What is called in the place of the stream may be guided, `guide(stream, 2.0)`, but for an
    `interval`, outside of which it makes one prediction in the place of two. To go on from frames
    that there are, give them to it first, with the conditions: `stream(frames, 0)`.

    Args:
        stream: of a U-Net that predicts what the scheduler takes; a tensor, or a tuple or an output
            of diffusers that begins with one.
        scheduler: of diffusers, or one like it; it is copied.
        noise: a chunk (b c f h w) after another, standard normal; their number is the number of
            chunks, which may have no end.
        steps: for a chunk.
        level: the timestep at which later chunks see one; 0 is without noise.
        generator: where the noise of that level comes from, and that of steps which draw some.
        conditions: further arguments of the stream, for all chunks.

    Yields:
        The chunks (b c f h w).

    Raises:
        ValueError: if `steps` is below 1 or `level` below 0, or if the scheduler has no
            `alphas_cumprod`, which say how much noise there is at a `level`.

    Example:
        >>> from diffusers import DDIMScheduler
        >>> unet = SpaceTimeUnet(dim=8, dim_mult=(1,), self_attns=(True,), resnet_block_depths=(1,),
        ...     temporal_compression=(False,), attn_dim_head=8, causal=True, temporal_window=4)
        >>> noise = torch.randn(1, 3, 10, 8, 8).split(2, dim=2)
        >>> chunks = list(roll_out(unet.stream(), DDIMScheduler(), noise, steps=2))
        >>> torch.cat(chunks, dim=2).shape
        torch.Size([1, 3, 10, 8, 8])
    """
    at_least(1, steps=steps)
    at_least(0, level=level)
    scheduler = copy.deepcopy(scheduler)
    if level > 0:
        signal_and_noise(scheduler, level, torch.empty(0))  # before anything is computed
    looking = partial(stream, commit=False, **conditions)
    for chunk in noise:
        x = denoised(looking, scheduler, chunk, steps, generator=generator)
        seen = x
        if level > 0:
            signal, sigma = signal_and_noise(scheduler, level, x)
            drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            seen = signal * x + sigma * drawn
        stream(seen, level, commit=True, **conditions)
        yield x


def teacher_forced(
    stream: Callable[..., Tensor],
    noisy: Tensor,
    shown: Tensor,
    timesteps: Tensor,
    *,
    chunk: int,
    level: int = 0,
    **conditions: object,
) -> Tensor:
    """What a stream predicts for noisy chunks, each behind the clean ones before it.

    Teacher forcing (Williams and Zipser 1989): chunks see what they see in `roll_out`, but that it
    is real. It takes two calls for each chunk. One call for all of a clip, with a noise level of
    each frame (`frame_timesteps`), trains the same model, on frames before that are as noisy.

    Args:
        stream: of the U-Net that is trained, at its beginning; with `detach=False` the gradient
            of a chunk flows through those before it.
        noisy: the video (b c f h w) with noise.
        shown: what later chunks see of it, clean, or with the noise of the `level`.
        timesteps: of each frame (b f).
        chunk: frames of a chunk.
        level: the timestep of `shown`.
        conditions: further arguments of the stream, for all chunks.

    Returns:
        The predictions (b c f h w).

    Raises:
        ValueError: if `noisy` and `shown` differ in shape or `timesteps` are not of their frames.

    Example:
        >>> unet = SpaceTimeUnet(dim=8, dim_mult=(1,), self_attns=(True,), resnet_block_depths=(1,),
        ...     temporal_compression=(False,), attn_dim_head=8, causal=True)
        >>> from make_a_video_pytorch.recipes import frame_timesteps
        >>> clean, timesteps = torch.randn(1, 3, 6, 8, 8), frame_timesteps(1, 6, chunk=3)
        >>> noisy = clean + torch.randn_like(clean)
        >>> teacher_forced(unet.stream(), noisy, clean, timesteps, chunk=3).shape
        torch.Size([1, 3, 6, 8, 8])
    """
    at_least(1, chunk=chunk)
    at_least(0, level=level)
    if noisy.shape != shown.shape:
        raise ValueError(
            f"`shown` (shape {tuple(shown.shape)}) must be of the shape of `noisy`, "
            f"{tuple(noisy.shape)}"
        )
    if timesteps.shape != (noisy.shape[0], noisy.shape[2]):
        raise ValueError(
            f"`timesteps` (shape {tuple(timesteps.shape)}) must be (b f) = "
            f"{(noisy.shape[0], noisy.shape[2])}"
        )
    parts = zip(
        noisy.split(chunk, 2), shown.split(chunk, 2), timesteps.split(chunk, 1), strict=True
    )
    predictions = []
    for x, known, timestep in parts:
        predictions.append(stream(x, timestep, commit=False, **conditions))
        stream(known, level, commit=True, **conditions)
    return torch.cat(predictions, dim=2)
