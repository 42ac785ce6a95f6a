"""How good the stages of `examples/text_to_video.py` are, on glyphs of fonts that are held out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from classifiers import Classifier, taught
from clips import resized
from diffusion import psnr
from embedding import Embedding
from glyph_stages import FACTOR, SMALLEST, embedded
from glyphs import COLOURS, DIGITS, DIRECTIONS, Glyphs, caption
from interpolate import blend
from motion import centres
from torch import Generator, Tensor
from tqdm import tqdm

from make_a_video_pytorch.cascade import Cascade, Stage

CLIPS, FRAMES = 20, 16  # that are held out
KINDS = range(Glyphs.kinds)  # of which there is a text each
JUDGE_STEPS = 1200


def measured(
    cascade: Cascade, embedding: Embedding, fps: float, *, seed: int, share: float = 1.0
) -> dict[str, float]:
    """What is measured, by its name: of each stage on real clips, and of all on fifty texts.

    A judge learns in a `share` of its steps what glyphs are.
    """
    between, larger, largest = (
        cascade.stages[name] for name in ("interpolation", "larger", "largest")
    )
    source = Glyphs(fps=(fps * FACTOR, fps * FACTOR), held_out=True)
    batch = source(CLIPS, FRAMES, Generator().manual_seed(seed))
    clips, told = batch.videos, {"cond": embedded(embedding, batch.videos), "fps": batch.fps}
    return {
        **of_interpolation(between, clips, told, seed),
        **of_super_resolution("32x32", larger, clips, told, seed),
        **of_super_resolution("64x64", largest, clips, told, seed),
        **of_noise(largest, clips, told, seed),
        **of_texts(cascade, fps, seed, share),
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
    made, low = made_of(stage, clips, told, seed), stage.before(clips)
    bicubic = resized(low, stage.size, "bicubic").clamp(-1, 1)
    return compared(title, resized(clips, stage.size), {"made": made, "bicubic": bicubic})


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
    of the truth. Brightness goes from 0 to 1.
    """
    moving = resized(clips, stage.size)
    still = moving[:, :, :1].expand_as(moving)
    found, alpha = {}, stage.alpha
    for name, noise in (("one noise", math.inf), ("a noise each", 0)):
        stage.alpha = noise
        for title, truth in (("still", still), ("moving", moving)):
            made = made_of(stage, truth, told, seed)
            flicker = (changes(made) - changes(truth)).abs().mean()
            found[f"flicker, {title}, {name}"] = float(flicker)
    stage.alpha = alpha
    return found


def of_texts(cascade: Cascade, fps: float, seed: int, share: float) -> dict[str, float]:
    """How often the digit, the colour and the direction are those that a text asks for.

    A text for each digit in each colour, the directions in turn. What is seen in a frame of the
    decoder, and of the last stage, a judge says, which sees 16x16.
    """
    kinds = torch.tensor(KINDS)
    digits, colours = kinds // len(COLOURS), kinds % len(COLOURS)
    ways = kinds % len(DIRECTIONS)
    texts = [
        caption(*said) for said in zip(*(n.tolist() for n in (digits, colours, ways)), strict=True)
    ]
    made: dict[str, list[Tensor]] = {name: [] for name in cascade.stages}
    for place in tqdm(range(0, len(texts), len(DIGITS)), desc="texts", unit="batch"):
        cascade(
            texts[place : place + len(DIGITS)], fps=fps, seed=seed + place,
            after_stage=lambda name, videos: made[name].append(videos.clamp(-1, 1)),
        )  # fmt: skip
    judge = judge_of_glyphs(share)
    first, *_, last = cascade.stages
    found = {}
    for name in (first, last):
        videos = torch.cat(made[name])
        seen = judge.seen(resized(videos, SMALLEST))
        for title, right in (
            ("digit", seen // len(COLOURS) == digits[:, None]),
            ("colour", seen % len(COLOURS) == colours[:, None]),
            ("direction", direction_of(videos) == ways),
        ):
            found[f"right {title}, {name}"] = float(right.double().mean())
    return found


def judge_of_glyphs(share: float) -> Classifier:
    """What tells glyphs at 16x16, always the same; it has no part in a training."""
    with torch.random.fork_rng():
        torch.manual_seed(4_000)
        judge = Classifier(Glyphs.channels, Glyphs.kinds, 64)
    return taught(judge, Glyphs(SMALLEST[0]), 1, max(round(JUDGE_STEPS * share), 1), seed=4_001)


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
