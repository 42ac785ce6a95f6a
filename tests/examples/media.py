"""Videos and pictures as people have them, made here."""

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
