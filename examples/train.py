"""Train a small SpaceTimeUnet first on images, then on clips, and sample videos from it.

    python examples/train.py                         # moving digits: six minutes on two cores
    python examples/train.py --data clips/ --size 64 # a folder of videos of your own
    python examples/train.py --data clips/ --images pictures/ --size 64
    python examples/train.py --resume                # go on after an interruption
    python examples/train.py --sample runs/train     # only sample, from the last checkpoint

The order is that of Make-A-Video (Singer et al. 2022): images teach the spatial parts what
things look like while the temporal parts are skipped; then, starting from identities, those
learn motion from videos. The digits' names stand for the text; a name is dropped from a tenth of
the samples, for classifier-free guidance. Noise schedule and sampler are diffusers'; the frames
of a clip share most of their noise (PYoCo, Ge et al. 2023), which spares many steps. Clips of
videos are drawn at many frame rates, from high ones to low ones, and the U-Net is told which.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from building import Encoders, conditioned, encoders_of, sources, start
from checkpoints import (
    checkpoints,
    last_checkpoint,
    load_training,
    load_unet,
    options_of,
    save_checkpoint,
)
from clips import named, write_videos
from collection import Batch
from command_line import Parser, make_folder
from diffusers import DDPMScheduler
from diffusion import SCHEDULE, averaged, diffusion_loss, fit, optimizer_for, sample
from errors import DataError
from inflated import Inflated
from loading import batches
from options import GUIDANCE, check, compare, parser_of, remembered
from torch import Generator, Tensor

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.guidance import guide


def parser() -> Parser:
    """The command line."""
    return parser_of(__doc__)


def loss_of(
    unet: SpaceTimeUnet | Inflated,
    encoders: Encoders,
    scheduler: DDPMScheduler,
    batches: Sequence[tuple[float, Callable[[Generator], Batch]]],
    device: str,
    generator: Generator,
) -> Tensor:
    """The loss of the next batch of each of `batches`, by its weight."""
    loss = torch.zeros((), device=device)
    for weight, next_batch in batches:
        batch = next_batch(generator)
        x = batch.videos.squeeze(2) if batch.videos.shape[2] == 1 else batch.videos  # an image
        model = conditioned(unet, encoders, batch, device, generator)
        loss = loss + weight * diffusion_loss(model, scheduler, x, generator, device)
    return loss


def train(
    args: argparse.Namespace, encoders: Encoders, resumed: Path | None
) -> SpaceTimeUnet | Inflated:
    """Train as the command line says, on from a checkpoint if any; return the averaged U-Net."""
    torch.manual_seed(args.seed)
    unet = start(args, encoders, resumed).to(args.device)
    images, clips = sources(args, encoders, unet)
    ema, optimizer = averaged(unet), optimizer_for(unet)
    first = 0 if resumed is None else load_training(resumed, unet, ema, optimizer, args.device)
    scheduler = DDPMScheduler.from_config(schedule_of(unet))
    total = args.steps_images + args.steps_video
    share = args.joint  # of images in a step of the second phase, whose frames are as many
    few_images = max(round(share * args.batch_video * args.frames), 1)
    few_clips = max(round((1 - share) * args.batch_video), 1)

    def save(step: int) -> None:
        if step % args.save_every == 0 or step in (args.steps_images, total):
            save_checkpoint(args.out, step, unet, ema, optimizer, remembered(args))

    in_images = [(1.0, images, args.batch_images, 1)]
    in_video = [(1 - share, clips, few_clips, args.frames), (share, images, few_images, 1)]
    for phase, steps, lr, parts in (
        ("images", range(args.steps_images), args.lr, in_images),
        # at half the rate, to keep what images taught
        ("video", range(args.steps_images, total), args.lr / 2, in_video),
    ):
        going_on = {"first": first, "seed": args.seed, "workers": args.workers}
        waiting = [
            (weight, batches(source, steps, count, length, **going_on))
            for weight, source, count, length in parts
            if weight > 0
        ]
        losses = fit(
            unet, ema, optimizer, partial(loss_of, unet, encoders, scheduler, waiting, args.device),
            phase=phase, steps=steps, lr=lr, seed=args.seed, first=first, after_step=save,
        )  # fmt: skip
        if losses:
            tenth = max(len(losses) // 10, 1)
            at_first, at_last = fmean(losses[:tenth]), fmean(losses[-tenth:])
            print(f"{phase}: loss {at_first:.4f} at first, {at_last:.4f} at last")
    return ema.module


def schedule_of(unet: SpaceTimeUnet | Inflated) -> dict:
    """The settings of the scheduler: those of an image model, or of these scripts."""
    return unet.schedule if isinstance(unet, Inflated) else SCHEDULE


def sampled(args: argparse.Namespace, encoders: Encoders, unet: SpaceTimeUnet | Inflated) -> Tensor:
    """Videos that the U-Net makes."""
    given: dict[str, object] = {}
    if unet.config["condition_on_fps"]:
        given["fps"] = args.sample_fps
    lead: dict[str, Tensor] = {}
    if unet.cond_dim is not None:
        lead["cond"] = named(torch.arange(args.clips) % 10)
    if encoders.texts is not None and args.prompt:
        encoders.texts.prepare(["", *args.prompt])
        texts = [args.prompt[number % len(args.prompt)] for number in range(args.clips)]
        lead |= encoders.texts.conditions(texts)
    elif args.prompt:
        print("--prompt does nothing: there is no --text-encoder")
    model = partial(unet, **given)
    if lead:
        lead = {name: value.to(args.device) for name, value in lead.items()}
        null = None if encoders.texts is None else encoders.texts.nothing()
        model = partial(guide(unet, args.guidance, null=null), **lead, **given)
    elif args.guidance != GUIDANCE:
        print(f"--guidance {args.guidance} does nothing: the U-Net is told nothing to follow")
    size = args.size // encoders.factor
    shape = (args.clips, unet.channels, args.frames, size, size)
    generator = Generator().manual_seed(args.seed)
    clamped = encoders.pictures is None
    videos = sample(
        model, shape, args.sampling_steps, generator, args.device,
        schedule=schedule_of(unet), clamped=clamped,
    )  # fmt: skip
    return videos if clamped else encoders.pictures.decode(videos)


def free_name(out: Path) -> str:
    """What samples are called that were asked for alone, and overwrite nothing."""
    number = 1
    while (out / f"sampled-{number}.gif").exists() or (out / f"sampled-{number}.png").exists():
        number += 1
    return f"sampled-{number}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments`."""
    command = parser()
    args = command.parse_args(arguments)
    checkpoint = None
    try:
        if args.resume or args.sample is not None:
            checkpoint = last_checkpoint(args.sample or args.out)
            before = options_of(checkpoint)
            # what the command line leaves out is as it was when the checkpoint was written
            command.set_defaults(**before, out=args.sample or args.out)
            args = command.parse_args(arguments)
            for name in ("images", "config", "inflate", "text_encoder", "vae", "cache"):
                path = getattr(args, name)
                setattr(args, name, None if path is None else Path(path))
            if args.resume:
                compare(args, before)
        check(args)
        if args.inflate is not None:
            args.steps_images = 0  # there is nothing to be learned from images
        make_folder(args.out)
        encoders = encoders_of(args)
        if args.sample is not None:
            size = args.size // encoders.factor
            unet = load_unet(checkpoint, args.frames, size).to(args.device)
        else:
            unet = train(args, encoders, checkpoint)
        videos = sampled(args, encoders, unet.eval())
    except DataError as error:
        command.error(str(error))
    except KeyboardInterrupt:
        kept = checkpoints(args.out)
        print(f"interrupted; {kept[-1]} is kept" if kept else "interrupted before a checkpoint")
        return 130
    name = "samples" if args.sample is None else free_name(args.out)
    write_videos(videos, args.out, name, args.sample_fps)
    print(f"wrote {args.out / name}.gif and {args.out / name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
