"""Videos and pictures as people have them, made here."""

from fractions import Fraction

import av
import numpy as np
from PIL import Image


def write_video(path, frames=11, width=40, height=24):
    """A white bar that moves to the right by two pixels a frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            picture = np.zeros((height, width, 3), dtype=np.uint8)
            picture[:, 8 + 2 * index : 12 + 2 * index] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_gif(path, frames=5):
    pictures = [Image.fromarray(np.full((20, 30, 3), 40 * i, np.uint8)) for i in range(frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, loop=0)
    return path


RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners(width, height):
    """A picture (h w 3) whose corners are red, green, blue and white, row by row."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = height // 2, width // 2
    picture[:top, :left], picture[:top, left:] = RED, GREEN
    picture[top:, :left], picture[top:, left:] = BLUE, WHITE
    return picture


def corners_of(picture):
    """The colours of the corners of a picture, row by row, each as its nearest one's name."""
    names = {"red": RED, "green": GREEN, "blue": BLUE, "white": WHITE}
    h, w = picture.shape[:2]
    found = []
    for y in (h // 8, -h // 8):
        for x in (w // 8, -w // 8):
            seen = picture[y, x].astype(int)
            gaps = {name: abs(seen - colour).sum() for name, colour in names.items()}
            found.append(min(gaps, key=gaps.get))
    return found


def number(value, size=64):
    """A picture (size size 3) that shows a number from 0 to 255 by eight bars, black or white."""
    bits = np.array([value >> bit & 1 for bit in range(8)], dtype=np.uint8) * 255
    row = bits.repeat(size // 8)
    return np.broadcast_to(row[None, :, None], (size, size, 3)).copy()


def number_of(picture):
    """The number that a picture shows."""
    row = picture.mean((0, 2))
    width = len(row) / 8
    return sum((row[int((bit + 0.5) * width)] > 127) << bit for bit in range(8))


def write_pictures(
    path,
    pictures,
    codec="mpeg4",
    pixels="yuv420p",
    rate=10,
    times=None,
    rotation=0,
    aspect=None,
    options=None,
):
    """Write a video of these pictures, at a `rate` or at `times` in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        height, width = pictures[0].shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.bit_rate = 4_000_000
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.time_base, frame.pts = Fraction(1, 1000), times[index]
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_numbers(path, count, start=0, **how):
    """Write a video whose frames show the numbers from `start` on."""
    return write_pictures(path, [number(start + index) for index in range(count)], **how)


def write_sound(path):
    """Write a file of sound only."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac" if path.suffix == ".mp4" else "pcm_s16le", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 8000
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    return path


def write_picture(path, picture, orientation=None, mode=None):
    """Write a picture, with an orientation of EXIF if one is given."""
    image = Image.fromarray(picture)
    if mode is not None:
        image = image.convert(mode)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def write_song(path):
    """Write a file of sound with a picture of its cover."""
    with av.open(str(path), "w") as container:
        cover = container.add_stream("png", rate=1)
        cover.width = cover.height = 32
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic.value
        sound = container.add_stream("aac", rate=8000)
        sound.layout = "mono"
        picture = av.VideoFrame.from_ndarray(corners(32, 32), format="rgb24")
        silence = np.zeros((1, 1024), dtype=np.float32)
        heard = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        heard.sample_rate = 8000
        packets = (*cover.encode(picture), *cover.encode(), *sound.encode(heard), *sound.encode())
        for packet in packets:
            container.mux(packet)
    return path


def write_cut(path, source, seconds):
    """Copy a video without its first seconds, which players are told to pass over."""
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(source)) as whole, av.open(str(path), "w", options=options) as container:
        stream = whole.streams.video[0]
        copy = container.add_stream_from_template(stream)
        for packet in whole.demux(stream):
            if packet.size:
                packet.pts -= int(seconds / stream.time_base)
                packet.dts -= int(seconds / stream.time_base)
                packet.stream = copy
                container.mux(packet)
    return path


def write_two_clips(folder):
    """Two videos, of which one has a caption; their folder."""
    folder.mkdir()
    for name in "ab":
        write_numbers(folder / f"{name}.mp4", 12)
    (folder / "a.txt").write_text("a red ball")
    return folder
