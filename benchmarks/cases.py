"""The modules and inputs that are measured, and one call of them."""

from __future__ import annotations

import statistics
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from benchmarks.measure import Run, peak_memory

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MODES = ("forward", "training")
UNET = {
    "dim": 32,
    "dim_mult": (1, 2, 4, 8),
    "resnet_block_depths": (1, 1, 1, 2),
    "self_attns": (False, False, True, True),
    "temporal_compression": (False, False, False, True),
}
Models = tuple[dict[str, nn.Module], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Case:
    """A module by its name in the package, with its arguments, and the shape of its input."""

    module: str
    arguments: dict[str, object]
    shape: tuple[int, ...]

    def build(self, package: ModuleType) -> nn.Module:
        """The module of `package`."""
        return getattr(package, self.module)(**self.arguments)

    def inputs(self) -> tuple[Tensor, ...]:
        """What the module is called with."""
        timestep = (torch.full(self.shape[:1], 500.0),) if self.module == "SpaceTimeUnet" else ()
        return (torch.randn(self.shape), *timestep)


CONV = {"dim": 64, "kernel_size": 3}
ATTENTION = {"dim": 64}
VIDEO, IMAGES = (1, 64, 8, 16, 16), (8, 64, 16, 16)
CASES = {
    "PseudoConv3d, 8 frames of 32x32": Case("PseudoConv3d", CONV, (1, 64, 8, 32, 32)),
    "PseudoConv3d, 8 images": Case("PseudoConv3d", CONV, (8, 64, 32, 32)),
    "SpatioTemporalAttention, 8 frames of 16x16": Case("SpatioTemporalAttention", ATTENTION, VIDEO),
    "the same without bias": Case(
        "SpatioTemporalAttention", ATTENTION | {"pos_bias": False}, VIDEO
    ),
    "the same, causal": Case(
        "SpatioTemporalAttention", ATTENTION | {"causal_time_attn": True}, VIDEO
    ),
    "SpatioTemporalAttention, 8 images": Case("SpatioTemporalAttention", ATTENTION, IMAGES),
    "SpaceTimeUnet, 8 frames of 64x64": Case("SpaceTimeUnet", UNET, (1, 3, 8, 64, 64)),
    "SpaceTimeUnet, 8 images": Case("SpaceTimeUnet", UNET, (8, 3, 64, 64)),
}


@torch.no_grad()
def perturb(*tensors: Tensor) -> None:
    """Move them as a training does: what is zero at first can be skipped by no one."""
    for tensor in tensors:
        tensor.add_(torch.randn_like(tensor), alpha=0.02)


def step(model: nn.Module, inputs: tuple[Tensor, ...], mode: str) -> None:
    """One call: forward without gradients, or forward and backward."""
    if mode == "forward":
        with torch.no_grad():
            model(*inputs)
        return
    model.zero_grad(set_to_none=True)
    model(*inputs).square().mean().backward()


def runs_of(models: dict[str, nn.Module], inputs: tuple[Tensor, ...], mode: str) -> dict[str, Run]:
    """A call of each of `models`, to be measured in turns."""
    return {key: partial(step, model, inputs, mode) for key, model in models.items()}


def on(device: str, dtype: torch.dtype, models: Models) -> Models:
    """`models` and their inputs moved there; timesteps stay as exact as they are."""
    modules, (x, *rest) = models
    for module in modules.values():
        module.to(device, dtype)
    return modules, (x.to(device, dtype), *(t.to(device) for t in rest))


def peak(models: Models, variant: str, mode: str, dtype: torch.dtype) -> float:
    """MiB at the peak of one call of one of `models`, in this process, which must be fresh."""
    modules, inputs = on(DEVICE, dtype, models)
    return peak_memory(partial(step, modules[variant], inputs, mode), DEVICE)


def memory(case: str, variant: str, mode: str, *options: str) -> float:
    """MiB at the peak of one call, in a process of its own: the median of three."""
    script = str(Path(__file__).with_name("run.py"))
    command = [sys.executable, script, "--memory", case, variant, mode, *options]
    runs = [
        subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(3)
    ]  # the heap of a CPU comes out 20 MiB smaller or larger
    return statistics.median(float(run.stdout.split()[-1]) for run in runs)
