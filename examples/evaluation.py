"""How well a U-Net denoises what it was never trained on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from accelerate import Accelerator
from building import Encoders, conditions
from diffusers import DDPMScheduler
from diffusion import diffusion_loss
from draws import Draws
from inflated import Inflated
from loading import ALONE, Share, Source, batches
from sampling import schedule_of
from staged import stage_loss
from torch import Tensor

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.cascade import Stage

LEVELS = 8
STEPS, CLIPS = 4, 8  # batches, each of one bucket, and clips in one


def denoising_of(unet: SpaceTimeUnet | Inflated, stage: Stage | None) -> Callable[..., Tensor]:
    """The loss of a `model`, by `x`, `draws`, `device` and perhaps `timesteps`, see `Draws`.

    That of a stage of a cascade, or of the diffusion of whole clips.
    """
    if stage is not None:
        return partial(stage_loss, stage=stage)
    return partial(diffusion_loss, scheduler=scheduler_of(unet, stage))


def scheduler_of(unet: SpaceTimeUnet | Inflated, stage: Stage | None) -> DDPMScheduler:
    """The scheduler of a stage, or of these scripts, by which a U-Net is trained."""
    return DDPMScheduler.from_config(schedule_of(unet)) if stage is None else stage.scheduler


def timesteps_of(scheduler: DDPMScheduler) -> list[int]:
    """The timesteps of eight noise levels, each in the middle of an eighth of the schedule."""
    steps = scheduler.config.num_train_timesteps
    return [(2 * level + 1) * steps // (2 * LEVELS) for level in range(LEVELS)]


@torch.no_grad()
def held_out_losses(
    unet: SpaceTimeUnet | Inflated,
    encoders: Encoders,
    stage: Stage | None,
    source: Source,
    accelerator: Accelerator,
    *,
    frames: int,
    device: str | torch.device,
) -> dict[int, float]:
    """The loss at eight timesteps, of clips of so many frames, or images: the mean over 32 clips.

    Clips and noise are the same at every call and timestep, and however many processes there are,
    but for a stage, see `stage_loss`.
    """
    share = Share(accelerator.process_index, accelerator.num_processes)
    if CLIPS % share.processes:  # each measures all of them
        share = ALONE
    count = CLIPS // share.processes
    following = batches(
        source, range(STEPS), count, frames, first=0, seed=0, workers=0, share=share
    )
    denoising, timesteps = denoising_of(unet, stage), timesteps_of(scheduler_of(unet, stage))
    losses = torch.zeros(LEVELS, device=accelerator.device)
    for step in range(STEPS):
        batch = following(Draws(1, step, *share.of(0)))
        model = partial(unet, **conditions(unet, encoders, batch, device))
        for level, timestep in enumerate(timesteps):
            at, draws = torch.full((count,), timestep), Draws(2, step, *share.of(0))
            with accelerator.autocast():
                given = {"x": batch.samples, "draws": draws, "device": device}
                loss = denoising(model, timesteps=at, **given)
            losses[level] += loss / STEPS
    means = accelerator.reduce(losses, reduction="mean").tolist()
    return dict(zip(timesteps, means, strict=True))
