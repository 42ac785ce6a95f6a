"""Time, memory and work of a call, and what the machine could do at best."""

from __future__ import annotations

import gc
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import log
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

MIB = 2**20
Run = Callable[[], object]


def wait(device: str) -> None:
    """Wait until the device has done what it was asked."""
    if device == "cuda":
        torch.cuda.synchronize()


def medians(runs: dict[str, Run], repeats: int, device: str) -> dict[str, float]:
    """Seconds that each of `runs` takes: the median of `repeats`, taken in turns."""
    warm_up(runs)
    return in_turns(runs, [list(runs)] * repeats, device)


def rounds(runs: dict[str, Run], repeats: int, count: int, device: str) -> list[dict[str, float]]:
    """The medians of `count` rounds of `repeats` turns, in which no place is favoured."""
    warm_up(runs)
    turns = [order(list(runs), turn) for turn in range(count * repeats)]
    return [
        in_turns(runs, turns[first : first + repeats], device)
        for first in range(0, count * repeats, repeats)
    ]


def order(names: list[str], turn: int) -> list[str]:
    """Who goes first in a turn, who next: each in each place, and before and after each other."""
    cycle, first = divmod(turn, len(names))
    names = names[first:] + names[:first]
    return names[::-1] if cycle % 2 else names


def warm_up(runs: dict[str, Run]) -> None:
    """Call each twice: what is allocated, chosen or compiled once."""
    for run in runs.values():
        run()
        run()


def in_turns(runs: dict[str, Run], turns: list[list[str]], device: str) -> dict[str, float]:
    """Seconds that each of `runs` takes, the median over `turns`, which are their names."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for names in turns:
        for name in names:
            gc.collect()
            wait(device)
            start = time.perf_counter()
            runs[name]()
            wait(device)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


@dataclass
class Limits:
    """What the machine does at best: floating point operations and bytes a second."""

    flops: float
    bytes: float


def limits(device: str, dtype: torch.dtype, repeats: int) -> Limits:
    """The rates of a large matrix product and of a large copy."""
    size = 8192 if device == "cuda" else 2048
    a, b = torch.randn(2, size, size, device=device).to(dtype).unbind()
    out = torch.empty_like(a)
    source = torch.empty((2**30 if device == "cuda" else 2**27,), device=device)
    target = torch.empty_like(source)
    times = medians(
        {"matmul": lambda: torch.mm(a, b, out=out), "copy": lambda: target.copy_(source)},
        repeats,
        device,
    )
    return Limits(2 * size**3 / times["matmul"], 2 * source.nbytes / times["copy"])


@dataclass
class Work:
    """What a call must do: floating point operations, and bytes read and written at least."""

    flops: int
    bytes: int

    def bound(self, limits: Limits) -> tuple[float, str]:
        """Seconds that it takes at least on a machine of these limits, and by which of the two."""
        by_flops, by_bytes = self.flops / limits.flops, self.bytes / limits.bytes
        return (by_flops, "matmul") if by_flops > by_bytes else (by_bytes, "memory")


class CountBytes(TorchDispatchMode):
    """Counts the inputs and outputs of products and convolutions, each once a call.

    That is less than any run without fusion can do with: norms and activations come free.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> object:  # noqa: ANN001
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            tensors = (*args, *(out if isinstance(out, tuple) else (out,)))
            self.bytes += sum(t.nbytes for t in tensors if isinstance(t, Tensor))
        return out


def work(run: Run) -> Work:
    """What `run` does, counted in a run of it."""
    with FlopCounterMode(display=False) as flops, CountBytes() as moved:
        run()
    return Work(flops.get_total_flops(), moved.bytes)


def attention_kernels(run: Run, device: str) -> Counter[str]:
    """The attention kernels of a call, as torch's profiler names them, and how often each ran.

    On a CPU, where no kernel has a name of its own, they are torch's operators.
    """
    cuda = device == "cuda"
    pattern = "flash|fmha|sdpa|attention" if cuda else "^aten::_scaled_dot_product.*(cpu|math)$"
    activities = [ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]
    with profile(activities=activities) as profiled:
        run()
        wait(device)
    where = DeviceType.CUDA if cuda else DeviceType.CPU
    return Counter(
        event.name
        for event in profiled.events()
        if event.device_type == where and re.search(pattern, event.name)
    )


def peak_memory(run: Run, device: str) -> float:
    """MiB that `run` takes beyond what is there before it, at its peak.

    On a CPU it is the resident memory of this process, which must be a fresh one.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    run()
    return (resident("VmHWM") - before) / MIB


def resident(line: str) -> int:
    """Bytes that the kernel reports for this process, now (VmRSS) or at most (VmHWM)."""
    for entry in Path("/proc/self/status").read_text().splitlines():
        if entry.startswith(line):
            return int(entry.split()[1]) * 1024
    raise OSError(f"no {line} in /proc/self/status")


def exponent(sizes: list[int], values: list[float]) -> float:
    """The power of the size that `values` grow by, fitted by least squares on logarithms."""
    xs, ys = [log(size) for size in sizes], [log(value) for value in values]
    return statistics.linear_regression(xs, ys).slope
