"""The options of the training script, and which of them go together, or on with a run."""

from __future__ import annotations

import argparse
import importlib.util
import os
from pathlib import Path

from command_line import Parser, add_shared_options, positive
from errors import DataError


def parser_of(description: str | None) -> Parser:
    """The command line of the script of this description."""
    parser = Parser(description)
    add = parser.add_argument
    add("--data", default="digits", help="`digits`, a video, a folder of them, or 'shards/*.tar'")
    add("--images", type=Path, metavar="FOLDER", help="pictures to learn from, not frames of clips")
    add("--text-encoder", type=Path, metavar="FOLDER", help="of transformers, for captions")
    add("--vae", type=Path, metavar="FOLDER", help="an autoencoder, in whose latents to train")
    add("--cache", type=Path, default=Path("runs/cache"), help="folder for what is computed once")
    add("--strict-data", action="store_true", help="end at the first file that cannot be used")
    add(
        "--fps",
        type=float,
        nargs=2,
        default=[1.0, 30.0],
        metavar=("LOWEST", "HIGHEST"),
        help="frames per second that clips of videos are drawn at",
    )
    add("--sequence-fps", type=float, default=24.0, help="rate of clips that are numbered pictures")
    add(
        "--buckets",
        action="store_true",
        help="clips in several proportions and lengths, one in each batch, and not all square",
    )
    add(
        "--joint",
        type=float,
        metavar="SHARE",
        help="share of images among the frames of a step of the second phase: half, if they are "
        "of more than the clips are (digits, --images), or none",
    )
    add("--workers", type=positive_or_zero, default=2, help="processes that read files")
    add("--frames", type=positive, default=8, help="frames in a clip")
    add("--size", type=positive, default=12, help="height and width in pixels")
    add("--dim", type=positive, default=32, help="features of the U-Net at full resolution")
    add("--config", type=Path, metavar="FILE", help="arguments of the U-Net, as JSON")
    add(
        "--inflate",
        type=Path,
        metavar="FOLDER",
        help="an image model, or pipeline, of diffusers, of which the motion alone is trained",
    )
    add(
        "--stage",
        type=Path,
        metavar="FOLDER/NAME",
        help="a stage of a cascade that `save_cascade` wrote, whose model is to be trained; it "
        "decides size and frames of clips and how samples are made, and has the result at the end",
    )
    add("--grow", metavar="NAME", help="another stage, to grow the stage's model from")
    add("--steps-images", type=positive_or_zero, default=500, help="training steps on images")
    add(
        "--steps-video",
        type=positive_or_zero,
        default=900,
        help="steps on clips, at a quarter of --lr",
    )
    add("--batch-images", type=positive, default=64, help="images in a step, of one process")
    add("--batch-video", type=positive, default=8, help="clips in a step, of one process")
    add("--save-every", type=positive, default=100, help="steps between checkpoints")
    add(
        "--evaluate-every",
        type=positive,
        default=300,
        metavar="STEPS",
        help="steps between looks at held-out clips and samples",
    )
    add(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint in --out, with the settings of that run, but for "
        "those that are given",
    )
    add(
        "--sample",
        type=Path,
        metavar="PATH",
        help="only sample: a checkpoint, or a run's folder; its options are then the defaults",
    )
    add(
        "--evaluate",
        type=Path,
        metavar="PATH",
        help="only measure a checkpoint, or the last one in a run's folder, on what is held out",
    )
    add("--prompt", nargs="+", metavar="TEXT", help="texts for samples to follow")
    add("--sample-fps", type=float, default=8.0, help="frames per second of the samples")
    add(
        "--guidance",
        type=float,
        metavar="SCALE",
        help="how closely samples follow what they are asked for: 2, but 1.5 by an embedding",
    )
    add_shared_options(parser, out="runs/train", clips=10, clips_help="videos to sample")
    add_launch_options(parser)
    return parser


def add_launch_options(parser: Parser) -> None:
    """Add the options of how it is computed; a launcher of Accelerate may have said some."""
    add, said = parser.add_argument, os.environ.get
    add(
        "--mixed-precision",
        choices=("no", "bf16", "fp16"),
        default=said(LAUNCHED["mixed_precision"], "no"),
        help="of what is computed; the weights stay in single precision",
    )
    add(
        "--gradient-accumulation",
        type=positive,
        default=int(said(LAUNCHED["gradient_accumulation"], "1")),
        metavar="PARTS",
        help="batches of this size that each process computes in a step, one after another",
    )
    add("--compile", action="store_true", help="let torch compile the U-Net")
    add(
        "--shard",
        action="store_true",
        default=said(LAUNCHED["shard"], "false").lower() == "true",
        help="leave each process a share of parameters, gradients and optimizer (FSDP2)",
    )
    add("--log", choices=("tensorboard", "wandb"), help="where measures go, beside metrics.jsonl")


def positive_or_zero(text: str) -> int:
    """A whole number from 0 on."""
    return positive(text) if int(text) else 0


# What a run that goes on takes from the one before, unless it is said anew; of the U-Net, nothing
# can be said anew.
REMEMBERED = ("data", "images", "text_encoder", "vae", "cache", "strict_data", "fps",
              "sequence_fps", "buckets", "joint", "frames", "size", "dim", "config", "inflate",
              "stage", "steps_images", "steps_video", "batch_images", "batch_video", "lr",
              "save_every", "evaluate_every", "mixed_precision", "gradient_accumulation",
              "processes", "log", "seed", "prompt", "sample_fps", "shard")  # fmt: skip
# what a launcher of Accelerate may say, and by which variable
LAUNCHED = {
    "mixed_precision": "ACCELERATE_MIXED_PRECISION",
    "gradient_accumulation": "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    "shard": "ACCELERATE_USE_FSDP",
}
OF_THE_UNET = ("dim", "config", "inflate", "stage", "text_encoder", "vae")


def option_of(name: str) -> str:
    """An argument as one writes it."""
    return f"--{name.replace('_', '-')}"


def remembered(args: argparse.Namespace) -> dict[str, object]:
    """What the command line says, fit for JSON."""
    values = {name: getattr(args, name) for name in REMEMBERED}
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


def defaults_of(before: dict[str, object], resumes: bool) -> dict[str, object]:
    """Which options of a run are the defaults of what follows on it, if nobody says them.

    Where it is computed is said anew: by a launcher, and whether in shards.
    """
    anew = {name for name, variable in LAUNCHED.items() if variable in os.environ} | {"shard"}
    if not resumes:  # but samples, or measures
        anew |= {"mixed_precision", "log"}
    return {name: value for name, value in before.items() if name not in anew}


def compare(args: argparse.Namespace, before: dict[str, object]) -> None:
    """Say what changes from here on; raise a DataError for what cannot."""
    now = remembered(args)
    for name in (name for name in REMEMBERED if name in before and now[name] != before[name]):
        option = option_of(name)
        if name in OF_THE_UNET:
            raise DataError(f"{option} {now[name]} contradicts the run, which has {before[name]}")
        print(f"{option} is {now[name]} from here on; it was {before[name]}")


def check(args: argparse.Namespace) -> None:
    """Raise a DataError for options that do not go together; say what others mean."""
    for name in ("images", "text_encoder", "vae", "buckets", "inflate"):
        if args.data == "digits" and getattr(args, name):
            raise DataError(f"{option_of(name)} is for videos: give them by --data")
    for name in ("vae", "buckets", "strict_data"):
        if args.data.endswith(".tar") and getattr(args, name):
            raise DataError(f"{option_of(name)} is for videos in files, and not in shards")
    for name in ("config", "joint", "images"):
        if args.inflate is not None and getattr(args, name):
            raise DataError(f"--{name} has no use with --inflate: the image model stays as it is")
    for name in ("config", "inflate", "vae", "buckets"):
        if args.stage is not None and getattr(args, name):
            raise DataError(f"{option_of(name)} has no use with --stage, which has its own model")
    begins = not (args.resume or args.sample is not None or args.evaluate is not None)
    if args.grow is not None and (args.stage is None or not begins):
        raise DataError("--grow is how a training of a --stage begins")
    if args.log is not None and importlib.util.find_spec(args.log) is None:
        raise DataError(f"--log {args.log} needs {args.log}: pip install {args.log}")
    if not 0 < args.fps[0] <= args.fps[1]:
        raise DataError(f"--fps {args.fps[0]} {args.fps[1]} must be positive, the lowest first")
    for name in ("sequence_fps", "sample_fps"):
        if getattr(args, name) <= 0:
            raise DataError(f"{option_of(name)} {getattr(args, name)} must be positive")
    if args.inflate is not None and args.frames == 1:
        raise DataError("--frames 1 leaves nothing to train with --inflate, which trains motion")
    if args.joint is not None and not 0 <= args.joint < 1:
        raise DataError(f"--joint {args.joint} must be at least 0, and less than 1")
    if args.frames == 1 and args.steps_video and args.sample is None:
        print("--frames 1: a clip of one frame is an image, so that no temporal part is trained")
