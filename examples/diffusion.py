"""Diffusion as the scripts share it: the loss, the optimizer and the sampler.

Schedule and sampler are diffusers'. A model is any that predicts what the schedule says, the
velocity if it is that of these scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler
from draws import Draws
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from make_a_video_pytorch import spatial_parameters, temporal_parameters

Model = Callable[[Tensor, Tensor], Tensor]  # a noisy batch and its timesteps -> a prediction

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",  # Salimans and Ho 2022, section 4
    "clip_sample": True,
}


def diffusion_loss(
    model: Model,
    scheduler: DDPMScheduler,
    x: Tensor,
    draws: Draws,
    device: str | torch.device,
    timesteps: Tensor | None = None,
) -> Tensor:
    """The squared error of what is predicted, by `scheduler`; at random timesteps, if not given."""
    noise = draws.noise(x.shape)
    if timesteps is None:
        timesteps = draws.integers(scheduler.config.num_train_timesteps, len(x))
    x, noise, timesteps = x.to(device), noise.to(device), timesteps.to(device)
    predicted = model(scheduler.add_noise(x, noise, timesteps), timesteps)
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        return F.mse_loss(predicted, scheduler.get_velocity(x, noise, timesteps))
    return F.mse_loss(predicted, noise if kind == "epsilon" else x)


def high_timesteps(scheduler: DDPMScheduler, count: int, draws: Draws) -> Tensor:
    """Random timesteps (count), most of them where the noise is high and conditions tell most."""
    steps = scheduler.config.num_train_timesteps
    return ((1 - draws.uniform(count) ** 2) * steps).long().clamp(max=steps - 1)


def optimizer_for(unet: nn.Module, speed: float = 2.0) -> AdamW:
    """AdamW without weight decay on norms, biases and whatever starts as the identity.

    Decay pulls towards zero, and a temporal convolution is the identity at a dirac weight. The
    temporal parameters, which see clips only, learn `speed` times as fast.
    """
    temporal = temporal_parameters(unet)
    weights = [parameter for parameter in spatial_parameters(unet) if parameter.ndim > 1]
    others = [parameter for parameter in spatial_parameters(unet) if parameter.ndim < 2]
    return AdamW(
        [
            {"params": weights, "weight_decay": 0.01, "speed": 1.0},
            {"params": others, "weight_decay": 0.0, "speed": 1.0},
            {"params": temporal, "weight_decay": 0.0, "speed": speed},
        ],
        betas=(0.9, 0.99),
        fused=True,
    )


def averaged(unet: nn.Module) -> AveragedModel:
    """An exponential moving average of the weights, which is what one samples from."""
    return AveragedModel(unet, multi_avg_fn=get_ema_multi_avg_fn(0.98))


def sampler(schedule: Mapping[str, object] = SCHEDULE, *, clamped: bool = True) -> DDIMScheduler:
    """DDIM for such a schedule; what it predicts of clean pictures is `clamped` to [-1, 1]."""
    settings = {**schedule, "clip_sample": clamped, "timestep_spacing": "trailing"}
    return DDIMScheduler.from_config(settings)


@torch.no_grad()
def sample(
    model: Model,
    noise: Tensor,
    steps: int,
    device: str | torch.device,
    *,
    schedule: Mapping[str, object] = SCHEDULE,
    clamped: bool = True,
    shown: bool = True,
) -> Tensor:
    """Videos out of `noise` (b c f h w), in [-1, 1] if they are `clamped`, denoised by DDIM.

    The progress is `shown`.
    """
    scheduler = sampler(schedule, clamped=clamped)
    scheduler.set_timesteps(steps)
    videos = noise.to(device)
    for timestep in tqdm(scheduler.timesteps, desc="sampling", unit="step", disable=not shown):
        predicted = model(videos, timestep)
        videos = scheduler.step(predicted, timestep, videos).prev_sample
    return videos.clamp(-1, 1).cpu() if clamped else videos.cpu()


def psnr(clips: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels, of pictures in [-1, 1], the mean over clips."""
    error = (clips - truth).square().flatten(1).mean(1)
    return float((10 * torch.log10(4 / error)).mean())
