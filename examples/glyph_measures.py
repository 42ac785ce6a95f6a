"""How good the stages of `examples/text_to_video.py` are, on glyphs of fonts that are held out."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from classifiers import Classifier, taught
from clips import resized
from diffusion import psnr
from glyph_stages import FACTOR, SMALLEST
from glyphs import DIGITS, DIRECTIONS, Glyphs, caption, digit_and_colour
from interpolate import blend
from motion import centres
from torch import Generator, Tensor
from tqdm import tqdm

from make_a_video_pytorch.cascade import Cascade, Stage

CLIPS, FRAMES = 20, 16  # that are held out
KINDS = range(Glyphs.kinds)  # of which there is a text each
JUDGE_STEPS = 1200


def measured(cascade: Cascade, fps: float, *, seed: int) -> dict[str, float]:
    """What is measured, by its name: of each stage on real clips, and of all on fifty texts.

    As in use, the stages are told what the prior makes of captions.
    """
    between, larger, largest = (
        cascade.stages[name] for name in ("interpolation", "larger", "largest")
    )
    source = Glyphs(fps=(fps * FACTOR, fps * FACTOR), held_out=True)
    batch = source(CLIPS, FRAMES, Generator().manual_seed(seed))
    clips, told = batch.videos, {"cond": cascade.prior(batch.texts), "fps": batch.fps}
    return {
        **of_interpolation(between, clips, told, seed),
        **of_super_resolution("32x32", larger, clips, told, seed),
        **of_super_resolution("64x64", largest, clips, told, seed),
        **of_noise(largest, clips, told, seed),
        **of_texts(cascade, fps, seed),
    }


def made_of(stage: Stage, clips: Tensor, told: Mapping[str, Tensor], seed: int) -> Tensor:
    """What a stage makes of real clips, of which it is told what it takes."""
    given = {name: value for name, value in told.items() if name in stage.taken}
    return stage(stage.before(clips), seed=seed, **given).clamp(-1, 1)


def of_interpolation(
    stage: Stage, clips: Tensor, told: Mapping[str, Tensor], seed: int
) -> dict[str, float]:
    """The frames that are made, beside a blend of those before and after them: decibels, and
    sharpness, as a share of the truth's."""
    truth = resized(clips, stage.size)
    kept = torch.arange(truth.shape[2]) % FACTOR == 0
    made, blended = made_of(stage, clips, told, seed), blend(truth, kept)
    return compared("interpolation", truth[:, :, ~kept], {
        "made": made[:, :, ~kept], "blend": blended[:, :, ~kept],
    })  # fmt: skip


def of_super_resolution(
    title: str, stage: Stage, clips: Tensor, told: Mapping[str, Tensor], seed: int
) -> dict[str, float]:
    """What is made larger, beside a bicubic enlargement, likewise."""
    made = made_of(stage, clips, told, seed)
    ways = {"made": made, "bicubic": enlarged(stage, clips)}
    return compared(title, resized(clips, stage.size), ways)


def enlarged(stage: Stage, clips: Tensor) -> Tensor:
    """What is before a stage, made as large by bicubic interpolation."""
    return resized(stage.before(clips), stage.size, "bicubic").clamp(-1, 1)


def compared(title: str, truth: Tensor, ways: Mapping[str, Tensor]) -> dict[str, float]:
    """Peak signal-to-noise ratio, in decibels, and sharpness, as a share of the truth's."""
    found = {}
    for name, videos in ways.items():
        found[f"{title}, {name}: dB"] = psnr(videos, truth)
        found[f"{title}, {name}: sharpness"] = sharpness(videos) / sharpness(truth)
    return found


def of_noise(
    stage: Stage, clips: Tensor, told: Mapping[str, Tensor], seed: int
) -> dict[str, float]:
    """How much changes from frame to frame where all have one noise, or each its own.

    Of still clips, where nothing should, and of moving ones, by how far the changes are from those
    of the truth, beside a bicubic enlargement. Brightness goes from 0 to 1.
    """
    moving = resized(clips, stage.size)
    still = moving[:, :, :1].expand_as(moving)
    found = {}
    for title, truth in (("still", still), ("moving", moving)):
        ways = {"bicubic": enlarged(stage, truth)}
        for name, alpha in (("one noise", math.inf), ("a noise each", 0)):
            other = copy.copy(stage)
            other.alpha = alpha
            ways[name] = made_of(other, truth, told, seed)
        for name, videos in ways.items():
            flicker = (changes(videos) - changes(truth)).abs().mean()
            found[f"flicker, {title}, {name}"] = float(flicker)
    return found


def of_texts(cascade: Cascade, fps: float, seed: int) -> dict[str, float]:
    """How often the digit, the colour and the direction are those that a text asks for.

    A text for each digit in each colour, the directions in turn. What is seen in a frame of the
    decoder, of the last stage, and of real clips of fonts that are held out, a judge says, which
    sees 16x16.
    """
    kinds = torch.tensor(KINDS)
    said = *digit_and_colour(kinds), kinds % len(DIRECTIONS)
    texts = [caption(*row) for row in torch.stack(said, dim=1).tolist()]
    made: dict[str, list[Tensor]] = {name: [] for name in cascade.stages}
    for place in tqdm(range(0, len(texts), len(DIGITS)), desc="texts", unit="batch"):
        cascade(
            texts[place : place + len(DIGITS)], fps=fps, seed=seed + place,
            after_stage=lambda name, videos: made[name].append(videos.clamp(-1, 1)),
        )  # fmt: skip
    judge = judge_of_glyphs()
    first, *_, last = cascade.stages
    real = Glyphs(fps=(fps, fps), held_out=True)(200, 6, Generator().manual_seed(seed))
    of_real = *digit_and_colour(real.names.argmax(-1)), ways_in(real.texts)
    return {
        **right(first, torch.cat(made[first]), said, judge),
        **right(last, torch.cat(made[last]), said, judge),
        **right("real", real.videos, of_real, judge),
    }


def right(
    title: str, videos: Tensor, said: tuple[Tensor, Tensor, Tensor], judge: Classifier
) -> dict[str, float]:
    """The shares of frames with the digit and the colour, and of videos with the direction."""
    digits, colours, ways = said
    digits_seen, colours_seen = digit_and_colour(judge.seen(resized(videos, SMALLEST)))
    found = {
        "digit": digits_seen == digits[:, None],
        "colour": colours_seen == colours[:, None],
        "direction": direction_of(videos) == ways,
    }
    return {f"right {name}, {title}": float(same.double().mean()) for name, same in found.items()}


def ways_in(texts: Sequence[str]) -> Tensor:
    """The directions (b) that captions of clips end with."""
    return torch.tensor([list(DIRECTIONS).index(text.split()[-1]) for text in texts])


def judge_of_glyphs() -> Classifier:
    """What tells glyphs at 16x16, always the same; it has no part in a training."""
    with torch.random.fork_rng():
        torch.manual_seed(4_000)
        judge = Classifier(Glyphs.channels, Glyphs.kinds, 64)
    return taught(judge, Glyphs(SMALLEST[0]), 1, JUDGE_STEPS, seed=4_001)


def direction_of(videos: Tensor) -> Tensor:
    """Which direction each of the videos (b c f h w) moves in most: (b)."""
    path = centres(videos)
    way = torch.tensor(list(DIRECTIONS.values())).to(path)
    return ((path[:, -1] - path[:, 0]) @ way.T).argmax(-1)


def changes(videos: Tensor) -> Tensor:
    """From frame to frame, of brightness from 0 to 1."""
    return videos.diff(dim=2) / 2


def sharpness(videos: Tensor) -> float:
    """Root mean square difference of pixels that are neighbours, to which edges give most."""
    across, along = (videos.diff(dim=dim).square().mean() for dim in (-1, -2))
    return float(((across + along) / 2).sqrt())
