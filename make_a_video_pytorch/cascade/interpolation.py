"""The stage of a cascade that makes more frames.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from make_a_video_pytorch.cascade.frames import (
    Window,
    drawn_windows,
    integers,
    must_be_of_size,
    resized,
)
from make_a_video_pytorch.cascade.stage import Example, Stage
from make_a_video_pytorch.ops.checks import at_least, typechecked
from make_a_video_pytorch.recipes import kept_frames
from make_a_video_pytorch.recipes.denoising import Scheduler


class Interpolation(Stage):
    """More frames a second: those of what comes before are kept, and others made between them.

    Make-A-Video, section 3.3: n frames become (n - 1) * `factor` + 1, from 16 on 76. The model is
    the decoder's, grown by `unet.grow(cond_channels=4)`: it is told the frames that are kept and
    which they are (`kept_frames`), among them, in later windows, those of the window before.

    Args:
        model: a SpaceTimeUnet with `cond_channels` one more than `channels`.
        scheduler: of diffusers, or one like it.
        size: height and width, those of what comes before.
        factor: how many times as many frames a second.
        window: frames that are computed at once.
        overlap: frames that a window is given of the one before.
        steps: of denoising.
        guidance: how strongly to follow the conditions; 1 is no guidance.
        takes: names of the conditions that it is given; those that it is built for if None. `fps`
            is the rate of what it makes.
        alpha: how much noise frames share, see `mixed_noise`.

    Raises:
        TypeError: if an argument is of a wrong type.
        ValueError: if a value is out of range.

    Example:
        >>> from diffusers import DDIMScheduler
        >>> unet = SpaceTimeUnet(dim=8, attn_dim_head=8, attn_heads=2, cond_channels=4)
        >>> stage = Interpolation(
        ...     unet, DDIMScheduler(), size=(16, 16), factor=3, window=8, overlap=2, steps=2
        ... )
        >>> video = torch.rand(1, 3, 6, 16, 16)
        >>> more = stage(video)
        >>> more.shape, torch.equal(more[:, :, ::3], video)
        (torch.Size([1, 3, 16, 16, 16]), True)
    """

    @typechecked
    def __init__(
        self,
        model: Callable[..., object],
        scheduler: Scheduler,
        *,
        size: Sequence[int],
        factor: int = 5,
        window: int = 76,
        overlap: int = 0,
        steps: int = 50,
        guidance: float | int = 1,
        takes: Sequence[str] | None = None,
        alpha: float | int = 0,
    ) -> None:
        super().__init__(model, scheduler, size, window, overlap, steps, guidance, takes, alpha)
        self.factor = factor
        self.must_be_valid()

    @property
    def faster(self) -> int:
        return self.factor

    def must_be_valid(self) -> None:
        super().must_be_valid()
        at_least(2, factor=self.factor)

    def must_take(self, before: Tensor | None) -> None:
        must_be_of_size(before, self.size)

    def frames_of(self, frames: int) -> int:
        return (frames - 1) * self.factor + 1

    def before(self, clips: Tensor) -> Tensor:
        self.must_be_clips(clips)
        return resized(clips, self.size)[:, :, :: self.factor]

    def example(self, clips: Tensor, generator: Generator | None = None) -> Example:
        self.must_be_clips(clips)
        x = resized(clips, self.size)
        count, frames = len(x), x.shape[2]
        later, done = drawn_windows(count, frames, self.overlap, generator)
        phase = integers(self.factor, count, generator) * later
        places = torch.arange(frames, device=done.device)
        keys = (places + phase[:, None]) % self.factor == 0
        kept = keys | (places < done[:, None])
        return Example(x, {"cond_images": kept_frames(x, kept)})

    def must_be_clips(self, clips: Tensor) -> None:
        """Raise a ValueError for images, between which there is nothing."""
        if clips.ndim != 5:
            raise ValueError(f"`clips` (shape {tuple(clips.shape)}) must be (b c f h w)")

    def given(
        self, before: Tensor | None, clean: Tensor, window: Window, seed: int
    ) -> tuple[Tensor, dict[str, object]]:
        assert before is not None
        places = torch.arange(window.start, window.stop)
        keys = places % self.factor == 0
        clean[:, :, keys] = before[:, :, places[keys] // self.factor].to(clean)
        kept = keys | (places < window.start + window.done)
        return kept, {"cond_images": kept_frames(clean, kept)}
