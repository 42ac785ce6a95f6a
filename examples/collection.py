"""Collections of clips and pictures that are too large to be kept in memory.

What is kept is an index: how many frames a file has, at what rate and of which size. It is written
beside the data, and made anew for files that have changed. Of a file only the frames that are drawn
are decoded.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from decoding import Picture, read_frames, read_picture
from errors import DataError
from folder import pictures_in, videos_in, warn
from index import Indexed, indexed, refuse
from torch import Generator, Tensor

from make_a_video_pytorch.recipes import sample_clip, sample_fps


class Batch(NamedTuple):
    """Clips of one size, and what is known of each."""

    videos: Tensor  # (b c f h w) in [-1, 1]
    names: Tensor | None = None  # (b d): what it shows, as a vector
    texts: list[str | None] | None = None
    fps: Tensor | None = None  # (b): frames per second


class Collection:
    """Clips of the files of a folder, of which one is drawn by `draw`.

    Called as `collection(count, frames, generator)` it draws files at random. `of_step` takes them
    in an order that is shuffled anew whenever all have been seen, and follows from the seed, so
    that a resumed training sees what the interrupted one would have seen.
    """

    channels, cond_dim = 3, None
    files: list[Indexed]

    def __call__(self, count: int, frames: int, generator: Generator) -> Batch:
        drawn = torch.randint(len(self.files), (count,), generator=generator)
        return self.batch([self.files[index] for index in drawn], frames, generator, progress=1.0)

    def of_step(self, step: int, count: int, frames: int, seed: int, progress: float) -> Batch:
        """The batch of a training step, `progress` of the training being done."""
        places = range(step * count, (step + 1) * count)
        chosen = [self.files[shuffled(place, len(self.files), seed)] for place in places]
        generator = Generator().manual_seed((seed * 1_000_003 + step) ^ 0x5EED)
        return self.batch(chosen, frames, generator, progress)

    def batch(
        self, files: list[Indexed], frames: int, generator: Generator, progress: float
    ) -> Batch:
        """Clips of these files. One that cannot be read after all is replaced by another."""
        clips, rates, texts = [], [], []
        for file in files:
            for another in (*torch.randint(len(self.files), (9,), generator=generator), None):
                try:
                    clip, fps = self.draw(file, frames, generator, progress)
                    break
                except DataError as error:
                    if another is None:
                        raise
                    warn(str(error))
                    file = self.files[another]
            clips.append(clip)
            rates.append(fps)
            texts.append(file.item.text)
        return Batch(torch.stack(clips), texts=texts, fps=torch.tensor(rates))

    def draw(
        self, file: Indexed, frames: int, generator: Generator, progress: float
    ) -> tuple[Tensor, float]:
        """A clip (c f h w) of a file, and its frames per second."""
        raise NotImplementedError


class Clips(Collection):
    """Clips drawn from the videos of a folder, at any depth, or from one file.

    Args:
        path: a folder, or a video.
        size: height and width, to which a video is scaled and cut.
        frames: those of a clip; shorter videos are passed over.
        held_out: clips of the last tenth of each video, or of as much as a clip takes, and of
            no other part; else of the rest, where there is enough.
        fps: the lowest and the highest rate to draw at, or None for that of each video.
        sequence_fps: the rate of numbered pictures.
        strict: a file that cannot be used is an error.
        cache: the folder for the index, where that of the data cannot be written to.

    Raises:
        DataError: if nothing can be used.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        frames: int,
        *,
        held_out: bool = False,
        fps: tuple[float, float] | None = None,
        sequence_fps: float = 24.0,
        strict: bool = False,
        cache: Path | None = None,
    ) -> None:
        self.size, self.frames, self.held_out = size, frames, held_out
        self.fps, self.sequence_fps = fps, sequence_fps
        files = indexed(videos_in(path), path, ".clips.json", strict, cache)
        self.files = []
        for file in files:
            start, end = self.part(file.facts.frames)
            if end - start >= frames:
                self.files.append(file)
                continue
            wanted = "too few to hold some out" if held_out else f"a clip takes {frames}"
            problem = f"{file.item.path} has {file.facts.frames} frames, {wanted}"
            refuse(problem, strict or len(files) == 1)
        if not self.files:
            raise DataError(f"no video in {path} is long enough for a clip of {frames} frames")

    def part(self, frames: int) -> tuple[int, int]:
        """The first frame that may be drawn of a video of so many, and the one after the last."""
        cut = frames - max(frames // 10, self.frames)
        if cut < self.frames:  # too short to hold some out
            return (frames, frames) if self.held_out else (0, frames)
        return (cut, frames) if self.held_out else (0, cut)

    def draw(
        self, file: Indexed, frames: int, generator: Generator, progress: float
    ) -> tuple[Tensor, float]:
        """A clip (c f h w) of a video, and its frames per second."""
        start, end = self.part(file.facts.frames)
        own = self.sequence_fps if file.item.pictures else file.facts.fps
        wanted = own
        if self.fps is not None:
            lowest, highest = self.fps
            drawn = sample_fps(1, progress, lowest=lowest, highest=highest, generator=generator)
            wanted = float(drawn)
        offsets, fps = sample_clip(end - start, own, frames, wanted, generator)
        indices = (start + offsets).tolist()
        if file.item.pictures:
            size = self.size, self.size
            pictures = [read_picture(file.item.pictures[index], *size) for index in indices]
        else:  # in the middle of the time for which a frame is shown
            times = [(index + 0.5) / own for index in indices]
            pictures = read_frames(file.item.path, times, self.size, self.size)
        return as_clip(pictures), fps


class Pictures(Collection):
    """Pictures of a folder, at any depth, or one, as clips of one frame.

    Args:
        path: a folder, or a picture.
        size: height and width, to which a picture is scaled and cut.
        strict: a file that cannot be used is an error.
        cache: the folder for the index, where that of the data cannot be written to.

    Raises:
        DataError: if nothing can be used.
    """

    def __init__(
        self, path: Path, size: int, *, strict: bool = False, cache: Path | None = None
    ) -> None:
        self.size = size
        self.files = indexed(pictures_in(path), path, ".pictures.json", strict, cache)

    def draw(
        self, file: Indexed, frames: int, generator: Generator, progress: float
    ) -> tuple[Tensor, float]:
        """The picture (c 1 h w) of a file."""
        return as_clip([read_picture(file.item.path, self.size, self.size)]), 0.0


def as_clip(pictures: list[Picture]) -> Tensor:
    """Pictures as a clip (c f h w) in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(3, 0, 1, 2).float() / 127.5 - 1


def shuffled(place: int, count: int, seed: int) -> int:
    """Which of `count` files is at this place of an order shuffled anew in each round."""
    turn, place = divmod(place, count)
    return int(order(count, seed * 1_000_003 + turn)[place])


@lru_cache(maxsize=2)  # a batch may begin in one round and end in the next
def order(count: int, seed: int) -> Tensor:
    """A shuffled order of `count` files."""
    return torch.randperm(count, generator=Generator().manual_seed(seed))
