"""Clips to train on: moving digits made here, or cut from video files.

Both kinds are called as `clips(count, frames, generator)` and give (count, channels, frames,
size, size) in [-1, 1], and a vector (count, cond_dim) for each that says what it shows, if that
is known. `write_videos` writes what a model has made of them.
"""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from torch import Generator, Tensor

VIDEO_SUFFIXES = (".mp4", ".webm", ".gif", ".mov", ".mkv", ".avi")


class DataError(ValueError):
    """Data that cannot be trained on, said in one line."""


class MovingDigits:
    """One handwritten digit that moves in a straight line and bounces off the sides.

    After Moving MNIST (Srivastava et al. 2015, section 3.1), with one digit a clip, from
    scikit-learn's 1,797 scanned digits of 8x8 pixels, of which 297 are held out.
    """

    channels, cond_dim = 1, 10

    def __init__(self, size: int, held_out: bool = False) -> None:
        self.size = size
        scanned = load_digits()
        part = slice(1500, None) if held_out else slice(1500)
        self.digits = torch.from_numpy(scanned.images[part]).float()[:, None] / 16
        self.names = torch.from_numpy(scanned.target[part]).long()

    def __call__(self, count: int, frames: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Make `count` clips, each with a digit, a start, a direction and a speed of its own."""
        chosen = torch.randint(len(self.digits), (count,), generator=generator)
        scale = 0.7  # width of a digit, of the picture's
        reach = 1 - scale  # how far its centre gets from the middle of the picture (-1 to 1)
        start = torch.rand(count, 2, generator=generator) * 4 * reach
        angle = torch.rand(count, 1, generator=generator) * 2 * torch.pi
        speed = 0.05 + 0.05 * torch.rand(count, 1, generator=generator)
        velocity = speed * torch.cat((angle.cos(), angle.sin()), dim=-1)

        time = torch.arange(frames)[:, None]
        path = start[:, None] + time * velocity[:, None]  # (count frames 2)
        # a straight path folded back into [-reach, reach]: the bounce
        centre = (path.remainder(4 * reach) - 2 * reach).abs() - reach

        placed = torch.zeros(count, frames, 2, 3)
        placed[..., 0, 0] = placed[..., 1, 1] = 1 / scale
        placed[..., 2] = -centre / scale
        grid = F.affine_grid(
            placed.flatten(0, 1), [count * frames, 1, self.size, self.size], align_corners=False
        )
        digits = self.digits[chosen].repeat_interleave(frames, dim=0)
        pictures = F.grid_sample(digits, grid, mode="bicubic", align_corners=False)
        clips = pictures.unflatten(0, (count, frames)).transpose(1, 2)
        return clips.clamp(0, 1) * 2 - 1, named(self.names[chosen])


def named(digits: Tensor) -> Tensor:
    """The names of `digits` (n), from 0 to 9, as vectors (n 10).

    Long ones, since their projection in the U-Net starts at zero and has to grow: at a length of
    3 names are learned too slowly for a training this short.
    """
    return F.one_hot(digits, 10).float() * 8


class VideoFiles:
    """Clips cut at random from a video file, or from all in a folder, squared and resized."""

    channels, cond_dim = 3, None

    def __init__(self, path: Path, size: int, frames: int, held_out: bool = False) -> None:
        files = [path]
        if path.is_dir():
            files = sorted(f for f in path.iterdir() if f.suffix.lower() in VIDEO_SUFFIXES)
        if not files:
            raise DataError(f"no video in {path} ({', '.join(VIDEO_SUFFIXES)})")
        self.videos = []
        for file in files:
            video = read_video(file, size)
            if len(video) < frames:
                raise DataError(f"{file} has {len(video)} frames, a clip takes {frames}")
            # of a video that is long enough for it, the last tenth, or clip, is held out
            cut = len(video) - max(len(video) // 10, frames)
            if cut >= frames:
                video = video[cut:] if held_out else video[:cut]
            elif held_out:
                raise DataError(f"{file} has {len(video)} frames, too few to hold some out")
            self.videos.append(video)

    def __call__(self, count: int, frames: int, generator: Generator) -> tuple[Tensor, None]:
        """Cut `count` clips of `frames` successive frames, every start equally likely."""
        starts = torch.tensor([len(video) - frames + 1 for video in self.videos])
        ends = starts.cumsum(0)
        clips = []
        for place in torch.randint(int(ends[-1]), (count,), generator=generator):
            index = int(torch.searchsorted(ends, place, right=True))
            start = int(place - ends[index] + starts[index])
            clips.append(self.videos[index][start : start + frames])
        return torch.stack(clips).permute(0, 4, 1, 2, 3).float() / 127.5 - 1, None


def read_video(path: Path, size: int) -> Tensor:
    """All frames of a video as (frames, size, size, 3) in uint8: the middle square, resized."""
    if not path.exists():
        raise DataError(f"no such file or folder: {path}")
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise DataError(f"{path} is no video ({', '.join(VIDEO_SUFFIXES)})")
    frames = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path} holds no pictures")
            for frame in container.decode(video=0):
                scale = size / min(frame.width, frame.height)
                width, height = (max(size, round(s * scale)) for s in (frame.width, frame.height))
                picture = frame.to_ndarray(
                    format="rgb24", width=width, height=height, interpolation="AREA"
                )
                top, left = (height - size) // 2, (width - size) // 2
                frames.append(picture[top : top + size, left : left + size])
    except av.error.FFmpegError as error:
        raise DataError(f"{path} cannot be decoded as a video: {error.strerror}") from error
    if not frames:
        raise DataError(f"{path} holds no pictures")
    return torch.from_numpy(np.stack(frames))


def open_clips(
    data: str, size: int, frames: int, held_out: bool = False
) -> MovingDigits | VideoFiles:
    """The clips that `--data` names, `digits` or a path; those `held_out` are never trained on."""
    if data == "digits":
        return MovingDigits(size, held_out)
    return VideoFiles(Path(data), size, frames, held_out)


def write_videos(videos: Tensor, out: Path) -> None:
    """Write `samples.gif` and the contact sheet `samples.png`: a row a video, a column a frame."""
    enlarge = max(64 // videos.shape[-1], 1)
    pixels = ((videos + 1) * 127.5).round().byte().movedim(1, -1)  # b f h w c
    pixels = pixels.repeat_interleave(enlarge, 2).repeat_interleave(enlarge, 3)
    pixels = F.pad(pixels, (0, 0, 1, 1, 1, 1), value=64)  # a thin frame around each picture

    def image(array: Tensor) -> Image.Image:
        return Image.fromarray(array.squeeze(-1).numpy())

    image(torch.cat([torch.cat(list(video), 1) for video in pixels], 0)).save(out / "samples.png")
    columns = math.ceil(math.sqrt(len(pixels)))
    spare = -len(pixels) % columns
    filled = torch.cat((pixels, pixels.new_zeros(spare, *pixels.shape[1:])))
    moments = [
        image(torch.cat([torch.cat(list(row), 1) for row in frame.split(columns)], 0))
        for frame in filled.unbind(1)
    ]
    moments[0].save(
        out / "samples.gif", save_all=True, append_images=moments[1:], duration=125, loop=0
    )
