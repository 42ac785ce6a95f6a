"""Fill in the frames between kept ones, with the U-Net that examples/train.py has trained.

    python examples/interpolate.py                  # from runs/train: four minutes on two cores
    python examples/interpolate.py --keep 0 7       # other frames to keep

The frame interpolation network of Make-A-Video (Singer et al. 2022, section 3.3) is the decoder
with four more input channels, masked frames and the mask (two more, for digits in grey). It goes
on from the decoder's weights: `unet.grow(cond_channels=...)`. Most of its training is where the
noise is high, since there the kept frames have the most to tell. Afterwards the frames between
the kept ones of clips that were held out are filled in and compared, by their signal-to-noise
ratio, with a linear blend of the nearest kept frames.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from checkpoints import clips_of, last_checkpoint, load_unet
from clips import open_clips, rate, write_videos
from command_line import Parser, add_shared_options, make_folder, positive
from diffusers import DDPMScheduler
from diffusion import (
    SCHEDULE,
    averaged,
    diffusion_loss,
    high_timesteps,
    optimizer_for,
    psnr,
    sample,
)
from draws import Draws, noise_of
from errors import DataError
from fitting import fit
from processes import join
from torch import Generator, Tensor, nn

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.integrations.diffusers import SpaceTimeUnetModel
from make_a_video_pytorch.recipes import at, kept_frames


def parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--unet", type=Path, default=Path("runs/train"), help="a checkpoint, or a run's folder")
    add("--keep", type=int, nargs="+", default=[0, -1], help="frames to keep; -1 is the last")
    add("--steps", type=positive, default=1200, help="training steps")
    add("--batch", type=positive, default=4, help="clips in a step")
    add_shared_options(
        parser,
        out="runs/interpolate",
        clips=64,
        clips_help="held-out clips to fill in",
        sampling_steps=1,
        sampling_steps_help="denoising steps; one gives the mean of what may have been, more give "
        "a sample of it",
    )
    return parser


def blend(clips: Tensor, kept: Tensor) -> Tensor:
    """`clips` (b c f h w) with each frame the linear blend of the nearest kept ones, by time."""
    indices = kept.nonzero().flatten()
    filled = []
    for frame in range(clips.shape[2]):
        before, after = indices[indices <= frame], indices[indices >= frame]
        first = int(before[-1] if len(before) else after[0])
        second = int(after[0] if len(after) else before[-1])
        share = (frame - first) / max(second - first, 1)
        filled.append(torch.lerp(clips[:, :, first], clips[:, :, second], share))
    return torch.stack(filled, dim=2)


def train(
    unet: SpaceTimeUnet, args: argparse.Namespace, data: str, size: int, frames: int
) -> SpaceTimeUnet:
    """Train `unet` to denoise clips beside the frames that are kept; return the averaged one."""
    clips = open_clips(data, size, frames)
    ema, optimizer = averaged(unet), optimizer_for(unet)
    scheduler = DDPMScheduler(**SCHEDULE)
    kept = at(frames, args.keep)

    def loss_of(called: nn.Module, draws: Draws) -> Tensor:
        batch = clips(args.batch, frames, draws.generator)
        clip, told = batch.videos, rate(unet, batch, args.device)
        model = partial(called, cond_images=kept_frames(clip, kept).to(args.device), **told)
        noisy = high_timesteps(scheduler, args.batch, draws)
        return diffusion_loss(model, scheduler, clip, draws, args.device, noisy)

    fit(
        join(args.device), unet, ema, optimizer, loss_of,
        phase="interpolation", steps=range(args.steps), lr=args.lr, seed=args.seed,
        batch=args.batch,
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
        if any(not -frames <= index < frames for index in args.keep):
            raise DataError(f"--keep {args.keep} must be among the {frames} frames of a clip")
        kept = at(frames, args.keep)
        if kept.all():
            raise DataError(f"--keep {args.keep} leaves no frame to fill in")
        make_folder(args.out)
        torch.manual_seed(args.seed)
        decoder = load_unet(checkpoint, frames, size)
        unet = decoder.grow(cond_channels=decoder.channels + 1).to(args.device)
        unet = train(unet, args, data, size, frames).eval()
        SpaceTimeUnetModel.from_unet(unet, sample_size=size).save_pretrained(args.out / "unet")
    except DataError as error:
        command.error(str(error))

    generator = Generator().manual_seed(args.seed)
    batch = held_out(args.clips, frames, generator)
    truth, told = batch.videos, rate(unet, batch, args.device)
    model = partial(unet, cond_images=kept_frames(truth, kept).to(args.device), **told)
    noise = noise_of(truth.shape, generator)
    filled = sample(model, noise, args.sampling_steps, args.device)
    filled[:, :, kept] = truth[:, :, kept]
    blended = blend(truth, kept)
    for name, clips in (("U-Net", filled), ("blend", blended)):
        print(f"{name}: {psnr(clips[:, :, ~kept], truth[:, :, ~kept]):.2f} dB")
    shown = [row[i] for i in range(min(3, args.clips)) for row in (truth, filled, blended)]
    print(f"wrote {', '.join(map(str, write_videos(torch.stack(shown), args.out)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
