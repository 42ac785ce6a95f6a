"""Train a small SpaceTimeUnet first on images, then on clips, and sample videos from it.

    python examples/train.py                         # moving digits: six minutes on two cores
    python examples/train.py --data clips/ --size 64 # videos of your own
    python examples/train.py --resume                # go on after an interruption
    python examples/train.py --sample runs/train     # only sample, from the last checkpoint

The order is that of Make-A-Video (Singer et al. 2022): images teach the spatial parts what
things look like while the temporal parts are skipped; then, starting from identities, those
learn motion from videos. The digits' names stand for the text; a name is dropped from a tenth of
the samples, for classifier-free guidance. Noise schedule and sampler are diffusers'; the frames
of a clip share most of their noise (PYoCo, Ge et al. 2023), which spares many steps.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from checkpoints import (
    checkpoints,
    last_checkpoint,
    load_training,
    load_unet,
    options_of,
    save_checkpoint,
    tried,
)
from clips import DataError, MovingDigits, VideoFiles, named, open_clips, write_videos
from command_line import Parser, add_shared_options, make_folder, positive
from diffusers import DDPMScheduler
from diffusion import SCHEDULE, averaged, diffusion_loss, fit, optimizer_for, sample
from torch import Generator, Tensor

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.guidance import drop_conditions, guide


def parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--data", default="digits", help="`digits`, a video file, or a folder of them")
    add("--frames", type=positive, default=8, help="frames in a clip")
    add("--size", type=positive, default=12, help="height and width in pixels")
    add("--dim", type=positive, default=32, help="features of the U-Net at full resolution")
    add("--steps-images", type=positive_or_zero, default=700, help="training steps on images")
    add("--steps-video", type=positive_or_zero, default=500, help="steps on clips, at half of --lr")
    add("--batch-images", type=positive, default=64, help="images in a step")
    add("--batch-video", type=positive, default=8, help="clips in a step")
    add("--save-every", type=positive, default=100, help="steps between checkpoints")
    add("--resume", action="store_true", help="go on from the last checkpoint in --out, as before")
    add(
        "--sample",
        type=Path,
        metavar="PATH",
        help="only sample: a checkpoint, or a run's folder; its options are then the defaults",
    )
    add("--guidance", type=float, default=2.0, help="how closely samples follow a digit's name")
    add_shared_options(parser, out="runs/train", clips=10, clips_help="videos to sample")
    return parser


def positive_or_zero(text: str) -> int:
    """A whole number from 0 on."""
    return positive(text) if int(text) else 0


# What --resume takes from the interrupted run unless it is said anew.
REMEMBERED = ("data", "frames", "size", "steps_images", "steps_video", "batch_images",
              "batch_video", "lr", "save_every", "seed")  # fmt: skip


def start(
    args: argparse.Namespace, clips: MovingDigits | VideoFiles, resumed: Path | None
) -> SpaceTimeUnet:
    """The U-Net to train, that of a checkpoint or a new one."""
    if resumed is not None:
        unet = load_unet(resumed, args.frames, args.size)
        if unet.channels != clips.channels:
            raise DataError(
                f"{resumed} is of {unet.channels} channels, --data {args.data} of {clips.channels}"
            )
        return unet
    if checkpoints(args.out):
        raise DataError(f"{args.out} holds a run: go on with --resume, or give another --out")
    unet = SpaceTimeUnet(
        dim=args.dim,
        channels=clips.channels,
        cond_dim=clips.cond_dim,
        dim_mult=(1, 2),
        self_attns=(False, True),
        temporal_compression=(False, False),
        resnet_block_depths=(1, 1),
        attn_dim_head=32,
        attn_heads=4,
    )
    return tried(unet, args.frames, args.size)


def train(args: argparse.Namespace, resumed: Path | None) -> SpaceTimeUnet:
    """Train as the command line says, on from a checkpoint if any; return the averaged U-Net."""
    clips = open_clips(args.data, args.size, args.frames)
    training = {name: getattr(args, name) for name in REMEMBERED}
    torch.manual_seed(args.seed)
    unet = start(args, clips, resumed).to(args.device)
    ema, optimizer = averaged(unet), optimizer_for(unet)
    first = 0 if resumed is None else load_training(resumed, unet, ema, optimizer, args.device)
    scheduler = DDPMScheduler(**SCHEDULE)
    total = args.steps_images + args.steps_video

    def loss_of(phase: str, generator: Generator) -> Tensor:
        model = unet
        if phase == "images":
            x, names = clips(args.batch_images, 1, generator)
            x = x.squeeze(2)
        else:
            x, names = clips(args.batch_video, args.frames, generator)
        if names is not None:
            names = drop_conditions(0.1, cond=names, generator=generator)["cond"]
            model = partial(unet, cond=names.to(args.device))
        return diffusion_loss(model, scheduler, x, generator, args.device)

    def save(step: int) -> None:
        if step % args.save_every == 0 or step in (args.steps_images, total):
            save_checkpoint(args.out, step, unet, ema, optimizer, training)

    for phase, steps, lr in (
        ("images", range(args.steps_images), args.lr),
        # at half the rate, to keep what images taught
        ("video", range(args.steps_images, total), args.lr / 2),
    ):
        losses = fit(
            unet, ema, optimizer, partial(loss_of, phase),
            phase=phase, steps=steps, lr=lr, seed=args.seed, first=first, after_step=save,
        )  # fmt: skip
        if losses:
            tenth = max(len(losses) // 10, 1)
            at_first, at_last = fmean(losses[:tenth]), fmean(losses[-tenth:])
            print(f"{phase}: loss {at_first:.4f} at first, {at_last:.4f} at last")
    return ema.module


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments`."""
    command = parser()
    args = command.parse_args(arguments)
    checkpoint = None
    try:
        if args.resume or args.sample is not None:
            checkpoint = last_checkpoint(args.sample or args.out)
            # what the command line leaves out is as it was when the checkpoint was written
            command.set_defaults(**options_of(checkpoint), out=args.sample or args.out)
            args = command.parse_args(arguments)
        make_folder(args.out)
        if args.sample is not None:
            unet = load_unet(checkpoint, args.frames, args.size).to(args.device)
        else:
            unet = train(args, checkpoint)
        model = unet.eval()
        if unet.config["cond_dim"] is not None:
            names = named(torch.arange(args.clips) % 10).to(args.device)
            model = partial(guide(unet, args.guidance), cond=names)
        shape = (args.clips, unet.channels, args.frames, args.size, args.size)
        generator = Generator().manual_seed(args.seed)
        videos = sample(model, shape, args.sampling_steps, generator, args.device)
    except DataError as error:
        command.error(str(error))
    except KeyboardInterrupt:
        kept = checkpoints(args.out)
        print(f"interrupted; {kept[-1]} is kept" if kept else "interrupted before a checkpoint")
        return 130
    write_videos(videos, args.out)
    print(f"wrote {args.out / 'samples.gif'} and {args.out / 'samples.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
