"""Collections of clips and pictures that are too large to be kept in memory.

What is kept is an index: how many frames a file has, at what rate and of which size. It is written
beside the data, and made anew for files that have changed. Only the frames drawn are decoded.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from batch import Batch
from buckets import Shape, bucket_of, nearest, shuffled
from draws import Draws
from errors import DataError
from folder import pictures_in, videos_in, warn
from index import Indexed, as_clip, indexed, pictures_of, refuse
from latents import AT_ONCE, Autoencoder, read_latents
from torch import Generator, Tensor
from tqdm import tqdm

from make_a_video_pytorch.recipes import sample_clip, sample_fps


class Collection:
    """Clips of the files of a folder, in buckets of one shape each; `draw` draws one of a file.

    Called as `collection(count, frames, generator)` it draws files at random, of the first bucket.
    `of_step` takes them in an order that is shuffled anew whenever all have been seen, and follows
    from the seed, so that a resumed training sees what the interrupted one would have seen.
    """

    buckets: dict[Shape, list[Indexed]]
    latents: dict[tuple[str, int, int], Path] | None = None  # of a file, in a height and width
    strict: bool = False  # a file that cannot be read is an error

    def __call__(self, count: int, frames: int, generator: Generator) -> Batch:
        shape, files = next(iter(self.buckets.items()))
        drawn = torch.randint(len(files), (count,), generator=generator)
        chosen = [files[index] for index in drawn]
        shape = shape._replace(frames=frames)
        return self.batch(chosen, files, shape, [generator] * count, progress=1.0)

    def of_step(
        self,
        step: int,
        count: int,
        frames: int,
        seed: int,
        progress: float,
        share: int = 0,
        shares: int = 1,
    ) -> Batch:
        """A share of the batch of a training step, of clips of at most so many frames.

        The batch has `count` clips for each of its `shares`, all of one bucket, and is the same
        in however many shares it is taken. `progress` of the training is done.
        """
        sizes = tuple(len(files) for files in self.buckets.values())
        bucket, turn = bucket_of(step, count * shares, sizes, seed)
        shape, files = list(self.buckets.items())[bucket]
        first = (turn * shares + share) * count
        chosen = [files[shuffled(first + place, len(files), seed)] for place in range(count)]
        draws = Draws(seed ^ 0x5EED, step, share, shares)
        shape = shape._replace(frames=min(frames, shape.frames))
        return self.batch(chosen, files, shape, list(draws.generators(count)), progress)

    def batch(
        self,
        chosen: list[Indexed],
        files: list[Indexed],
        shape: Shape,
        generators: Sequence[Generator],
        progress: float,
    ) -> Batch:
        """Clips of the `chosen` ones of `files`, each drawn by one of the `generators`.

        One that cannot be read is replaced by another.
        """
        clips, rates, texts = [], [], []
        for file, generator in zip(chosen, generators, strict=True):
            others = None
            while True:
                try:
                    clip, fps = self.draw(file, shape, generator, progress)
                    break
                except DataError as error:
                    if others is None:  # a hundred, for all may be gone with their disk
                        others = torch.randperm(len(files), generator=generator)[:100].tolist()
                    if self.strict or not others:
                        raise
                    warn(str(error))
                    file = files[others.pop()]
            clips.append(clip)
            rates.append(fps)
            texts.append(file.item.text)
        return Batch(torch.stack(clips), texts=texts, fps=torch.tensor(rates))

    def draw(
        self, file: Indexed, shape: Shape, generator: Generator, progress: float
    ) -> tuple[Tensor, float]:
        """A clip (c f h w) of a file, and its frames per second."""
        raise NotImplementedError

    def read(self, file: Indexed, indices: list[int], height: int, width: int) -> Tensor:
        """The frames of these indices as a clip (c f h w), of latents if there are any."""
        if self.latents is not None:
            return read_latents(self.latents[file.item.name, height, width], indices)
        return as_clip(pictures_of(file, indices, height, width))

    def into_latents(self, autoencoder: Autoencoder) -> None:
        """Encode every file, in the shape of its bucket, unless that has been done before."""
        files = [(shape, file) for shape, files in self.buckets.items() for file in files]
        kept = {}
        for (_, height, width), file in tqdm(files, desc="latents", unit="file", delay=2):
            every = range(file.facts.frames)
            parts = (every[first : first + AT_ONCE] for first in every[::AT_ONCE])
            clips = (as_clip(pictures_of(file, part, height, width)) for part in parts)
            key = [str(file.item.path.resolve()), file.item.stamp, height, width]
            path = autoencoder.keep(key, (clip.transpose(0, 1) for clip in clips))
            kept[file.item.name, height, width] = path
        self.latents = kept

    def texts(self) -> set[str]:
        """What is written about the files."""
        files = [file for files in self.buckets.values() for file in files]
        return {file.item.text for file in files if file.item.text}


class Clips(Collection):
    """Clips drawn from the videos of a folder, at any depth, or from one file.

    Args:
        path: a folder, or a video.
        shapes: those that clips may have. A video goes into the bucket nearest to its proportions
            of those for which it is long enough, the longest one; it is scaled and cut to it.
            Videos that are shorter than all are passed over.
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
        shapes: Sequence[Shape],
        *,
        held_out: bool = False,
        fps: tuple[float, float] | None = None,
        sequence_fps: float = 24.0,
        strict: bool = False,
        cache: Path | None = None,
    ) -> None:
        self.held_out, self.fps, self.sequence_fps = held_out, fps, sequence_fps
        self.strict, self.longest = strict, max(shape.frames for shape in shapes)
        files = indexed(videos_in(path), path, ".clips.json", strict, cache)
        shortest = min(shape.frames for shape in shapes)
        buckets: dict[Shape, list[Indexed]] = {shape: [] for shape in shapes}
        for file in files:
            long_enough = [shape for shape in shapes if self.holds(file, shape.frames)]
            if long_enough:
                buckets[nearest(file.facts, long_enough)].append(file)
                continue
            wanted = "too few to hold some out" if held_out else f"a clip takes {shortest}"
            problem = f"{file.item.path} has {file.facts.frames} frames, {wanted}"
            refuse(problem, strict or len(files) == 1)
        self.buckets = {shape: files for shape, files in buckets.items() if files}
        if not self.buckets:
            raise DataError(f"no video in {path} is long enough for a clip of {shortest} frames")

    def of_what_is_held_out(self) -> Clips | None:
        """The clips that are never trained on, if there are any, of the same files."""
        other = copy.copy(self)
        other.held_out, other.strict = True, False
        kept = {
            shape: [file for file in files if other.holds(file, shape.frames)]
            for shape, files in self.buckets.items()
        }
        other.buckets = {shape: files for shape, files in kept.items() if files}
        return other if other.buckets else None

    def holds(self, file: Indexed, frames: int) -> bool:
        """Whether a clip of so many frames can be drawn."""
        start, end = self.part(file.facts.frames)
        return end - start >= frames

    def part(self, length: int) -> tuple[int, int]:
        """The first frame that clips of any length may have of a video, and the end of them."""
        cut = length - max(length // 10, self.longest)
        if cut < self.longest:  # too short to hold some out
            return (length, length) if self.held_out else (0, length)
        return (cut, length) if self.held_out else (0, cut)

    def draw(
        self, file: Indexed, shape: Shape, generator: Generator, progress: float
    ) -> tuple[Tensor, float]:
        """A clip (c f h w) of a video, and its frames per second."""
        frames, height, width = shape
        start, end = self.part(file.facts.frames)
        wanted = own = self.sequence_fps if file.item.pictures else file.facts.fps
        if self.fps is not None:
            lowest, highest = self.fps
            drawn = sample_fps(1, progress, lowest=lowest, highest=highest, generator=generator)
            wanted = float(drawn)
        offsets, fps = sample_clip(end - start, own, frames, wanted, generator)
        indices = (start + offsets).tolist()
        return self.read(file, indices, height, width), fps


class Pictures(Collection):
    """Pictures of a folder, at any depth, or one, as clips of one frame.

    Args:
        path: a folder, or a picture.
        shapes: those that clips may have; a picture goes into the bucket nearest to its
            proportions, and is scaled and cut to it.
        strict: a file that cannot be used is an error.
        cache: the folder for the index, where that of the data cannot be written to.

    Raises:
        DataError: if nothing can be used.
    """

    def __init__(
        self,
        path: Path,
        shapes: Sequence[Shape],
        *,
        strict: bool = False,
        cache: Path | None = None,
    ) -> None:
        self.strict = strict
        buckets: dict[Shape, list[Indexed]] = {shape._replace(frames=1): [] for shape in shapes}
        for file in indexed(pictures_in(path), path, ".pictures.json", strict, cache):
            buckets[nearest(file.facts, list(buckets))].append(file)
        self.buckets = {shape: files for shape, files in buckets.items() if files}

    def draw(
        self, file: Indexed, shape: Shape, generator: Generator, progress: float
    ) -> tuple[Tensor, float]:
        """The picture (c 1 h w) of a file."""
        return self.read(file, [0], shape.height, shape.width), 0.0
