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
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from buckets import Shape, shapes_about
from checkpoints import (
    checkpoints,
    last_checkpoint,
    load_training,
    load_unet,
    options_of,
    save_checkpoint,
    tried,
)
from clips import MovingDigits, named, write_videos
from collection import Batch, Clips, Pictures
from command_line import Parser, make_folder
from diffusers import DDPMScheduler
from diffusion import SCHEDULE, Model, averaged, diffusion_loss, fit, optimizer_for, sample
from errors import DataError
from loading import Source, batches
from options import GUIDANCE, check, compare, parser_of, remembered
from torch import Generator, Tensor

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.guidance import drop_conditions, guide


def parser() -> Parser:
    """The command line."""
    return parser_of(__doc__)


def arguments_of(args: argparse.Namespace) -> dict[str, object]:
    """The arguments of a new U-Net: what the data ask for, and `--config` or this script."""
    files = args.data != "digits"
    data = MovingDigits if not files else Clips
    arguments = {"channels": data.channels, "cond_dim": data.cond_dim, "condition_on_fps": files}
    if args.config is None:
        return arguments | {
            "dim": args.dim,
            "dim_mult": (1, 2),
            "self_attns": (False, True),
            "temporal_compression": (False, False),
            "resnet_block_depths": (1, 1),
            "attn_dim_head": 32,
            "attn_heads": 4,
        }
    try:
        given = json.loads(args.config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"--config {args.config} cannot be read as JSON: {error}") from error
    if not isinstance(given, dict):
        raise DataError(f"--config {args.config} must hold an object of arguments by name")
    return arguments | {"dim": args.dim} | given


def start(args: argparse.Namespace, resumed: Path | None) -> SpaceTimeUnet:
    """The U-Net to train, that of a checkpoint or a new one."""
    if resumed is None and checkpoints(args.out):
        raise DataError(f"{args.out} holds a run: go on with --resume, or give another --out")
    if resumed is not None:
        unet = load_unet(resumed, args.frames, args.size)
    else:
        try:
            unet = SpaceTimeUnet(**arguments_of(args))
        except (TypeError, ValueError) as error:
            raise DataError(str(error)) from error
        unet = tried(unet, args.frames, args.size)
    data = MovingDigits if args.data == "digits" else Clips
    if (unet.channels, unet.cond_dim) != (data.channels, data.cond_dim):
        raise DataError(
            f"the U-Net has `channels` {unet.channels} and `cond_dim` {unet.cond_dim}, --data "
            f"{args.data} {data.channels} and {data.cond_dim}"
        )
    return unet


def sources(args: argparse.Namespace, unet: SpaceTimeUnet) -> tuple[Source, Source]:
    """Where images and clips come from."""
    if args.data == "digits":
        digits = MovingDigits(args.size)
        return digits, digits
    shapes = [Shape(args.frames, args.size, args.size)]
    if args.buckets:
        multiples = {"multiple": unet.image_size_multiple, "frame_multiple": unet.frame_multiple}
        shapes = shapes_about(args.size, args.frames, **multiples)
    reading = {"strict": args.strict_data, "cache": args.out}
    rates = {"fps": tuple(args.fps), "sequence_fps": args.sequence_fps}
    clips = Clips(Path(args.data), shapes, **rates, **reading)
    images = clips if args.images is None else Pictures(args.images, shapes, **reading)
    return images, clips


def conditioned(unet: SpaceTimeUnet, batch: Batch, device: str, generator: Generator) -> Model:
    """`unet`, told what is known of a batch, names now and then not."""
    given = {}
    if batch.names is not None:
        names = drop_conditions(0.1, cond=batch.names, generator=generator)["cond"]
        given["cond"] = names.to(device)
    if batch.fps is not None and unet.config["condition_on_fps"]:
        given["fps"] = batch.fps.to(device)
    return partial(unet, **given)


def loss_of(
    unet: SpaceTimeUnet,
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
        model = conditioned(unet, batch, device, generator)
        loss = loss + weight * diffusion_loss(model, scheduler, x, generator, device)
    return loss


def train(args: argparse.Namespace, resumed: Path | None) -> SpaceTimeUnet:
    """Train as the command line says, on from a checkpoint if any; return the averaged U-Net."""
    torch.manual_seed(args.seed)
    unet = start(args, resumed).to(args.device)
    images, clips = sources(args, unet)
    ema, optimizer = averaged(unet), optimizer_for(unet)
    first = 0 if resumed is None else load_training(resumed, unet, ema, optimizer, args.device)
    scheduler = DDPMScheduler(**SCHEDULE)
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
            unet, ema, optimizer, partial(loss_of, unet, scheduler, waiting, args.device),
            phase=phase, steps=steps, lr=lr, seed=args.seed, first=first, after_step=save,
        )  # fmt: skip
        if losses:
            tenth = max(len(losses) // 10, 1)
            at_first, at_last = fmean(losses[:tenth]), fmean(losses[-tenth:])
            print(f"{phase}: loss {at_first:.4f} at first, {at_last:.4f} at last")
    return ema.module


def sampled(args: argparse.Namespace, unet: SpaceTimeUnet) -> Tensor:
    """Videos that the U-Net makes."""
    given = {}
    if unet.config["condition_on_fps"]:
        given["fps"] = args.sample_fps
    model = partial(unet, **given)
    if unet.cond_dim is not None:
        names = named(torch.arange(args.clips) % 10).to(args.device)
        model = partial(guide(unet, args.guidance), cond=names, **given)
    elif args.guidance != GUIDANCE:
        print(f"--guidance {args.guidance} does nothing: the U-Net is told nothing to follow")
    shape = (args.clips, unet.channels, args.frames, args.size, args.size)
    generator = Generator().manual_seed(args.seed)
    return sample(model, shape, args.sampling_steps, generator, args.device)


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
            args.images = None if args.images is None else Path(args.images)
            args.config = None if args.config is None else Path(args.config)
            if args.resume:
                compare(args, before)
        check(args)
        make_folder(args.out)
        if args.sample is not None:
            unet = load_unet(checkpoint, args.frames, args.size).to(args.device)
        else:
            unet = train(args, checkpoint)
        videos = sampled(args, unet.eval())
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
