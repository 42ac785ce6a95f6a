"""The stages of a cascade that make larger frames.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Generator, Tensor

from make_a_video_pytorch.cascade.frames import (
    Window,
    as_size,
    drawn_windows,
    integers,
    must_be_of_size,
    noise_like,
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
        most_noise_level: the highest such timestep in training; with 0 there is no noise, and the
            model is not told of it.
        steps: of denoising.
        guidance: how strongly to follow the conditions; 1 is no guidance.
        takes: names of the conditions that it is given; those that it is built for if None.
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
        takes: Sequence[str] | None = None,
        alpha: float | int = 0,
    ) -> None:
        super().__init__(model, scheduler, size, window, overlap, steps, guidance, takes, alpha)
        self.size_before = as_size("size_before", size_before)
        self.enable_time = enable_time
        self.noise_level = noise_level
        self.most_noise_level = most_noise_level
        self.must_be_valid()

    @property
    def size_taken(self) -> tuple[int, int]:
        return self.size_before

    def must_be_valid(self) -> None:
        super().must_be_valid()
        self.size_before = as_size("size_before", self.size_before)
        least, most = self.noise_level, self.most_noise_level
        at_least(0, noise_level=least)
        if least > most:
            raise ValueError(
                f"`noise_level` (={least}) must be at most `most_noise_level` (={most})"
            )
        total = len(getattr(self.scheduler, "alphas_cumprod", ()))
        if most and most >= total:
            raise ValueError(
                f"`most_noise_level` (={most}) must be below {total}, the number of "
                f"`alphas_cumprod` of `scheduler` (a {type(self.scheduler).__name__})"
            )
        if self.overlap and not self.enable_time:
            raise ValueError(
                f"`overlap` (={self.overlap}) must be 0 without `enable_time`: frames do not see "
                "others"
            )

    def must_take(self, before: Tensor | None) -> None:
        must_be_of_size(before, self.size_before)

    def frames_of(self, frames: int) -> int:
        return frames

    def told(
        self, low: Tensor, noise: Callable[[Tensor], Tensor], level: Tensor, kept: Tensor
    ) -> dict[str, object]:
        """What the model is told: of pictures (b c [f] h w), with noise of a level (b), and of
        kept frames (b c+1 f h w), if there are any."""
        conditions: dict[str, object] = {} if self.enable_time else {"enable_time": False}
        pictures = resized(low, self.size)
        if self.most_noise_level:
            signal, sigma = signal_and_noise(self.scheduler, level, pictures)
            pictures = signal * pictures + sigma * noise(pictures).to(pictures)
            conditions["noise_level"] = level
        if self.overlap:
            beside = kept.to(pictures)
            beside = beside.squeeze(2) if pictures.ndim == 4 else beside
            pictures = torch.cat((pictures, beside), dim=1)
        return {"cond_images": pictures, **conditions}

    def before(self, clips: Tensor) -> Tensor:
        return resized(clips, self.size_before)

    def example(self, clips: Tensor, generator: Generator | None = None) -> Example:
        x, low = resized(clips, self.size), self.before(clips)
        video = x.unsqueeze(2) if x.ndim == 4 else x
        count, frames = len(x), video.shape[2]
        _, done = drawn_windows(count, frames, self.overlap, generator)
        kept = kept_frames(video, torch.arange(frames, device=done.device) < done[:, None])
        level = integers(self.most_noise_level + 1, count, generator)
        noise = partial(noise_like, alpha=self.alpha, generator=generator)
        return Example(x, self.told(low, noise, level, kept))

    def given(
        self, before: Tensor | None, clean: Tensor, window: Window, seed: int
    ) -> tuple[Tensor, dict[str, object]]:
        assert before is not None
        low = before[:, :, window.start : window.stop].to(clean)
        level = torch.full((len(low),), self.noise_level)
        known = torch.arange(window.frames) < window.done

        def noise(pictures: Tensor) -> Tensor:
            name = f"{self.kind}, before"
            return noise_of_frames(pictures.shape, window.start, self.alpha, seed, name)

        return known, self.told(low, noise, level, kept_frames(clean, known))
