"""Train a small SpaceTimeUnet first on images, then on clips, and sample videos from it.

    python examples/train.py                         # moving digits: six minutes on two cores
    python examples/train.py --data clips/ --size 64 # a folder of videos of your own
    python examples/train.py --data clips/ --images pictures/ --size 64
    python examples/train.py --resume                # go on after an interruption
    python examples/train.py --sample runs/train     # only sample, from the last checkpoint
    python examples/train.py --evaluate runs/train   # only measure it on what is held out
    torchrun --nproc-per-node 8 examples/train.py    # in eight processes, a GPU each
    python examples/train.py --data clips/ --stage cascade/decoder   # a stage of a cascade

The order is that of Make-A-Video (Singer et al. 2022): images teach the spatial parts what
things look like while the temporal parts are skipped; then, starting from identities, those
learn motion from videos, which need no names. What the U-Net is told is dropped from a tenth of
the samples, for classifier-free guidance. Of digits it is told the embedding of a picture, as
there, and one is asked for by the mean embedding of its pictures; there are pictures of all, and
clips of 0 to 4 alone. Where pictures show more than clips, half of the frames of the second phase
are pictures, which spares what they taught. Noise schedule and sampler are diffusers'; the frames
of a clip share most of their noise (PYoCo, Ge et al. 2023), which spares many steps. Clips of
videos are drawn at many frame rates, from high ones to low ones, and the U-Net is told which.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from statistics import fmean

import torch
from accelerate import Accelerator
from building import MOVING, STILL, Encoders, encoders_of, sources
from checkpoints import checkpoints, last_checkpoint, load_unet, options_of
from clips import MovingDigits, write_videos
from command_line import Parser, make_folder
from errors import DataError, RunError
from evaluation import held_out_losses
from inflated import Inflated
from judges import judges_of_digits
from measures import measured, summary
from metrics import plot
from motion import FEWEST_FRAMES
from options import check, compare, defaults_of, parser_of
from processes import Ended, be_quiet, ended_with_the_launcher, join, leave, lost, main_first
from sampling import free_name, sampled, say_what_does_nothing
from staged import first_of_all, opened, real_clips
from torch import Generator, Tensor
from training import train

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.cascade import Stage

MEASURED = 200  # samples of digits


def parser() -> Parser:
    """The command line."""
    return parser_of(__doc__)


def arguments_of(
    command: Parser, arguments: list[str] | None
) -> tuple[argparse.Namespace, Path | None]:
    """What the command line says, and the checkpoint that it begins with.

    Raises:
        DataError: if there is no such checkpoint, or what is said cannot be.
    """
    args = command.parse_args(arguments)
    checkpoint, args.processes = None, None
    given = args.sample or args.evaluate
    if args.resume or given is not None:
        checkpoint = last_checkpoint(given or args.out)
        before = {"processes": 1, "shard": False, "joint": 0.0, **options_of(checkpoint)}
        # what the command line leaves out is as it was when the checkpoint was written
        command.set_defaults(**defaults_of(before, args.resume), out=given or args.out)
        args = command.parse_args(arguments)
        for name in ("images", "config", "inflate", "stage", "text_encoder", "vae", "cache"):
            path = getattr(args, name)
            setattr(args, name, None if path is None else Path(path))
        if args.resume:
            compare(args, before)
    check(args)
    if args.inflate is not None:
        args.steps_images = 0  # there is nothing to be learned from images
    return args, checkpoint


def evaluate(
    args: argparse.Namespace,
    encoders: Encoders,
    unet: SpaceTimeUnet | Inflated,
    accelerator: Accelerator,
    stage: Stage | None = None,
) -> None:
    """Print the loss of clips that are held out, and of digits how samples look and move.

    Raises:
        DataError: if there are none.
    """
    with main_first(accelerator):
        held_out = sources(args, encoders, unet).held_out
    if held_out is None:
        raise DataError(f"nothing of {args.data} is held out")
    losses = held_out_losses(
        unet, encoders, stage, held_out, accelerator, frames=args.frames, device=args.device
    )
    for timestep, loss in losses.items():
        print(f"held-out loss at timestep {timestep}: {loss:.4f}")
    print(f"held-out loss: {fmean(losses.values()):.4f}")
    if args.data == "digits" and args.frames >= FEWEST_FRAMES and first_of_all(stage):
        args.clips = MEASURED
        videos = sampled(args, encoders, unet, accelerator, stage)
        if accelerator.is_main_process:
            print_measures(args, videos, apart=encoders.embedding is not None)


def print_measures(args: argparse.Namespace, videos: Tensor, apart: bool) -> None:
    """Print how samples of the digits, in turn, look and move, beside as many held-out real clips.

    Those that were seen moving are measured `apart` from those of which there were no clips.
    """
    judges = judges_of_digits(args.size, args.frames, args.cache)
    digits = torch.arange(len(videos)) % MovingDigits.cond_dim
    halves = [("digits seen moving", MOVING), ("digits never seen moving", STILL)]
    for title, which in halves if apart else [("digits", (*MOVING, *STILL))]:
        print(f"{title}:")
        some = torch.isin(digits, torch.tensor(which))
        held_out, count = MovingDigits(args.size, held_out=True, digits=which), int(some.sum())
        real = held_out(10 * count, args.frames, Generator().manual_seed(args.seed))
        features = judges.clip(real.videos)
        found, of_real = (
            summary(measured(clips, shown, judges), seen, features[count:])
            for clips, shown, seen in (
                (videos[some], digits[some], judges.clip(videos[some])),
                (real.videos[:count], real.names[:count].argmax(-1), features[:count]),
            )
        )
        for name, number in found.items():
            print(f"  {name}: {number}; held-out real clips: {of_real[name].value:.2f}")


def run(args: argparse.Namespace, checkpoint: Path | None, accelerator: Accelerator) -> None:
    """Train, sample or evaluate."""
    args.device = accelerator.device
    args.processes = args.processes or accelerator.num_processes
    with main_first(accelerator):
        make_folder(args.out)
        stage = None if args.stage is None else opened(args)
        encoders = encoders_of(args, checkpoint, stage)
        if encoders.texts is not None:
            encoders.texts.prepare(["", *(args.prompt or ())])
    trains = args.sample is None and args.evaluate is None
    if trains:
        unet, real = train(args, encoders, accelerator, checkpoint, stage)
    else:
        unet = load_unet(checkpoint, args.frames, args.size // encoders.factor).to(args.device)
    if args.evaluate is not None:
        evaluate(args, encoders, unet.eval(), accelerator, stage)
        return
    say_what_does_nothing(args, encoders, unet)
    if not trains:
        with main_first(accelerator):
            real = None if first_of_all(stage) else real_clips(args, sources(args, encoders, unet))
    videos = sampled(args, encoders, unet.eval(), accelerator, stage, real)
    if accelerator.is_main_process:
        name = "samples" if trains else free_name(args.out)
        written = list(write_videos(videos, args.out, name, args.sample_fps))
        if trains:
            written += filter(None, [plot(args.out)])
        print(f"wrote {', '.join(map(str, written))}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments`."""
    command = parser()
    args, who = command.parse_args(arguments), ""

    def kept() -> str:
        found = checkpoints(args.out)
        return f"{found[-1]} is kept" if found else "before a checkpoint"

    if os.environ.get("RANK", "0") != "0":  # before there is an accelerator
        be_quiet()
    try:
        args, checkpoint = arguments_of(command, arguments)
        with ended_with_the_launcher():
            accelerator = join(
                args.device, mixed_precision=args.mixed_precision, log_with=args.log,
                project_dir=args.out,
            )  # fmt: skip
            if accelerator.num_processes > 1:
                who = f"process {accelerator.process_index} of {accelerator.num_processes}: "
            run(args, checkpoint, accelerator)
            accelerator.end_training()
    except DataError as error:
        command.error(f"{who}{error}")
    except (RunError, OSError) as error:  # as of a disk that is full
        command.error(f"{who}{error}; {kept()}")
    except KeyboardInterrupt:
        print(f"interrupted; {kept()}")
        return 130
    except (Ended, RuntimeError) as error:
        if (reason := lost(error)) is None:
            raise
        print(f"{who}{reason}; {kept()}", file=sys.stderr)
        return 143
    return 0


if __name__ == "__main__":
    leave(main())
