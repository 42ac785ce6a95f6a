"""The training of a U-Net as the command line says: first images, then clips."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from accelerate import Accelerator
from batch import Batch
from building import Encoders, Sources, conditions, sources, start
from checkpoints import Training, last_checkpoint, load_optimizer, load_training, save_checkpoint
from clips import write_videos
from diffusion import averaged, optimizer_for
from draws import Draws
from errors import DataError
from evaluation import denoising_of, held_out_losses
from fitting import fit
from inflated import Inflated
from loading import Share, batches, shared_out
from metrics import Metrics
from options import remembered
from processes import main_first
from sampling import sampled
from sharding import shard
from staged import first_of_all, keep, real_clips
from torch import Tensor, nn

from make_a_video_pytorch import SpaceTimeUnet, temporal_parameters
from make_a_video_pytorch.cascade import Stage

Parts = Sequence[tuple[float, Callable[[Draws], Batch]]]  # of a loss: a weight, and batches


class Phase(NamedTuple):
    """Some steps of a training."""

    name: str
    steps: range
    lr: float
    most: int  # samples that a process computes at once
    frames: int  # of a sample
    images: float  # the share of images among the frames


def phases(args: argparse.Namespace) -> tuple[Phase, Phase]:
    """Images, then clips, at a quarter of the rate, to keep what images taught.

    Where only motion is trained, there is nothing to keep, and it is half.
    """
    total = args.steps_images + args.steps_video
    slower, joint = (4 if args.inflate is None else 2), args.joint
    if joint is None:
        joint = 0.5 if args.data == "digits" or args.images is not None else 0.0
    return (
        Phase("images", range(args.steps_images), args.lr, args.batch_images, 1, 1.0),
        Phase("video", range(args.steps_images, total), args.lr / slower, args.batch_video,
              args.frames, joint),
    )  # fmt: skip


class Plan(NamedTuple):
    """How the processes compute a phase."""

    phase: Phase
    batch: int  # clips in a step, of all processes, or images of as many frames
    share: Share
    clips: int  # in each share of a step
    images: int


def plans(args: argparse.Namespace, accelerator: Accelerator, first: int) -> list[Plan]:
    """How the phases are computed that are not done after `first` steps.

    Raises:
        DataError: if clips or images cannot be shared out equally.
    """
    found = []
    process, processes = accelerator.process_index, accelerator.num_processes
    for phase in phases(args):
        if phase.steps.stop <= max(first, phase.steps.start):
            continue
        batch = phase.most * args.gradient_accumulation * args.processes
        share = Share(process, processes, shared_out(batch, processes, phase.most)[1])
        _, shares = share.of(0)
        counts = []
        for weight, frames in ((1 - phase.images, phase.frames), (phase.images, 1)):
            total = max(round(weight * batch * phase.frames / frames), 1) if weight else 0
            if total % shares and args.joint is not None:  # else each share has one more
                raise DataError(
                    f"--joint {args.joint} makes {total} samples of {frames} frames in a step, and "
                    f"{shares} shares cannot have as many each"
                )
            counts.append(-(-total // shares))
        found.append(Plan(phase, batch, share, *counts))
    return found


def parts_of(args: argparse.Namespace, plan: Plan, found: Sources, first: int) -> Parts:
    """Where the batches of a phase come from."""
    phase = plan.phase
    given = {"first": first, "seed": args.seed, "workers": args.workers, "share": plan.share}
    return [
        (weight, batches(source, phase.steps, count, frames, **given))
        for weight, source, count, frames in (
            (1 - phase.images, found.clips, plan.clips, phase.frames),
            (phase.images, found.images, plan.images, 1),
        )
        if count
    ]


def loss_of(
    unet: SpaceTimeUnet | Inflated,
    encoders: Encoders,
    denoising: Callable[..., Tensor],
    parts: Parts,
    device: torch.device,
    model: nn.Module,
    draws: Draws,
) -> Tensor:
    """The loss of the next batch of each of `parts`, by its weight; `model` calls `unet`.

    `denoising` is that of `denoising_of`.
    """
    loss = torch.zeros((), device=device)
    for weight, next_batch in parts:
        with torch.autocast("cpu", enabled=False):  # files are read as they are
            batch = next_batch(draws)
        x = batch.samples
        told = partial(
            model, **conditions(unet, encoders, batch, device, draws.uniform(len(x)) < 0.1)
        )
        loss = loss + weight * denoising(told, x=x, draws=draws, device=device)
    return loss


def begin(
    args: argparse.Namespace,
    unet: SpaceTimeUnet | Inflated,
    encoders: Encoders,
    accelerator: Accelerator,
    resumed: Path | None,
) -> tuple[Training, int]:
    """What is trained, on from a checkpoint if any, and the steps that were taken."""
    sharded = args.shard and accelerator.num_processes > 1
    bare = copy.deepcopy(unet) if sharded and accelerator.is_main_process else None
    unet.to(args.device)
    ema = averaged(unet)
    ema.eval()
    state = None if resumed is None else load_training(resumed, unet, ema)
    if sharded:
        for model in (unet, ema.module):
            shard(model, accelerator.device)
    optimizer = optimizer_for(unet)
    training = Training(unet, ema, optimizer, accelerator, bare, encoders.embedding)
    if args.compile:
        unet.compile(dynamic=False)  # there are few shapes; one for all fails to compile on a CPU
    if state is None:
        return training, 0
    load_optimizer(resumed, state, training)
    return training, state["step"]


def train(
    args: argparse.Namespace,
    encoders: Encoders,
    accelerator: Accelerator,
    resumed: Path | None,
    stage: Stage | None = None,
) -> tuple[SpaceTimeUnet | Inflated, Batch | None]:
    """Train on from a checkpoint, if any, or a stage of a cascade; return the averaged U-Net.

    And real clips, which a stage that is not the first goes on from.

    Raises:
        DataError: if something that the command line names cannot be used.
        RunError: if it cannot go on.
    """
    torch.manual_seed(args.seed)
    with main_first(accelerator):
        unet = start(args, encoders, resumed, stage)
        found = sources(args, encoders, unet)
    real = None if first_of_all(stage) else real_clips(args, found)
    training, first = begin(args, unet, encoders, accelerator, resumed)
    ema, denoising = training.ema, denoising_of(unet, stage)
    planned = plans(args, accelerator, first)  # both phases, before hours of the first
    metrics = Metrics(accelerator, args.out, first, remembered(args))
    total = args.steps_images + args.steps_video

    def look(phase: Phase, step: int) -> None:
        if found.held_out is not None:
            losses = held_out_losses(
                ema.module, encoders, stage, found.held_out, accelerator,
                frames=phase.frames, device=args.device,
            )  # fmt: skip
            at = {f"held_out_loss_at_{timestep}": loss for timestep, loss in losses.items()}
            mean = fmean(losses.values())
            metrics(step, {"phase": phase.name, "held_out_loss": mean, **at})
        if step == total:  # whose samples are those of the run
            return
        videos = sampled(args, encoders, ema.module, accelerator, stage, real, shown=False)
        if accelerator.is_main_process:
            (args.out / "samples").mkdir(exist_ok=True)
            write_videos(videos, args.out / "samples", f"step-{step:06d}", args.sample_fps)

    def after(phase: Phase, step: int) -> None:
        at_an_end = step in (args.steps_images, total)
        if step % args.evaluate_every == 0 or at_an_end:
            look(phase, step)
        if step % args.save_every == 0 or at_an_end:
            save_checkpoint(args.out, step, training, remembered(args))

    for plan in planned:
        phase, waiting = plan.phase, parts_of(args, plan, found, first)
        losses = fit(
            accelerator, unet, ema, training.optimizer,
            partial(loss_of, unet, encoders, denoising, waiting, args.device),
            phase=phase.name, steps=phase.steps, lr=phase.lr, seed=args.seed, batch=plan.batch,
            first=first, parts=plan.share.parts,
            unused=temporal_parameters(unet) if phase.frames == 1 else (),
            after_step=partial(after, phase), report=metrics,
        )  # fmt: skip
        if losses:
            tenth = max(len(losses) // 10, 1)
            at_first, at_last = fmean(losses[:tenth]), fmean(losses[-tenth:])
            print(f"{phase.name}: loss {at_first:.4f} at first, {at_last:.4f} at last")
    if planned and stage is not None and accelerator.is_main_process:
        keep(args.stage, last_checkpoint(args.out))
    return ema.module, real
