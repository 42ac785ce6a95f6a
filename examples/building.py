"""What a training is made of: the U-Net, what encodes for it, and where its batches come from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import torch
from batch import Batch
from buckets import Shape, shapes_about
from checkpoints import EMBEDDING, checkpoints, load_unet, tried
from clips import MovingDigits, rate
from collection import Clips, Collection, Pictures
from embedding import Embedding, embedding_of_digits, saved
from errors import DataError
from inflated import Inflated
from latents import Autoencoder
from loading import Source
from shards import Shards
from texts import TextEncoder
from torch import Tensor

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.cascade import Stage
from make_a_video_pytorch.guidance import drop_conditions

MOVING, STILL = range(5), range(5, 10)  # digits of which there are clips, and pictures only
SMALL = {  # a U-Net for pictures of a few pixels
    "dim_mult": (1, 2),
    "self_attns": (False, True),
    "temporal_compression": (False, False),
    "resnet_block_depths": (1, 1),
    "attn_dim_head": 32,
    "attn_heads": 4,
}


class Encoders(NamedTuple):
    """What texts and pictures are encoded by, if they are, and what tells of their looks."""

    texts: TextEncoder | None
    pictures: Autoencoder | None
    embedding: Embedding | None = None  # in the place of names
    taken: tuple[str, ...] | None = None  # conditions that are told; None of all

    @property
    def factor(self) -> int:
        """Pixels of what the U-Net sees as one."""
        return 1 if self.pictures is None else self.pictures.factor

    def told(self, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Those of the conditions that are told."""
        return {k: v for k, v in conditions.items() if self.taken is None or k in self.taken}


def encoders_of(
    args: argparse.Namespace, checkpoint: Path | None = None, stage: Stage | None = None
) -> Encoders:
    """Those that the command line asks for, or that the training of a checkpoint had.

    Raises:
        DataError: if there are none such.
    """
    texts = pictures = embedding = None
    if args.data == "digits":
        if checkpoint is None:
            embedding = embedding_of_digits(args.size, args.cache)
        elif (checkpoint / EMBEDDING).exists():  # else it was told names, as those of before
            embedding = saved(checkpoint / EMBEDDING)
    for name in ("text_encoder", "vae"):  # of a pipeline that is inflated, all is taken
        whole = args.inflate is not None and (args.inflate / name).is_dir()
        if whole and getattr(args, name) is None:
            setattr(args, name, args.inflate)
    if args.text_encoder is not None:
        whole = args.inflate is not None
        texts = TextEncoder(args.text_encoder, args.cache / "texts", args.device, whole)
    if args.vae is not None:
        pictures = Autoencoder(args.vae, args.cache / "latents", args.device)
        if args.size % pictures.factor:
            raise DataError(f"--size {args.size} must be divisible by {pictures.factor}, for --vae")
    return Encoders(texts, pictures, embedding, None if stage is None else stage.taken)


def asked_for(args: argparse.Namespace, encoders: Encoders) -> dict[str, object]:
    """The arguments of a U-Net that the data and their encoders ask for."""
    if args.data == "digits":
        embedding = encoders.embedding
        # no rate: an embedding of it would learn nothing, and DDP wait for its gradient
        return {
            "channels": MovingDigits.channels, "condition_on_fps": False,
            "cond_dim": MovingDigits.cond_dim if embedding is None else embedding.dim,
        }  # fmt: skip
    return {
        "channels": 3 if encoders.pictures is None else encoders.pictures.channels,
        "cond_dim": None,
        "context_dim": None if encoders.texts is None else encoders.texts.dim,
    }


def new_unet(args: argparse.Namespace, asked: dict[str, object]) -> SpaceTimeUnet:
    """A U-Net of the arguments of `--config`, or of this script."""
    arguments = {"condition_on_fps": True, **asked, "dim": args.dim}
    if args.config is None:
        arguments |= SMALL
    else:
        arguments |= read_config(args.config)
    try:
        return SpaceTimeUnet(**arguments)
    except (TypeError, ValueError) as error:
        raise DataError(str(error)) from error


def read_config(path: Path) -> dict[str, object]:
    """Arguments by their names, of a file of JSON."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"--config {path} cannot be read as JSON: {error}") from error
    if not isinstance(given, dict):
        raise DataError(f"--config {path} must hold an object of arguments by name")
    return given


def start(
    args: argparse.Namespace, encoders: Encoders, resumed: Path | None, stage: Stage | None = None
) -> SpaceTimeUnet | Inflated:
    """The U-Net to train, that of a checkpoint, of a stage, or a new one."""
    if resumed is None and checkpoints(args.out):
        raise DataError(f"{args.out} holds a run: go on with --resume, or give another --out")
    asked, size = asked_for(args, encoders), args.size // encoders.factor
    if resumed is not None:
        unet = load_unet(resumed, args.frames, size)
    elif stage is not None:
        unet = stage.model
    elif args.inflate is not None:
        unet = tried(Inflated.of_images(args.inflate), args.frames, size)
    else:
        unet = tried(new_unet(args, asked), args.frames, size)
    for name, value in asked.items():
        without = stage is not None and unet.config[name] is None  # a stage need not be told all
        if unet.config[name] != value and not without:
            raise DataError(
                f"the U-Net has `{name}` {unet.config[name]}, what it is to be trained on {value}"
            )
    return unet


class Sources(NamedTuple):
    """Where images and clips come from, and those that are never trained on."""

    images: Source
    clips: Source
    held_out: Source | None


def sources(
    args: argparse.Namespace, encoders: Encoders, unet: SpaceTimeUnet | Inflated
) -> Sources:
    """Those that the command line asks for."""
    if args.data == "digits":
        images = clips = MovingDigits(args.size)
        if encoders.embedding is not None:
            clips = MovingDigits(args.size, digits=MOVING)
        return Sources(images, clips, MovingDigits(args.size, held_out=True))
    shapes = [Shape(args.frames, args.size, args.size)]
    if args.data.endswith(".tar"):
        print("nothing of shards is held out: no held-out loss is measured")
        clips: Clips = Shards(args.data, shapes[0], fps=tuple(args.fps))
        return Sources(*with_encoders(args, encoders, shapes, clips), None)
    if args.buckets:
        multiple = unet.image_size_multiple * encoders.factor
        shapes = shapes_about(
            args.size, args.frames, multiple=multiple, frame_multiple=unet.frame_multiple
        )
    rates = {"fps": tuple(args.fps), "sequence_fps": args.sequence_fps}
    reading = {"strict": args.strict_data, "cache": args.out}
    clips = Clips(Path(args.data), shapes, **rates, **reading)
    images, clips = with_encoders(args, encoders, shapes, clips)
    held_out = clips.of_what_is_held_out()
    if held_out is None:
        print("no video is long enough to hold some out: no held-out loss is measured")
    return Sources(images, clips, held_out)


def with_encoders(
    args: argparse.Namespace, encoders: Encoders, shapes: list[Shape], clips: Clips
) -> tuple[Collection, Clips]:
    """The images beside `clips`, and the clips, once all is encoded that is to be."""
    images: Collection = clips
    if args.images is not None:
        images = Pictures(args.images, shapes, strict=args.strict_data, cache=args.out)
    if encoders.texts is not None:
        encoders.texts.prepare(["", *clips.texts(), *images.texts()])
    elif texts := len(clips.texts() | images.texts()):
        print(f"{texts} captions are not used: there is no --text-encoder")
    if encoders.pictures is not None:
        for collection in {clips, images}:
            collection.into_latents(encoders.pictures)
    return images, clips


def conditions(
    unet: SpaceTimeUnet | Inflated,
    encoders: Encoders,
    batch: Batch,
    device: str | torch.device,
    dropped: Tensor | None = None,
) -> dict[str, Tensor]:
    """What `unet` is told of a batch, but for the condition of those that are `dropped`."""
    given = {}
    if encoders.embedding is not None:
        given["cond"] = encoders.embedding.of_clips(batch.videos)
    elif batch.names is not None:
        given["cond"] = batch.names
    if encoders.texts is not None:
        given |= encoders.texts.conditions(batch.texts)
    if given and dropped is not None:
        null = None if encoders.texts is None else encoders.texts.nothing()
        given = drop_conditions(dropped, **given, null=null)
    given = {name: value.to(device) for name, value in given.items()}
    return encoders.told({**given, **rate(unet, batch, device)})
