"""What the stages of a cascade have in common: training, and sampling in windows.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from make_a_video_pytorch.cascade.frames import (
    Window,
    as_size,
    integers,
    noise_of_frames,
    seed_of,
    windows,
)
from make_a_video_pytorch.guidance import guide
from make_a_video_pytorch.ops.checks import at_least
from make_a_video_pytorch.recipes.denoising import (
    Scheduler,
    denoised,
    prediction_of,
    signal_and_noise,
)


class Example(NamedTuple):
    """What a stage learns from."""

    x: Tensor  # what it is to make (b c [f] h w)
    conditions: dict[str, object]  # what its model is told
    made: Tensor  # bool (b f): the frames that it makes; it is given the others


class Stage(ABC):
    """A network of a cascade, with its scheduler, and what it makes of what comes before it.

    What `Decoder`, `Interpolation` and `SuperResolution` have in common. Their arguments are
    attributes, which may be set anew.

    Args:
        model: predicts what the scheduler takes, as `model(x, timestep, **conditions)`: a
            SpaceTimeUnet, a model of diffusers of this library, or a function around one.
        scheduler: of diffusers, or one like it, with the schedule that `model` is trained by.
        size: height and width of what it makes.
        window: frames that are computed at once.
        overlap: frames that a window is given of the one before, so that they agree.
        steps: of denoising.
        guidance: how strongly to follow `cond` and `context`, see `guide`; 1 is no guidance.
        takes: names of the conditions of a `Cascade` that `model` is given, as it is called with
            them: "cond", "context", "context_mask", "fps".
        alpha: how much noise frames share, see `mixed_noise`; all of it at infinity.
    """

    channels = 3  # where nothing comes before that says it

    def __init__(
        self,
        model: Callable[..., object],
        scheduler: Scheduler,
        size: Sequence[int],
        window: int,
        overlap: int,
        steps: int,
        guidance: float,
        takes: Sequence[str],
        alpha: float,
    ) -> None:
        at_least(1, window=window, steps=steps)
        at_least(0, overlap=overlap)
        if overlap >= window:
            raise ValueError(f"`overlap` (={overlap}) must be below `window` (={window})")
        if not alpha >= 0:
            raise ValueError(f"`alpha` (={alpha}) must be at least 0")
        self.model = model
        self.scheduler = scheduler
        self.size = as_size("size", size)
        self.window = window
        self.overlap = overlap
        self.steps = steps
        self.guidance = guidance
        self.takes = tuple(takes)
        self.alpha = alpha

    @property
    def settings(self) -> dict[str, object]:
        """The constructor's arguments but for model and scheduler, fit for JSON."""
        every = {k: v for k, v in vars(self).items() if k not in ("model", "scheduler")}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in every.items()}

    @property
    def faster(self) -> int:
        """Frames per second, as a multiple of those of what comes before."""
        return 1

    @abstractmethod
    def frames_of(self, frames: int) -> int:
        """How many frames it makes of so many."""

    @abstractmethod
    def example(self, clips: Tensor, generator: Generator | None = None) -> Example:
        """What to learn from clips (b c f h w), at random where it is for the stage to say."""

    @abstractmethod
    def given(
        self, before: Tensor | None, clean: Tensor, window: Window, seed: int
    ) -> tuple[Tensor, dict[str, object]]:
        """Which frames of a window are known (f), and what the model is told.

        `clean` (b c f h w) has those that an earlier window made, and zeros; it is given others
        that are known.
        """

    @abstractmethod
    def must_take(self, before: Tensor | None) -> None:
        """Raise an error if it cannot go on from this."""

    def loss(
        self,
        clips: Tensor,
        *,
        model: Callable[..., object] | None = None,
        noise: Tensor | None = None,
        timesteps: Tensor | None = None,
        generator: Generator | None = None,
        **conditions: object,
    ) -> Tensor:
        """The denoising loss on clips: the mean squared error of what the model predicts.

        It predicts what the scheduler's `prediction_type` says: noise (Ho et al. 2020, equation
        14), the clean clip, or the velocity (Salimans and Ho 2022, appendix D). Frames that the
        stage is given do not count.

        Args:
            clips: real ones (b c f h w) of `window` frames, of any size, or images (b c h w).
            model: what is called in the place of the stage's, such as a DDP wrapper of it.
            noise: of the shape of what is made; drawn if left out.
            timesteps: (b); drawn evenly if left out.
            generator: where randomness comes from.
            conditions: further arguments of the model.

        Raises:
            ValueError: if `clips` are of another rank, or the scheduler does not say how it noises.
        """
        x, told, made = self.example(clips, generator)
        if noise is None:
            noise = self.noise_like(x, generator)
        if timesteps is None:
            total = len(getattr(self.scheduler, "alphas_cumprod", (None,)))
            timesteps = integers(total, len(x), generator)
        signal, sigma = signal_and_noise(self.scheduler, timesteps, x)
        noise, timesteps = noise.to(x), timesteps.to(x.device)
        called = self.model if model is None else model
        out = called(signal * x + sigma * noise, timesteps, **told, **conditions)
        kind = getattr(getattr(self.scheduler, "config", None), "prediction_type", "epsilon")
        targets = {"epsilon": noise, "sample": x, "v_prediction": signal * noise - sigma * x}
        error = (prediction_of(out) - targets[kind]).square()
        if x.ndim == 5:
            error = error.mean((1, 3, 4))[made.to(error.device)]
        return error.mean()

    def noise_like(self, x: Tensor, generator: Generator | None) -> Tensor:
        """Noise of images, or of clips whose frames share some, as in sampling."""
        seed = int(integers(2**62, 1, generator))
        if x.ndim == 4:
            return noise_of_frames(x.unsqueeze(2).shape, 0, 0.0, seed, "x").squeeze(2)
        return noise_of_frames(x.shape, 0, self.alpha, seed, "x")

    def __call__(
        self,
        video: Tensor | None = None,
        *,
        batch: int = 1,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        after_step: Callable[[], object] | None = None,
        after_window: Callable[[int, Tensor], object] | None = None,
        made: Callable[[int], Tensor | None] | None = None,
        **conditions: object,
    ) -> Tensor:
        """Sample, window by window.

        The result is on the CPU, and beside it no more memory is taken for a longer video. It is
        the same on every device but for rounding, since noise is drawn on the CPU.

        Args:
            video: what comes before (b c f h w), if anything does.
            batch: how many videos, if nothing does.
            seed: all that is random follows from it.
            device: where to compute, that of the model.
            dtype: of what the model is given; steps are taken in fp32 or more.
            after_step: called after each step of denoising.
            after_window: called with the number of a window and its new frames (b c f h w).
            made: gives what `after_window` was given in a run before, if it was, by the number.
            conditions: further arguments of the model, tensors (b ...) or numbers.

        Raises:
            ValueError: if `video` is none, or of another size than the stage takes.
        """
        self.must_take(video)
        told = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in conditions.items()}
        high = torch.promote_types(dtype, torch.float32)

        def predict(arguments: dict[str, object], x: Tensor, timestep: Tensor) -> Tensor:
            model = self.model if self.guidance == 1 else guide(self.model, self.guidance)
            return prediction_of(model(x.to(dtype), timestep, **arguments)).to(high)

        def computed(window: Window, clean: Tensor) -> Tensor:
            known, more = self.given(video, clean, window, seed)
            more = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in more.items()}
            noise = noise_of_frames(clean.shape, window.start, self.alpha, seed, "x")
            new = denoised(
                partial(predict, {**more, **told}), copy.deepcopy(self.scheduler),
                noise.to(device, high), self.steps, after_step=after_step,
                generator=Generator().manual_seed(seed_of(seed, "steps", window.start)),
            ).cpu()  # fmt: skip
            new[:, :, known] = clean[:, :, known]
            return new[:, :, window.done :]

        frames = self.frames_of(0 if video is None else video.shape[2])
        b, c = (batch, self.channels) if video is None else video.shape[:2]
        out = torch.empty(b, c, frames, *self.size, dtype=high)
        for number, window in enumerate(windows(frames, self.window, self.overlap)):
            first = window.start + window.done
            new = None if made is None else made(number)
            if new is None:
                clean = torch.zeros(b, c, window.frames, *self.size, dtype=high)
                clean[:, :, : window.done] = out[:, :, window.start : first]
                new = computed(window, clean)
                if after_window is not None:
                    after_window(number, new)
            out[:, :, first : window.stop] = new
        return out
