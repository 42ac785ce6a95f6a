"""Diffusion as the scripts share it: the noise, the loss, the training steps and the sampler.

Schedule and sampler are diffusers'. A model is any that predicts what the schedule says, the
velocity if it is that of these scripts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Generator, Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from make_a_video_pytorch import spatial_parameters, temporal_parameters
from make_a_video_pytorch.recipes import mixed_noise

Model = Callable[[Tensor, Tensor], Tensor]  # a noisy batch and its timesteps -> a prediction

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",  # Salimans and Ho 2022, section 4
    "clip_sample": True,
}


def noise_of(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard normal noise, of which the frames of a video share four fifths of the variance.

    What a noisy frame is denoised to then agrees with its neighbours from the start.
    """
    if len(shape) == 4:
        return torch.randn(shape, generator=generator)
    return mixed_noise(shape, alpha=2, generator=generator)


def diffusion_loss(
    model: Model,
    scheduler: DDPMScheduler,
    x: Tensor,
    generator: Generator,
    device: str,
    timesteps: Tensor | None = None,
) -> Tensor:
    """The squared error of what is predicted, by `scheduler`; at random timesteps, if not given."""
    noise = noise_of(x.shape, generator)
    if timesteps is None:
        steps = scheduler.config.num_train_timesteps
        timesteps = torch.randint(steps, x.shape[:1], generator=generator)
    x, noise, timesteps = x.to(device), noise.to(device), timesteps.to(device)
    predicted = model(scheduler.add_noise(x, noise, timesteps), timesteps)
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        return F.mse_loss(predicted, scheduler.get_velocity(x, noise, timesteps))
    return F.mse_loss(predicted, noise if kind == "epsilon" else x)


def high_timesteps(scheduler: DDPMScheduler, count: int, generator: Generator) -> Tensor:
    """Random timesteps (count), most of them where the noise is high and conditions tell most."""
    steps = scheduler.config.num_train_timesteps
    uniform = torch.rand(count, generator=generator)
    return ((1 - uniform**2) * steps).long().clamp(max=steps - 1)


def optimizer_for(unet: nn.Module) -> AdamW:
    """AdamW without weight decay on norms, biases and whatever starts as the identity.

    Decay pulls towards zero, and a temporal convolution is the identity at a dirac weight. The
    temporal parameters, which see clips only, learn twice as fast.
    """
    temporal = temporal_parameters(unet)
    weights = [parameter for parameter in spatial_parameters(unet) if parameter.ndim > 1]
    others = [parameter for parameter in spatial_parameters(unet) if parameter.ndim < 2]
    return AdamW(
        [
            {"params": weights, "weight_decay": 0.01, "speed": 1.0},
            {"params": others, "weight_decay": 0.0, "speed": 1.0},
            {"params": temporal, "weight_decay": 0.0, "speed": 2.0},
        ],
        betas=(0.9, 0.99),
        fused=True,
    )


def averaged(unet: nn.Module) -> AveragedModel:
    """An exponential moving average of the weights, which is what one samples from."""
    return AveragedModel(unet, multi_avg_fn=get_ema_multi_avg_fn(0.98))


def learning_rate(step: int, steps: int, highest: float) -> float:
    """A short linear rise, then a cosine down to a tenth."""
    rise = min(1.0, (step + 1) / 30)
    return highest * rise * (0.55 + 0.45 * math.cos(math.pi * step / steps))


def fit(
    unet: nn.Module,
    ema: AveragedModel,
    optimizer: Optimizer,
    loss_of: Callable[[Generator], Tensor],
    *,
    phase: str,
    steps: range,
    lr: float,
    seed: int,
    first: int = 0,
    after_step: Callable[[int], None] | None = None,
) -> list[float]:
    """Train `unet` and average it in `ema`; return the losses.

    Of the `steps`, those before number `first` were taken earlier. The learning rate is at most
    `lr`, times the `speed` of a parameter group that has one. `after_step` is told how many steps
    are taken.
    """
    taken = min(max(first - steps.start, 0), len(steps))
    losses = []
    with tqdm(total=len(steps), initial=taken, desc=phase, unit="step") as bar:
        for step in steps[taken:]:
            # A step's data and noise follow from its number, so that a resumed run is the
            # run that was interrupted.
            loss = loss_of(Generator().manual_seed(seed * 1_000_003 + step))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            for group in optimizer.param_groups:
                highest = lr * group.get("speed", 1.0)
                group["lr"] = learning_rate(step - steps.start, len(steps), highest)
            optimizer.step()
            ema.update_parameters(unet)
            losses.append(loss.item())
            bar.set_postfix(loss=f"{fmean(losses[-50:]):.4f}")
            bar.update()
            if after_step is not None:
                after_step(step + 1)
    return losses


@torch.no_grad()
def sample(
    model: Model,
    shape: tuple[int, ...],
    steps: int,
    generator: Generator,
    device: str,
    *,
    schedule: Mapping[str, object] = SCHEDULE,
    clamped: bool = True,
) -> Tensor:
    """Videos of `shape` (b c f h w), in [-1, 1] if they are `clamped`, denoised by DDIM."""
    settings = {**schedule, "clip_sample": clamped, "timestep_spacing": "trailing"}
    scheduler = DDIMScheduler.from_config(settings)
    scheduler.set_timesteps(steps)
    videos = noise_of(shape, generator).to(device)
    for timestep in tqdm(scheduler.timesteps, desc="sampling", unit="step"):
        predicted = model(videos, timestep)
        videos = scheduler.step(predicted, timestep, videos).prev_sample
    return videos.clamp(-1, 1).cpu() if clamped else videos.cpu()


def psnr(clips: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels, of pictures in [-1, 1], the mean over clips."""
    error = (clips - truth).square().flatten(1).mean(1)
    return float((10 * torch.log10(4 / error)).mean())
