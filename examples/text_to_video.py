"""From words to a long, large video: the whole of Make-A-Video, in half an hour on two cores.

    python examples/text_to_video.py 'a red seven moves up'          # trains what is not trained
    python examples/text_to_video.py --quick 'a blue two' 'a green four'   # in five minutes
    python examples/text_to_video.py --measure       # how good each stage is, on what is held out

The data are digits of several fonts in five colours, drawn by code. A prior learns from pictures
and their captions which image embedding a text asks for; a decoder makes 6 frames of 16x16 of an
embedding, and never sees a text; an interpolation makes 16 of them; two stages of
super-resolution make them 32x32 and, each frame by itself but all of the same noise, 64x64. Clips
are without texts, so that nothing can know what "up" means: directions are as they come.

In --out are the stages, which are used again, as a folder that `load_cascade` reads; of each video
a GIF and an MP4, and a strip of what each stage made.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import embedding as embeddings
import torch
import torch.nn.functional as F
import words
from cache import write
from clips import bytes_of, contact_sheet, write_videos
from command_line import Parser, device, make_folder
from embedding import Embedding
from errors import DataError
from glyph_measures import measured
from glyph_stages import FACTOR, FPS, SMALLEST, Plan, decoder, interpolation, larger, largest, train
from glyphs import COLOURS, DIGITS, Glyphs
from keys import key_of
from processes import join
from safetensors.torch import load_file
from texts import TextEncoder
from torch import Tensor
from tqdm import tqdm
from words import LearnedWords, Tokens, Words

from make_a_video_pytorch.cascade import Cascade, Stage
from make_a_video_pytorch.integrations.diffusers import SpaceTimeUnetModel, save_cascade

QUICK = 0.2  # of the steps
VOCABULARY = (*COLOURS, *DIGITS)  # what captions of pictures tell them apart by
DIM = 16  # of an embedding


def parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("text", nargs="*", default=["a red seven moves up"], help="what the videos are to show")
    add("--out", type=Path, default=Path("runs/text_to_video"), help="folder for stages and videos")
    add("--quick", action="store_true", help="train for five minutes, and not for thirty")
    add(
        "--text-encoder",
        type=Path,
        metavar="FOLDER",
        help="of transformers, to read texts by, and not learned words",
    )
    add(
        "--fps",
        type=float,
        default=FPS[0],
        help=f"of the decoder's frames, {FPS[0]:g} to {FPS[1]:g}; three times as many are made",
    )
    add("--measure", action="store_true", help="measure the stages, and sample nothing")
    add("--seed", type=int, default=0, help="of samples; a training is always the same")
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", type=device, default=usual, help="where torch computes")
    return parser


def embedding_in(out: Path, share: float) -> Embedding:
    """The image embedding of glyphs, which is learned if it is not there."""
    path = out / "embedding.safetensors"
    if not path.exists():
        print("learning the image embedding")
        source, steps = Glyphs(SMALLEST[0]), max(round(1200 * share), 1)
        found = embeddings.learned(source, source.channels, source.kinds, DIM, steps)
        write(path, found.state_dict())
    return embeddings.saved(path)


def prior_in(
    out: Path, embedding: Embedding, folder: Path | None, share: float, where: str = "cpu"
) -> Words:
    """The prior, which is learned if it is not there; of another text encoder it is another.

    Texts are encoded `where` it is said.
    """
    if folder is None:
        name, reader = "prior", partial(LearnedWords, VOCABULARY)
    else:
        encoder = TextEncoder(folder, out / "texts", where)
        name, reader = f"prior-{key_of(encoder.made_by)}", partial(Tokens, encoder)
    path = out / f"{name}.safetensors"

    def build() -> Words:
        return Words(reader(), embedding.dim)

    if not path.exists():
        print("learning what words mean")
        steps = max(round(words.STEPS * share), 1)
        found = words.learned(build, Glyphs(SMALLEST[0]), embedding, steps)
        write(path, found.state_dict())
    prior = build()
    prior.load_state_dict(load_file(path))
    return prior.eval().requires_grad_(False)


def stages_in(args: argparse.Namespace, embedding: Embedding, share: float) -> dict[str, Stage]:
    """The stages, of which those that are not there are trained, and kept when they are done."""
    accelerator = join(args.device)
    if accelerator.num_processes > 1:
        raise DataError("this trains in one process; examples/train.py --stage trains in many")
    stages: dict[str, Stage] = {}
    plans: dict[str, Callable[[], Plan]] = {
        "decoder": lambda: decoder(embedding.dim),
        "interpolation": lambda: interpolation(stages["decoder"].model),
        "larger": lambda: larger(stages["decoder"].model),
        "largest": largest,
    }
    for name, planned in plans.items():
        torch.manual_seed(0)
        plan, folder = planned(), args.out / "stages" / name
        unet = plan.stage.model
        if folder.exists():
            saved = SpaceTimeUnetModel.from_pretrained(folder, low_cpu_mem_usage=False)
            unet.load_state_dict(saved.unet.state_dict())
        else:
            train(plan, embedding, accelerator, name=name, seed=0, share=share)
            part = folder.with_name(f"{name}.part")  # it is there whole, or not at all
            SpaceTimeUnetModel.from_unet(unet).save_pretrained(part)
            part.rename(folder)
        unet.to(args.device).eval()
        stages[name] = plan.stage
    return stages


def same_run(args: argparse.Namespace) -> None:
    """Raise a DataError if what is in --out was trained in another way than what is asked for."""
    quick = args.out / "quick"
    begun = (args.out / "embedding.safetensors").exists()
    if begun and quick.exists() != args.quick:
        how = "with" if quick.exists() else "without"
        raise DataError(f"{args.out} was trained {how} --quick: do as then, or give another --out")
    if args.quick:
        quick.touch()


def sampled(cascade: Cascade, args: argparse.Namespace) -> None:
    """Make a video of each text, and write it, and what each stage made on the way."""
    made: dict[str, Tensor] = {}
    names = names_of(args.text)
    with tqdm(desc="sampling", unit="step") as bar:
        cascade(
            args.text, fps=args.fps, seed=args.seed, after_stage=made.__setitem__,
            progress=lambda stage, taken, total: bar.set_postfix_str(f"{stage} {taken}/{total}")
            or bar.update(),
        )  # fmt: skip
    for place, name in enumerate(names):
        of_text = {stage: videos[place].clamp(-1, 1) for stage, videos in made.items()}
        *_, last = of_text.values()
        gif, mp4, _ = write_videos(last[None], args.out, name, args.fps * FACTOR)
        strip = args.out / f"{name}.png"
        contact_sheet(bytes_of(strips(of_text))).save(strip)
        print(f"{args.text[place]}: wrote {gif}, {mp4} and, of each stage, {strip}")


def names_of(texts: Sequence[str]) -> list[str]:
    """A name of a file for each text."""
    found: list[str] = []
    for text in texts:
        name = re.sub(r"\W+", "-", text.lower()).strip("-")[:80] or "video"
        found.append(f"{name}-{len(found) + 1}" if name in found else name)
    return found


def strips(made: Mapping[str, Tensor]) -> Tensor:
    """What stages made (c f h w), a row each (s c f h w), as large and as long as the last."""
    *_, last = made.values()
    rows = []
    for video in made.values():
        scale = (1, last.shape[2] // video.shape[2], last.shape[3] // video.shape[3])
        row = torch.full_like(last, -1)
        row[:, :: FACTOR if video.shape[1] < last.shape[1] else 1] = F.interpolate(
            video[None], scale_factor=scale, mode="nearest"
        )[0]
        rows.append(row)
    return torch.stack(rows)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments`."""
    command = parser()
    args = command.parse_args(arguments)
    share = QUICK if args.quick else 1.0
    try:
        if not FPS[0] <= args.fps <= FPS[1]:
            raise DataError(
                f"--fps {args.fps} must be from {FPS[0]:g} to {FPS[1]:g}, as in training"
            )
        make_folder(args.out / "stages")
        same_run(args)
        embedding = embedding_in(args.out, share)
        prior = prior_in(args.out, embedding, args.text_encoder, share, args.device)
        prior(args.text)  # an unknown word is said before half an hour of training
        cascade = Cascade(stages_in(args, embedding, share), prior)
        if not (args.out / "cascade" / "cascade.json").exists():  # which is written last
            save_cascade(cascade, args.out / "cascade")
        if args.measure:
            found = measured(cascade, args.fps, seed=args.seed)
            (args.out / "measures.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
            for name, value in found.items():
                print(f"{name}: {value:.3f}")
        else:
            sampled(cascade, args)
    except (DataError, OSError) as error:  # as of a disk that is full
        command.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
