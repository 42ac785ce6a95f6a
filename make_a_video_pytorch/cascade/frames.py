"""Windows of a long video, noise that does not depend on them, and sizes.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from make_a_video_pytorch.ops.checks import at_least, must_be_floating
from make_a_video_pytorch.recipes import each_frame, mixed_noise
from make_a_video_pytorch.recipes.noise import device_of, shared_and_own


class Window(NamedTuple):
    """Frames that are computed at once."""

    start: int
    stop: int
    done: int  # how many of them, the first ones, an earlier window has made

    @property
    def frames(self) -> int:
        """How many they are."""
        return self.stop - self.start


def windows(frames: int, most: int, overlap: int) -> list[Window]:
    """Those of a video, of `most` frames each, or of all if there are fewer.

    The last one ends where the video does, and may overlap more.
    """
    size = min(most, frames)
    starts = [*range(0, frames - size, most - overlap), frames - size]
    ends = [0, *(start + size for start in starts)]
    return [
        Window(start, start + size, before - start)
        for start, before in zip(starts, ends, strict=False)
    ]


def drawn_windows(
    count: int, frames: int, overlap: int, generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """For each window to learn from, whether it is a later one, and the frames it then has (count).

    Mostly `overlap`, as in sampling, where the last window may have more.
    """
    later = integers(2, count, generator) == 1
    few = torch.rand(count, generator=generator, device=device_of(generator)) ** 16
    least = min(overlap, frames - 1)
    more = (few * (frames - least)).long() if overlap else 0
    return later, (least + more) * later


def seed_of(seed: int, *names: object) -> int:
    """Another seed for each of what is named, that follows from `seed`."""
    said = "/".join(map(str, (seed, *names))).encode()
    return int.from_bytes(hashlib.sha256(said).digest()[:8], "big") >> 1


def noise_like(x: Tensor, alpha: float, generator: Generator | None) -> Tensor:
    """Standard normal noise for images or clips, whose frames share some, to learn from."""
    if x.ndim == 5 and math.isfinite(alpha):
        return mixed_noise(tuple(x.shape), alpha, generator=generator)
    frame = x.shape if x.ndim == 4 else (*x.shape[:2], 1, *x.shape[3:])
    return torch.randn(frame, generator=generator, device=device_of(generator)).expand(x.shape)


def noise_of_frames(
    shape: tuple[int, ...], start: int, alpha: float, seed: int, name: str
) -> Tensor:
    """Standard normal noise (b c f h w) of the frames of a video from `start` on.

    That of a frame is the same in every window. Frames share as much as in `mixed_noise`, all of
    it at an infinite `alpha`.
    """
    batch, channels, frames, height, width = shape
    size = (batch, channels, height, width)

    def drawn(what: object) -> Tensor:
        return torch.randn(size, generator=Generator().manual_seed(seed_of(seed, name, what)))

    shared, own = shared_and_own(shape, alpha) if math.isfinite(alpha) else (1.0, 0.0)
    clip = torch.zeros(batch, channels, frames, height, width)
    if alpha > 0:
        clip += shared * drawn("shared").unsqueeze(2)
    if own > 0:
        for place in range(frames):
            clip[:, :, place] += own * drawn(start + place)
    return clip


def integers(below: int, count: int, generator: Generator | None) -> Tensor:
    """Random whole numbers (count) from 0 on."""
    return torch.randint(below, (count,), generator=generator, device=device_of(generator))


def resized(clips: Tensor, size: tuple[int, int]) -> Tensor:
    """Clips (b c f h w), or images (b c h w), at another height and width."""
    if tuple(clips.shape[-2:]) == size:
        return clips
    scaled = partial(F.interpolate, size=size, mode="bilinear", antialias=True)
    return scaled(clips) if clips.ndim == 4 else each_frame(scaled, clips)


def as_size(name: str, size: Sequence[int]) -> tuple[int, int]:
    """A height and a width, or a ValueError that names the argument."""
    if len(size) != 2:
        raise ValueError(f"`{name}` (={tuple(size)}) must be height and width")
    height, width = size
    at_least(1, **{f"{name}[0]": height, f"{name}[1]": width})
    return height, width


def must_be_of_size(video: Tensor | None, size: tuple[int, int]) -> None:
    """Raise an error for what is no video (b c f h w) of this height and width."""
    must_be_floating(video=video)
    if video is None or video.ndim != 5 or tuple(video.shape[-2:]) != size:
        shape = None if video is None else tuple(video.shape)
        raise ValueError(f"`video` (shape {shape}) must be (b c f h w) with (h w) = {size}")
