"""Sampling with a scheduler of diffusers, which the core does not import.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Generator, Tensor


class Stepped(Protocol):
    """What a scheduler gives for a step."""

    prev_sample: Tensor


@runtime_checkable
class Scheduler(Protocol):
    """What of a scheduler of diffusers is used."""

    timesteps: Tensor

    def set_timesteps(self, num_inference_steps: int, *, device: torch.device) -> None:
        """Begin anew, with so many steps."""

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> Stepped:
        """A step towards less noise."""


@torch.no_grad()
def denoised(
    model: Callable[..., object],
    scheduler: Scheduler,
    noise: Tensor,
    steps: int,
    *,
    generator: Generator | None = None,
    after_step: Callable[[], object] | None = None,
) -> Tensor:
    """What becomes of standard normal `noise`; the `scheduler` begins anew, and is changed.

    The `generator` is for steps that draw noise; `after_step` is called after each.
    """
    given = {"generator": generator}
    options = {n: v for n, v in given.items() if n in inspect.signature(scheduler.step).parameters}
    as_input = getattr(scheduler, "scale_model_input", lambda x, timestep: x)
    scheduler.set_timesteps(steps, device=noise.device)
    x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for timestep in scheduler.timesteps:
        predicted = prediction_of(model(as_input(x, timestep), timestep))
        x = scheduler.step(predicted, timestep, x, **options).prev_sample
        if after_step is not None:
            after_step()
    return x


def prediction_of(out: object) -> Tensor:
    """The tensor that a model gives, or the first one of a tuple or of an output of diffusers."""
    return out if isinstance(out, Tensor) else cast("Sequence[Tensor]", out)[0]


def without_variance(predicted: Tensor, channels: int, scheduler: object) -> Tensor:
    """A prediction (b c f h w), but for a learned variance that the scheduler has no use for."""
    kind = getattr(getattr(scheduler, "config", None), "variance_type", None) or ""
    if predicted.shape[1] == 2 * channels and not kind.startswith("learned"):
        return predicted[:, :channels]
    return predicted


def steps_of(scheduler: Scheduler, steps: int) -> int:
    """How many predictions it takes; a scheduler may make several a step."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps, device=torch.device("cpu"))
    return len(scheduler.timesteps)


def signal_and_noise(scheduler: Scheduler, level: Tensor | int, x: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of what is clean and of noise at a timestep, one (1 1 ...) or each (b 1 ...).

    Not by `add_noise`, which, of schedulers that count in sigmas, knows the timesteps of the steps
    only (diffusers 0.39).

    Raises:
        ValueError: if the scheduler has no such timestep, or no `alphas_cumprod` at all.
    """
    alphas = getattr(scheduler, "alphas_cumprod", torch.empty(0))
    levels = torch.as_tensor(level).cpu().long().reshape(-1)
    if not all(0 <= number < len(alphas) for number in levels.tolist()):
        wrong = next(number for number in levels.tolist() if not 0 <= number < len(alphas))
        raise ValueError(
            f"`level` (={wrong}) must be from 0 to below {len(alphas)}, the number of "
            f"`alphas_cumprod` of `scheduler` (a {type(scheduler).__name__})"
        )
    alpha = alphas[levels].view(-1, *[1] * (x.ndim - 1))  # few bits would make small noise none
    return alpha.sqrt().to(x.device, x.dtype), (1 - alpha).sqrt().to(x.device, x.dtype)
