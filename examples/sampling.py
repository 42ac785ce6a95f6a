"""Videos that a trained U-Net makes."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather
from batch import Batch
from building import Encoders, conditions
from clips import MovingDigits, named
from diffusion import SCHEDULE, sample
from draws import noise_of
from inflated import Inflated
from staged import made_by
from torch import Generator, Tensor

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.cascade import Stage
from make_a_video_pytorch.guidance import guide


def schedule_of(unet: SpaceTimeUnet | Inflated) -> dict:
    """The settings of the scheduler: those of an image model, or of these scripts."""
    return unet.schedule if isinstance(unet, Inflated) else SCHEDULE


def conditions_of_samples(
    args: argparse.Namespace, encoders: Encoders, unet: SpaceTimeUnet | Inflated
) -> dict[str, Tensor]:
    """What samples follow: the digits in turn, or the prompts."""
    lead: dict[str, Tensor] = {}
    digits = torch.arange(args.clips) % MovingDigits.cond_dim
    if encoders.embedding is not None:
        lead["cond"] = encoders.embedding.means[digits]  # clearer than those that are drawn
    elif unet.cond_dim is not None:
        lead["cond"] = named(digits)
    if encoders.texts is not None and args.prompt:
        texts = [args.prompt[number % len(args.prompt)] for number in range(args.clips)]
        lead |= encoders.texts.conditions(texts)
    return encoders.told(lead)


def say_what_does_nothing(
    args: argparse.Namespace, encoders: Encoders, unet: SpaceTimeUnet | Inflated
) -> None:
    """Which options of samples this U-Net has no use for."""
    if encoders.texts is None and args.prompt:
        print("--prompt does nothing: there is no --text-encoder")
    if args.guidance is not None and not conditions_of_samples(args, encoders, unet):
        print(f"--guidance {args.guidance} does nothing: the U-Net is told nothing to follow")


def denoised(
    args: argparse.Namespace,
    encoders: Encoders,
    unet: SpaceTimeUnet | Inflated,
    own: list[int],
    shown: bool,
) -> Tensor:
    """Those videos (b c f h w) of all samples that are `own`."""
    size = args.size // encoders.factor
    shape = (args.clips, unet.channels, args.frames, size, size)
    noise = noise_of(shape, Generator().manual_seed(args.seed))[own]
    given: dict[str, object] = {}
    if unet.config["condition_on_fps"]:
        given["fps"] = args.sample_fps
    model = partial(unet, **given)
    lead = conditions_of_samples(args, encoders, unet)
    if lead:
        lead = {name: value[own].to(args.device) for name, value in lead.items()}
        null = None if encoders.texts is None else encoders.texts.nothing()
        scale = args.guidance
        if scale is None:
            scale = 2.0 if encoders.embedding is None else 1.5
        model = partial(guide(unet, scale, null=null), **lead, **given)
    clamped = encoders.pictures is None
    videos = sample(
        model, noise, args.sampling_steps, args.device,
        schedule=schedule_of(unet), clamped=clamped, shown=shown,
    )  # fmt: skip
    return videos if clamped else encoders.pictures.decode(videos)


def sampled(
    args: argparse.Namespace,
    encoders: Encoders,
    unet: SpaceTimeUnet | Inflated,
    accelerator: Accelerator,
    stage: Stage | None = None,
    real: Batch | None = None,
    *,
    shown: bool = True,
) -> Tensor:
    """Videos (b c f h w) that the U-Net makes, each process some of them, and all have them all.

    As a stage of a cascade, it goes on from `real` ones. The progress is `shown`, by one of them.
    """
    # as many for each, for shards of a U-Net are put together in step
    count = -(-args.clips // accelerator.num_processes)
    start = accelerator.process_index * count
    own = (torch.arange(start, start + count) % args.clips).tolist()
    if stage is None:
        videos = denoised(args, encoders, unet, own, shown and accelerator.is_main_process)
    else:
        told = conditions_of_samples(args, encoders, unet)
        if real is not None:
            told = conditions(unet, encoders, real, args.device)
        told = {name: value[own].to(args.device) for name, value in told.items()}
        if real is None and "fps" in stage.taken:
            told["fps"] = args.sample_fps
        videos = made_by(stage, unet, real, own, told, args)
    if accelerator.num_processes > 1:
        videos = gather(videos.to(accelerator.device))[: args.clips].cpu()
    return videos


def free_name(out: Path) -> str:
    """What samples are called that were asked for alone, and overwrite nothing."""
    number = 1
    while (out / f"sampled-{number}.gif").exists() or (out / f"sampled-{number}.png").exists():
        number += 1
    return f"sampled-{number}"
