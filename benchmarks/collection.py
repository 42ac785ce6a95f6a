"""Measure how a collection of many videos is read: start-up, memory, and clips a second.

    pip install -c constraints.txt -e ".[examples]" && python benchmarks/collection.py

It makes 2,000 videos of 10 seconds, many links to a few, and reads clips of them as
examples/train.py does, alone and beside its training step.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import av
import numpy as np
import torch
from batch import Batch
from buckets import Shape
from collection import Clips
from diffusers import DDPMScheduler
from diffusion import SCHEDULE, diffusion_loss, optimizer_for
from draws import Draws
from loading import batches

from make_a_video_pytorch import SpaceTimeUnet

MIB = 2**20
SIZE, FRAMES, COUNT = 32, 8, 8  # of a batch


def make_videos(folder: Path, count: int, different: int = 5) -> None:
    """Videos of 10 s, 320x240 at 30 frames a second, links to a few that are different."""
    for number in range(count):
        name = f"{number % 50:02d}/{number:05d}.mp4"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if number >= different:
            path.symlink_to(folder / f"{number % different:02d}/{number % different:05d}.mp4")
            continue
        noise = np.random.default_rng(number).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        picture = noise.repeat(40, 0).repeat(40, 1)[:240, :320]
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            for shift in range(300):
                rolled = np.ascontiguousarray(np.roll(picture, 2 * shift, axis=1))
                frame = av.VideoFrame.from_ndarray(rolled, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())


def resident() -> float:
    """MiB of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def opened(folder: Path) -> tuple[Clips, float]:
    """The collection, and the seconds that it took to know it."""
    start = time.perf_counter()
    clips = Clips(folder, [Shape(FRAMES, SIZE, SIZE)], fps=(1.0, 30.0))
    return clips, time.perf_counter() - start


def stepping() -> Callable[[Batch], None]:
    """A training step of the U-Net of examples/train.py."""
    torch.manual_seed(0)
    unet = SpaceTimeUnet(
        dim=32, dim_mult=(1, 2), self_attns=(False, True), temporal_compression=(False, False),
        resnet_block_depths=(1, 1), attn_dim_head=32, attn_heads=4, condition_on_fps=True,
    )  # fmt: skip
    optimizer, scheduler = optimizer_for(unet), DDPMScheduler(**SCHEDULE)

    def step(batch: Batch) -> None:
        loss = diffusion_loss(unet, scheduler, batch.videos, Draws(0, 0), "cpu")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def per_second(
    clips: Clips, workers: int, steps: int, step: Callable[[Batch], None] | None
) -> float:
    """Clips a second, in the median over steps, after the first four."""
    following = batches(clips, range(steps), COUNT, FRAMES, first=0, seed=0, workers=workers)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        batch = following(Draws(0, 0))
        if step is not None:
            step(batch)
        times.append(time.perf_counter() - start)
    return COUNT / statistics.median(times[4:])


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=24)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        make_videos(folder, args.files)
        before = resident()
        _, first = opened(folder)
        clips, again = opened(folder)
        known = resident()
        print(f"- start-up with {args.files} files: {first:.1f} s, with an index {again:.1f} s")
        read = []
        for number in range(40):
            clips.of_step(number, COUNT, FRAMES, 0, 0.5)
            read.append(resident())
        print(
            f"- resident memory: {before:.0f} MiB, with the collection {known:.0f}, after 10 "
            f"batches {read[9]:.0f}, after 40 {read[39]:.0f}"
        )
        step, waiting = stepping(), per_second(clips, 0, 8, None)
        alone = clips.of_step(0, COUNT, FRAMES, 0, 0.5)
        times = []
        for _ in range(8):
            start = time.perf_counter()
            step(alone)
            times.append(time.perf_counter() - start)
        print(f"- read alone, no worker: {waiting:.1f} clips a second")
        print(f"- training step alone: {COUNT / statistics.median(times):.1f} clips a second")
        for workers in (0, 1, 2):
            rate = per_second(clips, workers, args.steps, step)
            print(f"- training step with {workers} workers: {rate:.1f} clips a second", flush=True)
    print(
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads; clips of {FRAMES} frames, "
        f"{SIZE}x{SIZE}, from 320x240 at 30 frames a second (H.264)"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
