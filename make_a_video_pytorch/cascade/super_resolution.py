"""The stages of a cascade that make larger frames.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from make_a_video_pytorch.cascade.frames import (
    Window,
    as_size,
    drawn_windows,
    frames_in,
    integers,
    must_be_of_size,
    noise_of_frames,
    resized,
)
from make_a_video_pytorch.cascade.stage import Example, Stage
from make_a_video_pytorch.ops.checks import at_least, typechecked
from make_a_video_pytorch.recipes import kept_frames
from make_a_video_pytorch.recipes.denoising import Scheduler, signal_and_noise


class SuperResolution(Stage):
    """Larger frames, of what comes before, resized, and of the frames of the window before.

    Make-A-Video, section 3.2: to 256x256 with temporal parts, and to 768x768 without them, where
    the same noise for all frames lets what is made up agree (`enable_time=False, alpha=math.inf`).
    The model may be trained on pictures with noise, and be told how much, so that it forgives the
    mistakes of the stage before (Ho et al. 2021, section 4.2).

    Args:
        model: a SpaceTimeUnet with `cond_channels` as many as `channels`, and again one more than
            these if there is an `overlap`; with `condition_on_noise_level` if there is noise.
        scheduler: of diffusers, or one like it.
        size: height and width.
        size_before: those of what comes before.
        window: frames that are computed at once.
        overlap: frames that a window is given of the one before.
        enable_time: run the model's temporal parts; without them there can be no `overlap`.
        noise_level: the timestep whose noise is put on what comes before, in sampling.
        most_noise_level: the highest such in training; 0 for none, of which the model is not told.
        steps: of denoising.
        guidance: how strongly to follow the conditions; 1 is no guidance.
        takes: names of the conditions that it is given.
        alpha: how much noise frames share, see `mixed_noise`.

    Raises:
        TypeError: if an argument is of a wrong type.
        ValueError: if a value is out of range.

    Example:
        >>> from diffusers import DDIMScheduler
        >>> unet = SpaceTimeUnet(dim=8, attn_dim_head=8, attn_heads=2, cond_channels=7)
        >>> stage = SuperResolution(
        ...     unet, DDIMScheduler(), size=(32, 32), size_before=(16, 16), window=8, overlap=2,
        ...     steps=2
        ... )
        >>> stage(torch.rand(1, 3, 12, 16, 16)).shape
        torch.Size([1, 3, 12, 32, 32])
    """

    @typechecked
    def __init__(
        self,
        model: Callable[..., object],
        scheduler: Scheduler,
        *,
        size: Sequence[int],
        size_before: Sequence[int],
        window: int = 76,
        overlap: int = 0,
        enable_time: bool = True,
        noise_level: int = 0,
        most_noise_level: int = 0,
        steps: int = 50,
        guidance: float | int = 1,
        takes: Sequence[str] = (),
        alpha: float | int = 0,
    ) -> None:
        super().__init__(model, scheduler, size, window, overlap, steps, guidance, takes, alpha)
        at_least(0, noise_level=noise_level)
        if noise_level > most_noise_level:
            raise ValueError(
                f"`noise_level` (={noise_level}) must be at most `most_noise_level` "
                f"(={most_noise_level})"
            )
        if overlap and not enable_time:
            raise ValueError(
                f"`overlap` (={overlap}) must be 0 without `enable_time`: frames do not see others"
            )
        self.size_before = as_size("size_before", size_before)
        self.enable_time = enable_time
        self.noise_level = noise_level
        self.most_noise_level = most_noise_level

    def must_take(self, before: Tensor | None) -> None:
        must_be_of_size(before, self.size_before)

    def frames_of(self, frames: int) -> int:
        return frames

    def told(
        self, low: Tensor, noise: Tensor, level: Tensor, clean: Tensor, kept: Tensor
    ) -> dict[str, object]:
        """What the model is told: of pictures (b c [f] h w), with noise of a level (b)."""
        conditions: dict[str, object] = {} if self.enable_time else {"enable_time": False}
        pictures = resized(low, self.size)
        if self.most_noise_level:
            signal, sigma = signal_and_noise(self.scheduler, level, pictures)
            pictures = signal * pictures + sigma * noise.to(pictures)
            conditions["noise_level"] = level
        if self.overlap:
            image = clean.ndim == 4
            beside = kept_frames(clean.unsqueeze(2) if image else clean, kept).to(pictures)
            pictures = torch.cat((pictures, beside.squeeze(2) if image else beside), dim=1)
        return {"cond_images": pictures, **conditions}

    def example(self, clips: Tensor, generator: Generator | None = None) -> Example:
        x, low = resized(clips, self.size), resized(clips, self.size_before)
        count, frames = len(x), frames_in(x)
        _, done = drawn_windows(count, frames, self.overlap, generator)
        kept = torch.arange(frames, device=done.device) < done[:, None]
        level = integers(self.most_noise_level + 1, count, generator)
        noise = self.noise_like(x, generator)
        return Example(x, self.told(low, noise, level, x, kept), ~kept)

    def given(
        self, before: Tensor | None, clean: Tensor, window: Window, seed: int
    ) -> tuple[Tensor, dict[str, object]]:
        assert before is not None
        low = before[:, :, window.start : window.stop].to(clean)
        noise = noise_of_frames(clean.shape, window.start, self.alpha, seed, "low")
        level = torch.full((len(low),), self.noise_level)
        kept = torch.arange(window.frames) < window.done
        return kept, self.told(low, noise, level, clean, kept)
