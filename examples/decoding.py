"""What a video file or a picture holds, and the frames of it that are asked for, upright.

By PyAV and Pillow. Pictures are arrays (h w 3) of bytes, of the size that is asked for: scaled
until they cover it, and cut in the middle.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from errors import DataError
from PIL import Image, ImageOps

Picture = np.ndarray  # (h w 3), bytes


class Facts(NamedTuple):
    """What is known of a clip without decoding it all; sizes are those of the upright picture."""

    frames: int
    fps: float
    width: int
    height: int


class Blob(NamedTuple):
    """A file that is in memory, and what messages call it."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


@contextmanager
def opened(path: Path | Blob) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The file and its first stream of moving pictures; what goes wrong is a DataError."""
    # of a path from the root on, no part is taken for a protocol
    source = BytesIO(path.content) if isinstance(path, Blob) else os.path.abspath(path)
    try:
        with av.open(source, metadata_errors="ignore") as container:
            cover = av.stream.Disposition.attached_pic
            moving = [s for s in container.streams.video if not s.disposition & cover]
            if not moving:
                raise DataError(f"{path} holds no pictures")
            yield container, moving[0]
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "damaged"
        raise DataError(f"{path} cannot be decoded as a video: {reason}") from error


def facts_of(path: Path | Blob) -> Facts:
    """The frames are counted and timed by their packets, and the first is decoded."""
    with opened(path) as (container, stream):  # of which nothing is left once it is closed
        # what was cut off at the beginning may still be in the file, to be discarded
        packets = (p for p in container.demux(stream) if p.size and not p.is_discard)
        times = [packet.pts for packet in packets]
        first = next(decoded(path, 0.0), None)
        if first is None:
            raise DataError(f"{path} holds no pictures")
        timed = [time for time in times if time is not None]
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        if timed and max(timed) > min(timed):
            fps = (len(timed) - 1) / float((max(timed) - min(timed)) * stream.time_base)
        return Facts(len(times), fps, *upright_size(first[1], stream))


def upright_size(frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    """Width and height as they are shown: pixels made square, then turned."""
    width, height = frame.width, frame.height
    if stream.sample_aspect_ratio:
        width = max(round(width * stream.sample_aspect_ratio), 1)
    return (height, width) if frame.rotation % 180 else (width, height)


def decoded(path: Path | Blob, start: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """The frames from `start` on, or a little before it, each with its time in seconds.

    Time is zero at the first frame. A stream without time stamps is read from there, and so are
    program streams, whose time stamps are wrong after a jump.
    """
    with opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        interval = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        zero, kind, time = stream.start_time, "pts", -interval
        if container.format.name == "avi":  # which knows only the order of decoding
            zero, kind = None, "dts"
            if start > 0:
                zero = next((frame.dts for frame in container.decode(stream)), None)
        if start > 0 and zero is not None and container.format.name != "mpeg":
            with suppress(av.error.FFmpegError):  # what has no index is read from its beginning
                container.seek(zero + int(start / stream.time_base), stream=stream)
                time = math.inf  # until a time stamp comes
        for frame in container.decode(stream):
            stamp = getattr(frame, kind)
            if stamp is None:
                time += interval
            else:
                zero = stamp if zero is None else zero
                time = float((stamp - zero) * stream.time_base)
            yield time, frame


def read_frames(
    path: Path | Blob, times: Sequence[float], width: int, height: int
) -> list[Picture]:
    """The pictures that are shown at `times`, which rise, in seconds."""
    pictures: list[Picture] = []
    shown: av.VideoFrame | None = None
    with opened(path) as (_, stream):
        aspect = stream.sample_aspect_ratio or 1
    for attempt in (times[0], 0.0):  # a file may have no frame where one is sought
        for time, frame in decoded(path, attempt):
            if shown is None and time > times[0] and attempt > 0:
                break
            while len(pictures) < len(times) and time > times[len(pictures)] and shown is not None:
                pictures.append(fitted_frame(shown, aspect, width, height))
            shown = frame
            if len(pictures) == len(times):
                return pictures
        if shown is not None:
            break
    if shown is None:
        raise DataError(f"{path} holds no picture at {times[0]:.2f} s")
    if len(times) > len(pictures) + 1:
        raise DataError(f"{path} ends before {times[-1]:.2f} s")
    return [*pictures, fitted_frame(shown, aspect, width, height)]


def fitted_frame(frame: av.VideoFrame, aspect: float, width: int, height: int) -> Picture:
    """A frame, upright, of this size."""
    turned = frame.rotation % 180 != 0
    across, down = (height, width) if turned else (width, height)
    own_width = frame.width * float(aspect)
    scale = max(across / own_width, down / frame.height)
    scaled = frame.to_ndarray(
        format="rgb24",
        width=max(across, round(own_width * scale)),
        height=max(down, round(frame.height * scale)),
        interpolation="AREA",
    )
    top, left = (scaled.shape[0] - down) // 2, (scaled.shape[1] - across) // 2
    picture = scaled[top : top + down, left : left + across]
    return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))


def read_picture(path: Path, width: int, height: int) -> Picture:
    """A picture of a file, upright, of this size."""
    with opened_picture(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        if "A" in upright.getbands() or "transparency" in upright.info:  # on white, as gifs are
            upright = upright.convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright)
        fitted = ImageOps.fit(upright.convert("RGB"), (width, height), Image.Resampling.BOX)
        return np.asarray(fitted)


def size_of_picture(path: Path) -> tuple[int, int]:
    """Width and height of a picture, upright."""
    with opened_picture(path) as image:
        if image.format == "TIFF":
            image.load()  # which turns it
        turned = image.getexif().get(0x0112) in (5, 6, 7, 8)  # EXIF's orientation
        return (image.height, image.width) if turned else image.size


@contextmanager
def opened_picture(path: Path) -> Iterator[Image.Image]:
    """A picture; what goes wrong is a DataError."""
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture: {error}") from error
