"""Coloured digits of several fonts that move, and are told of in words: data made by code.

"a red seven moves up": ten digits, five colours and four directions. Pictures are told of without
a direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from batch import Batch
from clips import named, resized
from errors import DataError
from PIL import Image, ImageDraw, ImageFont
from torch import Generator, Tensor

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = {
    "red": (0.95, 0.15, 0.1),
    "green": (0.1, 0.8, 0.2),
    "blue": (0.2, 0.35, 1.0),
    "yellow": (0.95, 0.85, 0.1),
    "white": (0.95, 0.95, 0.95),
}
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}  # x, y
FONTS = ("DejaVuSans-Bold", "DejaVuSans-BoldOblique", "DejaVuSansMono-Bold", "DejaVuSerif-Bold",
         "STIXGeneralBol", "STIXGeneralBolIta")  # fmt: skip
FONTS_HELD_OUT = ("DejaVuSansMono-BoldOblique", "DejaVuSerif-BoldItalic")
SIZE, HEIGHT = 64, 40  # pixels of a picture, and of a line of type
SLOWEST, FASTEST = 0.25, 0.35  # widths of the picture in a second


class Glyphs:
    """A digit of one colour that moves straight on at a speed of its own, and stays in the picture.

    It is called as `glyphs(count, frames, generator)`. Names are those of `DIGITS` and `COLOURS`
    together, as `kind_of` counts them.

    Args:
        size: height and width in pixels.
        fps: frames per second, the lowest and the highest that clips are of.
        held_out: of the fonts that are never trained on.
    """

    channels, kinds = 3, len(DIGITS) * len(COLOURS)

    def __init__(
        self, size: int = SIZE, fps: tuple[float, float] = (4.0, 4.0), held_out: bool = False
    ) -> None:
        self.size, self.fps = size, fps
        self.type = drawn(FONTS_HELD_OUT if held_out else FONTS)  # font digit h w
        self.colours = torch.tensor(list(COLOURS.values()))
        self.ways = torch.tensor(list(DIRECTIONS.values())).float()

    def __call__(self, count: int, frames: int, generator: Generator) -> Batch:
        """Make `count` clips, or pictures if `frames` is 1."""

        def chosen(below: int) -> Tensor:
            return torch.randint(below, (count,), generator=generator)

        def between(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(count, *shape, generator=generator)

        fonts, digits = chosen(len(self.type)), chosen(len(DIGITS))
        colours, ways = chosen(len(COLOURS)), chosen(len(DIRECTIONS))
        fps, speed = between(*self.fps), between(SLOWEST, FASTEST)
        masks = self.type[fonts, digits]
        step = self.ways[ways] * (speed / fps * 2)[:, None]  # a picture is from -1 to 1
        places = torch.arange(frames) - (frames - 1) / 2
        path = places[:, None] * step[:, None]  # count frames 2
        room = reach_of(masks) - path.abs().amax(1)
        if (room < 0).any():
            raise DataError(f"{frames} frames at {self.fps} a second lead out of the picture")
        path = path + (room * between(-0.5, 0.5, 2))[:, None]
        light = moved(masks, path)
        clips = light[:, None] * self.colours[colours][:, :, None, None, None]
        clips = resized(clips, (self.size, self.size))
        numbers = zip(digits.tolist(), colours.tolist(), ways.tolist(), strict=True)
        texts = [caption(d, c, w if frames > 1 else None) for d, c, w in numbers]
        names = named(kind_of(digits, colours), self.kinds)
        return Batch(clips * 2 - 1, names, texts, fps)


def drawn(fonts: Sequence[str]) -> Tensor:
    """All digits in these fonts (font digit h w), light on dark, each in the middle."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    found = torch.zeros(len(fonts), len(DIGITS), SIZE, SIZE)
    for place, name in enumerate(fonts):
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), HEIGHT)
        for digit in range(len(DIGITS)):
            page = Image.new("L", (SIZE, SIZE))
            left, top, right, bottom = font.getbbox(str(digit))
            corner = ((SIZE - left - right) / 2, (SIZE - top - bottom) / 2)
            ImageDraw.Draw(page).text(corner, str(digit), fill=255, font=font)
            found[place, digit] = torch.from_numpy(np.array(page)) / 255
    return found


def reach_of(masks: Tensor) -> Tensor:
    """How far (b 2: x, y) digits (b h w) may move from the middle and stay in the picture."""
    ends = torch.linspace(-1, 1, SIZE).abs()
    across = (masks.amax(1) > 0) * ends  # b w
    along = (masks.amax(2) > 0) * ends
    return 1 - torch.stack((across.amax(1), along.amax(1)), dim=-1) - 2 / SIZE


def moved(masks: Tensor, path: Tensor) -> Tensor:
    """Digits (b h w) whose middle follows a path (b f 2: x, y; a picture is from -1 to 1)."""
    count, frames = path.shape[:2]
    places = torch.eye(2, 3).repeat(count * frames, 1, 1)
    places[:, :, 2] = -path.flatten(0, 1)
    grid = F.affine_grid(places, [count * frames, 1, SIZE, SIZE], align_corners=False)
    pictures = masks.repeat_interleave(frames, 0)[:, None]
    return F.grid_sample(pictures, grid, align_corners=False).view(count, frames, SIZE, SIZE)


def caption(digit: int, colour: int, direction: int | None = None) -> str:
    """What is said of such a clip, or of a picture."""
    said = f"a {list(COLOURS)[colour]} {DIGITS[digit]}"
    return said if direction is None else f"{said} moves {list(DIRECTIONS)[direction]}"


def kind_of(digit: Tensor, colour: Tensor) -> Tensor:
    """The numbers of digits in colours among all `Glyphs.kinds`."""
    return digit * len(COLOURS) + colour


def digit_and_colour(kinds: Tensor) -> tuple[Tensor, Tensor]:
    """Those that are counted so."""
    return kinds // len(COLOURS), kinds % len(COLOURS)
