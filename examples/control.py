"""Control what the U-Net that examples/train.py has trained draws, by outlines.

    python examples/control.py                      # from runs/train: three minutes on two cores

A ControlNet (Zhang et al. 2023) over frames: `ControlBranch.from_unet` copies the way down of the
U-Net, which stays as it is, and learns to tell it what outlines show. No digit's name is given, so
that the outline alone says what to draw. Afterwards clips are sampled from the outlines of clips
that were held out, with the branch and without it, from the same noise, and compared with the clips
that the outlines are of, by their signal-to-noise ratio.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from checkpoints import clips_of, last_checkpoint, load_unet
from clips import open_clips, rate, write_videos
from command_line import Parser, add_shared_options, make_folder, positive
from diffusers import DDPMScheduler
from diffusion import SCHEDULE, averaged, diffusion_loss, psnr, sample
from draws import Draws, noise_of
from errors import DataError
from fitting import fit
from processes import join
from torch import Generator, Tensor
from torch.optim import AdamW

from make_a_video_pytorch import (
    ControlBranch,
    SpaceTimeUnet,
    spatial_parameters,
    temporal_parameters,
)
from make_a_video_pytorch.integrations.diffusers import ControlBranchModel


def parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--unet", type=Path, default=Path("runs/train"), help="a checkpoint, or a run's folder")
    add("--steps", type=positive, default=600, help="training steps")
    add("--batch", type=positive, default=8, help="clips in a step")
    add_shared_options(
        parser,
        out="runs/control",
        clips=32,
        clips_help="held-out clips whose outlines to sample from",
        sampling_steps=20,
    )
    return parser


def outlines(clips: Tensor) -> Tensor:
    """Where the light of `clips` (b c f h w), in [-1, 1], changes within a pixel: (b 1 f h w)."""
    frames = clips.mean(1).flatten(0, 1).unsqueeze(1)
    lightest, darkest = F.max_pool2d(frames, 3, 1, 1), -F.max_pool2d(-frames, 3, 1, 1)
    edges = (lightest - darkest > 1) & (frames < 0)
    return edges.to(clips.dtype).view(clips.shape[0], 1, *clips.shape[2:])


def controlled(
    unet: SpaceTimeUnet,
    branch: ControlBranch,
    pictures: Tensor,
    x: Tensor,
    timestep: Tensor,
    **told: Tensor,
) -> Tensor:
    """What `unet` predicts where `branch` tells it what `pictures` show."""
    features = branch(x, timestep, cond_images=pictures, **told)
    return unet(x, timestep, features=features, **told)


def train(
    unet: SpaceTimeUnet, args: argparse.Namespace, data: str, size: int, frames: int
) -> ControlBranch:
    """Train a branch for `unet` on clips and their outlines; return the averaged one."""
    clips = open_clips(data, size, frames)
    branch = ControlBranch.from_unet(unet, cond_channels=1)
    optimizer = AdamW(
        [
            {"params": spatial_parameters(branch)},
            {"params": temporal_parameters(branch), "weight_decay": 0.0},
        ],
        betas=(0.9, 0.99),
        fused=True,
    )
    ema, scheduler = averaged(branch), DDPMScheduler(**SCHEDULE)

    def loss_of(branch: ControlBranch, draws: Draws) -> Tensor:
        batch = clips(args.batch, frames, draws.generator)
        clip, told = batch.videos, rate(unet, batch, args.device)
        model = partial(controlled, unet, branch, outlines(clip).to(args.device), **told)
        return diffusion_loss(model, scheduler, clip, draws, args.device)

    fit(
        join(args.device), branch, ema, optimizer, loss_of,
        phase="control", steps=range(args.steps), lr=args.lr, seed=args.seed, batch=args.batch,
    )  # fmt: skip
    return ema.module


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments`."""
    command = parser()
    args = command.parse_args(arguments)
    try:
        checkpoint = last_checkpoint(args.unet)
        data, size, frames = clips_of(checkpoint)
        held_out = open_clips(data, size, frames, held_out=True)
        make_folder(args.out)
        torch.manual_seed(args.seed)
        unet = load_unet(checkpoint, frames, size).to(args.device).requires_grad_(False)
        branch = train(unet, args, data, size, frames).eval()
        ControlBranchModel.from_branch(branch).save_pretrained(args.out / "branch")
    except DataError as error:
        command.error(str(error))

    batch = held_out(args.clips, frames, Generator().manual_seed(args.seed))
    truth, told = batch.videos, rate(unet, batch, args.device)
    drawn = outlines(truth)
    shown = [drawn.expand_as(truth) * 2 - 1]
    for name, model in (
        ("with the outlines", partial(controlled, unet, branch, drawn.to(args.device), **told)),
        ("without them", partial(unet, **told)),
    ):
        noise = noise_of(truth.shape, Generator().manual_seed(args.seed))
        shown.append(sample(model, noise, args.sampling_steps, args.device))
        print(f"{name}: {psnr(shown[-1], truth):.2f} dB")
    rows = [videos[index] for index in range(min(4, args.clips)) for videos in shown]
    print(f"wrote {', '.join(map(str, write_videos(torch.stack(rows), args.out)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
