"""What the stages of a cascade have in common: training, and sampling in windows.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from make_a_video_pytorch.cascade.asked import (
    count_of,
    must_be_guided_by,
    must_be_its_own,
    must_be_learned_from,
    place_of,
)
from make_a_video_pytorch.cascade.frames import (
    Window,
    integers,
    noise_like,
    noise_of_frames,
    seed_of,
)
from make_a_video_pytorch.cascade.settings import Settings
from make_a_video_pytorch.guidance import guide
from make_a_video_pytorch.recipes.denoising import (
    denoised,
    prediction_of,
    signal_and_noise,
    without_variance,
)


class Example(NamedTuple):
    """What a stage learns from."""

    x: Tensor  # what it is to make (b c [f] h w)
    conditions: dict[str, object]  # what its model is told


class Stage(Settings):
    """A network of a cascade, with its scheduler, and what it makes of what comes before it.

    What `Decoder`, `Interpolation` and `SuperResolution` have in common. Their arguments are
    attributes, which may be set anew.

    Args:
        model: predicts what the scheduler takes, as `model(x, timestep, **conditions)`: a
            SpaceTimeUnet, a model of diffusers of this library, or a function around one.
        scheduler: of diffusers, or one like it, with the schedule that `model` is trained by. What
            is said of noise and windows is of those that draw no noise in a step: DDIM,
            DPM-Solver++, Euler, Heun, UniPC.
        size: height and width of what it makes.
        window: frames that are computed at once.
        overlap: frames that a window is given of the one before, so that they agree.
        steps: of denoising.
        guidance: how strongly to follow `cond` and `context`, see `guide`; 1 is no guidance.
        takes: names of the conditions of a `Cascade` that `model` is given; those that it is
            built for if None, as `cond`, `context`, `context_mask` and `fps`.
        alpha: how much noise frames share, see `mixed_noise`; all of it at infinity.
    """

    @abstractmethod
    def example(self, clips: Tensor, generator: Generator | None = None) -> Example:
        """What to learn from clips (b c f h w), at random where it is for the stage to say."""

    @abstractmethod
    def before(self, clips: Tensor) -> Tensor | None:
        """What the stage before would have made of clips (b c f h w), to try this one on real ones.

        Fewer frames, or smaller ones, of images too (b c h w); None of a Decoder.
        """

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
        14), the clean clip, or the velocity (Salimans and Ho 2022, appendix D). Frames that are
        known count too, since in sampling they are denoised among the others.

        Args:
            clips: real ones (b c f h w) of `window` frames, or images (b c h w), in [-1, 1]; they
                are resized, and stretched where their proportions are others.
            model: what is called in the place of the stage's, such as a DDP wrapper of it.
            noise: of the shape of what is made; drawn if left out.
            timesteps: (b); drawn evenly if left out.
            generator: where randomness comes from.
            conditions: further arguments of the model.

        Raises:
            TypeError: if `clips` is no tensor.
            ValueError: if `clips` are of another rank or of integers, a condition is one that the
                stage sets itself, or the scheduler does not say how it noises, and what for.
        """
        self.must_be_valid()
        kind = must_be_learned_from(clips, self.scheduler)
        x, told = self.example(clips, generator)
        must_be_its_own(told, conditions)
        if noise is None:
            noise = noise_like(x, self.alpha, generator)
        if timesteps is None:
            total = len(self.scheduler.alphas_cumprod)  # type: ignore[attr-defined]
            timesteps = integers(total, len(x), generator)
        signal, sigma = signal_and_noise(self.scheduler, timesteps, x)
        noise, timesteps = noise.to(x), timesteps.to(x.device)
        called = self.model if model is None else model
        out = called(signal * x + sigma * noise, timesteps, **on(x.device, told), **conditions)
        predicted = prediction_of(out)[:, : x.shape[1]]  # and a variance, if it learns one
        targets = {"epsilon": noise, "sample": x, "v_prediction": signal * noise - sigma * x}
        return (predicted - targets[kind]).float().square().mean()

    def __call__(
        self,
        video: Tensor | None = None,
        *,
        batch: int | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        after_step: Callable[[], object] | None = None,
        after_window: Callable[[int, Tensor], object] | None = None,
        made: Callable[[int], Tensor | None] | None = None,
        **conditions: object,
    ) -> Tensor:
        """Sample, window by window.

        The result is on the CPU, and beside it no more memory is taken for a longer video. Noise is
        drawn on the CPU, so that devices differ by rounding only.

        Args:
            video: what comes before (b c f h w), if anything does.
            batch: how many videos, if neither `video` nor a condition (b ...) says it.
            seed: all that is random follows from it.
            device: where to compute; that of the model's first parameter if None, or the CPU.
            dtype: of the tensors that the model is given; that of its first parameter if None.
                Steps are taken in fp32 or more.
            after_step: called after each step of denoising.
            after_window: called with the number of a window and its new frames (b c f h w).
            made: gives what `after_window` was given in a run before, if it was, by the number.
            conditions: further arguments of the model, tensors (b ...) or numbers.

        Raises:
            ValueError: if `video` is none, or of another size than the stage takes, if numbers of
                videos differ, if a condition is one that the stage sets itself, or one that it
                cannot guide by.
        """
        self.must_take(video)
        parts = self.parts(0 if video is None else video.shape[2])
        must_be_guided_by(self.guidance, conditions)
        device, dtype = place_of(self.model, device, dtype)
        high = torch.promote_types(dtype, torch.float32)
        model = self.model if self.guidance == 1 else guide(self.model, self.guidance)
        b = count_of(batch, {"video": video, **conditions})
        c = self.channels if video is None else video.shape[1]
        out = torch.empty(b, c, parts[-1].stop, *self.size, dtype=high)

        def predict(told: dict[str, object], x: Tensor, timestep: Tensor) -> Tensor:
            predicted = prediction_of(model(x.to(dtype), timestep, **told)).to(high)
            return without_variance(predicted, c, self.scheduler)

        def computed(window: Window, clean: Tensor) -> Tensor:
            known, more = self.given(video, clean, window, seed)
            must_be_its_own(more, conditions)
            if bool(known.all()):
                return clean[:, :, window.done :]
            noise = noise_of_frames(clean.shape, window.start, self.alpha, seed, self.kind)
            new = denoised(
                partial(predict, on(device, {**more, **conditions}, dtype)),
                copy.deepcopy(self.scheduler), noise.to(device, high), self.steps,
                generator=Generator().manual_seed(seed_of(seed, "steps", window.start)),
                after_step=after_step,
            ).cpu()  # fmt: skip
            new[:, :, known] = clean[:, :, known]
            return new[:, :, window.done :]

        for number, window in enumerate(parts):
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


def on(
    device: torch.device | str, told: Mapping[str, object], dtype: torch.dtype | None = None
) -> dict[str, object]:
    """Conditions on a device, those of more than one number a sample in a dtype."""

    def moved(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        many = value.is_floating_point() and value.ndim > 1
        return value.to(device, dtype if many else None)

    return {name: moved(value) for name, value in told.items()}
