"""Clips to train on: moving digits made here, or cut from video files.

Both kinds are called as `clips(count, frames, generator)` and give a `Batch`. `write_videos` writes
what a model has made of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import torch
import torch.nn.functional as F
from batch import Batch
from buckets import Shape
from collection import Clips
from PIL import Image
from sklearn.datasets import load_digits
from torch import Generator, Tensor

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.recipes import each_frame


class MovingDigits:
    """One handwritten digit that moves in a straight line and bounces off the sides.

    After Moving MNIST (Srivastava et al. 2015, section 3.1), with one digit a clip, from
    scikit-learn's 1,797 scanned digits of 8x8 pixels, of which 297 are held out.

    Args:
        size: height and width in pixels.
        held_out: of the scans that are never trained on.
        digits: which of them there are.
    """

    channels, cond_dim = 1, 10

    def __init__(
        self, size: int, held_out: bool = False, digits: Sequence[int] = range(10)
    ) -> None:
        self.size = size
        scanned = load_digits()
        part = slice(1500, None) if held_out else slice(1500)
        names = torch.from_numpy(scanned.target[part]).long()
        there = torch.isin(names, torch.tensor(digits))
        self.digits = torch.from_numpy(scanned.images[part]).float()[there, None] / 16
        self.names = names[there]

    def __call__(self, count: int, frames: int, generator: Generator) -> Batch:
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
        return Batch(clips.clamp(0, 1) * 2 - 1, named(self.names[chosen]))


def named(digits: Tensor, count: int = 10) -> Tensor:
    """The names of `digits` (n), or of other things, `count` in all, as vectors (n count).

    Long ones, since their projection in the U-Net starts at zero and has to grow: at a length of
    3 names are learned too slowly for a training this short.
    """
    return F.one_hot(digits, count).float() * 8


def open_clips(data: str, size: int, frames: int, held_out: bool = False) -> MovingDigits | Clips:
    """The clips that `--data` names, `digits` or a path; those `held_out` are never trained on."""
    if data == "digits":
        return MovingDigits(size, held_out)
    return Clips(Path(data), [Shape(frames, size, size)], held_out=held_out)


def resized(videos: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Videos (b c f h w) at another height and width."""
    scaled = partial(F.interpolate, size=size, mode=mode, antialias=True)
    return videos if tuple(videos.shape[-2:]) == tuple(size) else each_frame(scaled, videos)


def rate(unet: SpaceTimeUnet, batch: Batch, device: str | torch.device) -> dict[str, Tensor]:
    """The frames per second of a batch, as a condition, if `unet` takes it and they are known."""
    known = unet.config["condition_on_fps"] and batch.fps is not None
    return {"fps": batch.fps.to(device)} if known else {}


def write_videos(
    videos: Tensor, out: Path, name: str = "samples", fps: float = 8.0
) -> tuple[Path, Path, Path]:
    """Write videos (b c f h w) as `samples.gif`, `samples.mp4` and a contact sheet, `samples.png`.

    In the sheet a row is a video and a column a frame. The paths are returned.
    """
    pixels = bytes_of(videos)
    columns = math.ceil(math.sqrt(len(pixels)))
    spare = -len(pixels) % columns
    filled = torch.cat((pixels, pixels.new_zeros(spare, *pixels.shape[1:])))
    moments = [
        torch.cat([torch.cat(list(row), 1) for row in frame.split(columns)], 0)
        for frame in filled.unbind(1)
    ]
    gif, mp4, png = (out / f"{name}.{kind}" for kind in ("gif", "mp4", "png"))
    contact_sheet(pixels).save(png)
    images = [image(moment) for moment in moments]
    images[0].save(gif, save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)
    write_mp4(moments, mp4, fps)
    return gif, mp4, png


def bytes_of(videos: Tensor) -> Tensor:
    """Videos (b c f h w) in [-1, 1] as bytes (b f h w c), small ones larger, in thin frames."""
    enlarge = max(64 // videos.shape[-1], 1)
    pixels = ((videos + 1) * 127.5).round().byte().movedim(1, -1)
    pixels = pixels.repeat_interleave(enlarge, 2).repeat_interleave(enlarge, 3)
    return F.pad(pixels, (0, 0, 1, 1, 1, 1), value=64)


def contact_sheet(pixels: Tensor) -> Image.Image:
    """Videos (b f h w c) of bytes as one picture: a row is a video and a column a frame."""
    return image(torch.cat([torch.cat(list(video), 1) for video in pixels], 0))


def image(pixels: Tensor) -> Image.Image:
    """Pixels (h w c) of bytes as a picture, grey if they have one channel."""
    return Image.fromarray(pixels.squeeze(-1).numpy())


def write_mp4(frames: list[Tensor], path: Path, fps: float) -> None:
    """Write frames (h w c) of bytes as H.264, in a form that browsers play."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        height, width = frames[0].shape[:2]
        stream.height, stream.width = height + height % 2, width + width % 2  # as 4:2:0 asks for
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            padded = F.pad(frame, (0, 0, 0, width % 2, 0, height % 2))
            picture = padded.expand(-1, -1, 3).contiguous().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
