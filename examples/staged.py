"""A stage of a cascade that `save_cascade` wrote, as the training script trains it.

The stage says how large its clips are and how it is sampled; its model is what is trained.
"""

from __future__ import annotations

import argparse
import copy
import shutil
from pathlib import Path

import torch
from batch import Batch
from building import Sources
from cache import UNREADABLE, reason_of
from draws import Draws
from errors import DataError
from loading import batches
from torch import Tensor, nn

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.cascade import Decoder, Interpolation, Stage
from make_a_video_pytorch.integrations.diffusers import SpaceTimeUnetModel, load_cascade


def opened(args: argparse.Namespace) -> Stage:
    """The stage of `--stage`, its U-Net grown from that of `--grow` beside it, if given.

    What it decides is set in `args`.

    Raises:
        DataError: if there is none, it is not of a SpaceTimeUnet or not square, or cannot grow so.
    """
    path, grow = args.stage, args.grow
    unet, older = path / "unet", path / "unet.older"
    if older.exists() and not unet.exists():  # see `keep`, which was stopped
        older.rename(unet)
    try:
        stages = load_cascade(path.parent).stages
    except UNREADABLE as error:
        raise DataError(f"{path.parent} holds no cascade: {reason_of(error)}") from error
    for name in (path.name, grow or path.name):
        if name not in stages:
            raise DataError(f"no stage {name!r} in {path.parent}: there are {', '.join(stages)}")
    stage = stages[path.name]
    stage.model = unet_of(stage)
    if stage.size[0] != stage.size[1]:
        raise DataError(f"{path} makes frames of {stage.size}, and clips are read as squares")
    if grow is not None:
        other = unet_of(stages[grow])
        changed = {k: v for k, v in stage.model.config.items() if other.config[k] != v}
        try:
            stage.model = other.grow(**changed)
        except ValueError as error:
            raise DataError(f"{path} cannot grow from {grow}: {error}") from error
    as_the_stage_has_it(args, stage)
    black = Batch(torch.zeros(1, stage.model.channels, args.frames, *stage.size))
    try:
        with torch.no_grad():
            stage.loss(black.samples)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} cannot be trained: {reason_of(error)}") from error
    return stage


def unet_of(stage: Stage) -> SpaceTimeUnet:
    """The U-Net of a stage.

    Raises:
        DataError: if it has another model.
    """
    unet = getattr(stage.model, "unet", stage.model)
    if not isinstance(unet, SpaceTimeUnet):
        raise DataError(f"the stage has a {type(unet).__name__}, and a SpaceTimeUnet is trained")
    return unet


def as_the_stage_has_it(args: argparse.Namespace, stage: Stage) -> None:
    """Set the options that the stage decides, and say what it learns from.

    Raises:
        DataError: if nothing is left to train.
    """
    args.size, args.frames = stage.size[0], stage.window
    alone = ""
    if isinstance(stage, Interpolation):
        args.steps_images, args.joint, alone = 0, 0.0, ", and from no images"
    elif not getattr(stage, "enable_time", True):
        args.steps_video, args.frames, alone = 0, 1, ", and from no clips"
    if args.sample is not None or args.evaluate is not None:
        return
    print(f"the stage learns from {args.frames} frames of {args.size}x{args.size}{alone}")
    if not args.steps_images + args.steps_video:
        raise DataError("--steps-images and --steps-video leave the stage nothing to learn")


def stage_loss(
    model: nn.Module,
    stage: Stage,
    x: Tensor,
    draws: Draws,
    device: str | torch.device,
    timesteps: Tensor | None = None,
) -> Tensor:
    """The loss of a stage, in the place of `diffusion_loss`.

    The clips of a step are the same however it is shared out; noise and windows are not.
    """
    (generator,) = draws.generators(1)
    return stage.loss(x.to(device), model=model, timesteps=timesteps, generator=generator)


def real_clips(args: argparse.Namespace, found: Sources) -> Batch:
    """Clips for a stage to go on from, held-out ones if there are such.

    They are those of the middle of a training, of rates that are neither high nor low.
    """
    source = found.clips if found.held_out is None else found.held_out
    asked = {"first": 1, "seed": args.seed, "workers": 0}
    return batches(source, range(2), args.clips, args.frames, **asked)(Draws(args.seed, 1))


def made_by(
    stage: Stage,
    unet: SpaceTimeUnet,
    real: Batch | None,
    own: list[int],
    told: dict[str, Tensor | float],
    args: argparse.Namespace,
) -> Tensor:
    """Those videos (b c f h w) that are `own`, which a stage makes with this U-Net of real ones."""
    stage = copy.copy(stage)
    stage.model = unet
    if args.guidance is not None:
        stage.guidance = args.guidance
    if not {"cond", "context"} & {*told}:
        stage.guidance = 1  # there is nothing to follow
    before = None if real is None else stage.before(real.videos)[own]
    if isinstance(stage, Interpolation) and stage.frames_of(before.shape[2]) < stage.window:
        before = torch.cat((before, before[:, :, -1:]), dim=2)  # so that there is a whole window
    given = {"batch": len(own), "seed": args.seed + own[0], "device": args.device}
    return stage(before, **given, **told)[:, :, : args.frames].clamp(-1, 1)


def first_of_all(stage: Stage | None) -> bool:
    """Whether nothing comes before a stage, if it is one."""
    return stage is None or isinstance(stage, Decoder)


def keep(path: Path, checkpoint: Path) -> None:
    """Put the averaged U-Net of a checkpoint in the place of that of the stage FOLDER/NAME."""
    folder = path / "unet"
    part, older = folder.with_name("unet.part"), folder.with_name("unet.older")
    for left in (part, older):  # by a run that was stopped here
        shutil.rmtree(left, ignore_errors=True)
    SpaceTimeUnetModel.from_pretrained(checkpoint, low_cpu_mem_usage=False).save_pretrained(part)
    folder.rename(older)
    part.rename(folder)
    shutil.rmtree(older)
