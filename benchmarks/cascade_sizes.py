"""What a cascade of Make-A-Video's sizes would take, before there is one.

    python benchmarks/cascade_sizes.py
    python benchmarks/cascade_sizes.py --tflops 200 --steps 25

Each stage is taken on tensors without data, which need no memory and no GPU: its parameters, the
operations of a video and of a step of training, and the memory of that step on a GPU, as
examples/memory.py counts it. Sizes are the paper's (Singer et al. 2022, section 3). Widths and
windows are of our choice, the widths near those of DALL-E 2 (Ramesh et al. 2022, appendix C).
Times follow from a rate of operations that is assumed; 400 TFLOP/s are two fifths of what an H100
does in bf16.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import torch
from fake_gpu import on_a_gpu
from memory import conditions_of, memory_of
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.measure import work
from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.cascade.frames import windows

BASE = {
    "dim": 512, "dim_mult": (1, 2, 3, 4), "self_attns": (False, True, True, True),
    "temporal_compression": (False,) * 4, "resnet_block_depths": (3,) * 4, "cond_dim": 768,
    "condition_on_fps": True,
}  # fmt: skip
LARGER = {
    "dim": 320, "dim_mult": (1, 2, 3, 4), "self_attns": (False, False, False, True),
    "temporal_compression": (False,) * 4, "resnet_block_depths": (3,) * 4, "cond_channels": 7,
    "condition_on_noise_level": True,
}  # fmt: skip
LARGEST = {
    "dim": 192, "dim_mult": (1, 1, 2, 2, 4, 4), "self_attns": (False,) * 6,
    "temporal_compression": (False,) * 6, "resnet_block_depths": (2,) * 6, "cond_channels": 3,
    "condition_on_noise_level": True,
}  # fmt: skip


class Sized(NamedTuple):
    """A stage: the arguments of its U-Net, and the videos that it makes."""

    unet: dict[str, object]
    size: int
    frames: int  # of a video
    window: int
    overlap: int = 0


STAGES = {
    "decoder": Sized(BASE, 64, 16, 16),
    "interpolation": Sized(BASE | {"cond_channels": 4}, 64, 76, 76),
    "super-resolution": Sized(LARGER, 256, 76, 16, 4),
    "super-resolution per frame": Sized(LARGEST, 768, 76, 1),
}


class Cost(NamedTuple):
    """What a stage takes."""

    parameters: int
    call: int  # operations of a prediction for a window
    step: int  # operations of a step of training with one window
    calls: int  # windows of a video
    memory: int  # bytes of that step, in bf16, with activations computed again


def cost_of(stage: Sized) -> Cost:
    """What a stage takes, of windows one by one; one of one frame is an image."""
    frames = () if stage.window == 1 else (stage.window,)
    shape = (1, 3, *frames, stage.size, stage.size)
    with FakeTensorMode(), on_a_gpu():
        unet = SpaceTimeUnet(**stage.unet)
        x, told = torch.empty(shape), conditions_of(unet, 1)

        def predict() -> torch.Tensor:
            out: torch.Tensor = unet(x, torch.zeros(1), **told)
            return out

        with torch.no_grad():
            call = work(predict).flops
        step = work(lambda: predict().sum().backward()).flops
        parameters = sum(parameter.numel() for parameter in unet.parameters())
    memory = memory_of(stage.unet, shape, mixed_precision="bf16", gradient_checkpointing=True)
    calls = len(windows(stage.frames, stage.window, stage.overlap))
    return Cost(parameters, call, step, calls, memory.total)


def table(tflops: float, steps: int) -> str:
    """A line for each stage."""
    rate = tflops * 1e12
    lines = [
        "| stage | video | parameters | windows | TFLOP a prediction of a window | GPU seconds a "
        f"video, {steps} steps | memory of a training step | GPU hours of training on a million |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, stage in STAGES.items():
        cost = cost_of(stage)
        video = cost.call * cost.calls * steps / rate
        learned = "images" if stage.window == 1 else f"clips of {stage.window}"
        lines.append(
            f"| {name} | {stage.frames}x{stage.size}x{stage.size} | "
            f"{cost.parameters / 1e9:.2f} billion | {cost.calls} | {cost.call / 1e12:.1f} | "
            f"{video:.0f} | {cost.memory / 2**30:.0f} GiB | "
            f"{cost.step * 1e6 / rate / 3600:,.0f} ({learned}) |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tflops", type=float, default=400, help="10^12 operations a second: 400")
    parser.add_argument("--steps", type=int, default=50, help="of denoising in a stage: 50")
    args = parser.parse_args(arguments)
    print(table(args.tflops, args.steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
