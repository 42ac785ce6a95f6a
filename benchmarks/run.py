"""Measure this library beside 0.4.0, diffusers and the machine's limits, all in one run.

    pip install -c constraints.txt -e ".[bench]" && python benchmarks/run.py

Every comparison takes turns, call by call, and reports medians. The record goes into
benchmarks/RESULTS.md, in the section of the device, and the plot of the growth beside it.
`python benchmarks/run.py --against COMMIT` measures a commit of this library beside now instead.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor

import make_a_video_pytorch
from benchmarks import against, peers
from benchmarks.cases import (
    CASES,
    DEVICE,
    MODES,
    UNET,
    Case,
    Models,
    memory,
    on,
    peak,
    perturb,
    runs_of,
    step,
)
from benchmarks.measure import (
    Limits,
    attention_kernels,
    exponent,
    limits,
    medians,
    work,
)
from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.guidance import guide

HERE = Path(__file__).parent
U_NET = "SpaceTimeUnet, 8 frames of 64x64"


@cache
def original() -> ModuleType:
    """0.4.0, in a folder that later runs find again."""
    return peers.original(Path(tempfile.gettempdir()) / "make-a-video-pytorch-0.4.0")


def pair(case: Case) -> Models:
    """The module of this library and of 0.4.0 with the same weights, and its inputs."""
    ours, theirs = case.build(make_a_video_pytorch), case.build(original())
    perturb(*theirs.parameters())
    ours.load_state_dict(theirs.state_dict())
    return {"ours": ours, "0.4.0": theirs}, case.inputs()


def beside_diffusers() -> Models:
    """The U-Net and those of diffusers, on 8 frames of 64x64."""
    models = {
        "SpaceTimeUnet": SpaceTimeUnet(**UNET),
        "UNet3DConditionModel": peers.unet3d(),
        "UNetMotionModel": peers.unet_motion(),
    }
    return models, (torch.randn(1, 3, 8, 64, 64), torch.tensor([500]))


def alone(frames: int, size: int, clips: int = 1, **changes: object) -> Models:
    """The U-Net alone, with `changes` to its arguments, on clips of this size."""
    return {"ours": SpaceTimeUnet(**UNET | changes)}, (
        torch.randn(clips, 3, frames, size, size),
        torch.full((clips,), 500),
    )


def build(case: str) -> Models:
    """The models of a case, by its name, or by frames and size."""
    if case in CASES:
        return pair(CASES[case])
    frames, size = case.split("x")
    return alone(int(frames), int(size))


def against_original(best: Limits, args: argparse.Namespace) -> str:
    """The table beside 0.4.0."""
    rows = [
        "| | | ms | 0.4.0 | times as fast | MiB | 0.4.0 | share | bound by | share of the bound |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|--:|",
    ]
    for name in CASES:
        models, inputs = on(DEVICE, args.type, build(name))
        for mode in MODES:
            runs = runs_of(models, inputs, mode)
            times = medians(runs, args.repeats, DEVICE)
            bound, limit = work(runs["ours"]).bound(best)
            peaks = [memory(name, variant, mode, "--dtype", args.dtype) for variant in models]
            rows.append(
                f"| {name} | {mode} | {1e3 * times['ours']:.1f} | {1e3 * times['0.4.0']:.1f} | "
                f"**{times['0.4.0'] / times['ours']:.2f}** | {peaks[0]:.0f} | {peaks[1]:.0f} | "
                f"{peaks[0] / peaks[1]:.2f} | {limit} | {bound / times['ours']:.0%} |"
            )
            print(rows[-1], flush=True)
    return "\n".join(rows)


def against_diffusers(best: Limits, args: argparse.Namespace) -> str:
    """The table beside diffusers, for each floating point operation."""
    models, inputs = on(DEVICE, args.type, beside_diffusers())
    rows = [
        "| | | parameters | GFLOP | ms | GFLOP/s | per FLOP, beside ours | of the matmul |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for mode in MODES:
        runs = runs_of(models, inputs, mode)
        flops = {key: work(run).flops for key, run in runs.items()}
        times = medians(runs, max(args.repeats // 3, 1), DEVICE)  # one of them takes long
        rates = {key: flops[key] / times[key] for key in runs}
        for key, model in models.items():
            size = sum(p.numel() for p in model.parameters()) / 1e6
            rows.append(
                f"| {key} | {mode} | {size:.1f}M | {flops[key] / 1e9:.1f} | "
                f"{1e3 * times[key]:.0f} | {rates[key] / 1e9:.0f} | "
                f"{rates[key] / rates['SpaceTimeUnet']:.2f} | {rates[key] / best.flops:.0%} |"
            )
            print(rows[-1], flush=True)
    return "\n".join(rows)


def image_path(args: argparse.Namespace) -> str:
    """What it costs to be able to take videos, on images; and bf16 beside fp32."""
    unet = SpaceTimeUnet(**UNET)
    models = {"ours": unet, "plain": peers.PlainImageUnet(unet)}
    inputs = torch.randn(8, 3, 64, 64), torch.full((8,), 500.0)
    models, inputs = on(DEVICE, args.type, (models, inputs))
    rows = []
    for mode in MODES:
        runs = runs_of(models, inputs, mode)
        times = medians(runs, 2 * args.repeats, DEVICE)
        rows.append(
            f"- 8 images, {mode}: {1e3 * times['ours']:.1f} ms, as plain 2D layers "
            f"{1e3 * times['plain']:.1f} ms: {times['ours'] / times['plain'] - 1:+.1%}"
        )
        print(rows[-1], flush=True)
    runs = {}
    for dtype in (torch.float32, torch.bfloat16):
        models, inputs = on(DEVICE, dtype, alone(8, 64))
        for mode in MODES:
            runs[mode, dtype] = partial(step, models["ours"], inputs, mode)
    times = medians(runs, max(args.repeats // 3, 1), DEVICE)
    for mode in MODES:
        full, half = times[mode, torch.float32], times[mode, torch.bfloat16]
        rows.append(
            f"- 8 frames, {mode} in bf16: {1e3 * half:.0f} ms, in fp32 {1e3 * full:.0f} ms: "
            f"{full / half:.2f} times as fast"
        )
        print(rows[-1], flush=True)
    return "\n".join(rows)


def guided(args: argparse.Namespace) -> str:
    """What guidance costs in sampling, and what an interval of timesteps spares."""
    models, (video, _) = on(DEVICE, args.type, alone(8, 64, cond_dim=16))
    unet, cond = models["ours"], torch.randn(1, 16).to(video)
    interval = (200, 800)
    ways = {
        "no guidance": unet,
        "guidance at all": guide(unet, 5.0),
        f"guidance from {interval[0]} to {interval[1]}": guide(unet, 5.0, interval=interval),
    }

    @torch.no_grad()
    def sampling(model: Callable[..., Tensor]) -> None:
        for timestep in (900, 700, 500, 300, 100):
            model(video, timestep, cond=cond)

    runs = {name: partial(sampling, model) for name, model in ways.items()}
    times = medians(runs, args.repeats, DEVICE)
    rows = [
        f"- 5 timesteps of 8 frames, {name}: {1e3 * time:.0f} ms, "
        f"{time / times['guidance at all']:.2f} of the time of guidance at all"
        for name, time in times.items()
    ]
    print(*rows, sep="\n", flush=True)
    return "\n".join(rows)


@torch.no_grad()
def streamed(args: argparse.Namespace, after: Sequence[int] = (16, 64, 256)) -> str:
    """What the next frame costs `after` so many, streamed and with others computed again.

    Through all layers it sees more than the last 17, which alone give another result.
    """
    window = {"causal": True, "temporal_window": 16, "temporal_compression": (False,) * 4}
    models, (video, timestep) = on(DEVICE, args.type, alone(max(after) + 1, 32, **window))
    unet, runs, kept = models["ours"], {}, {}
    for frames in after:
        stream = unet.stream()
        for chunk in video[:, :, :frames].split(16, dim=2):
            stream(chunk, timestep)
        kept[frames] = sum(t.untyped_storage().nbytes() for t in stream.kept) / 2**20
        next_frame = video[:, :, frames : frames + 1]
        seen = {
            "the last 17 again": video[:, :, frames - 16 : frames + 1],
            "all again": video[:, :, : frames + 1],
        }
        runs["streamed", frames] = partial(stream, next_frame, timestep, commit=False)
        runs |= {(name, frames): partial(unet, x, timestep) for name, x in seen.items()}
    times = medians(runs, max(args.repeats // 2, 3), DEVICE)
    rows = [
        "| after | streamed, ms | the last 17 frames again | all frames again | MiB kept |",
        "|--:|--:|--:|--:|--:|",
    ]
    for frames in after:
        own = times["streamed", frames]
        others = (
            f"{1e3 * times[name, frames]:.0f} ({times[name, frames] / own:.1f} times)"
            for name in ("the last 17 again", "all again")
        )
        rows.append(
            f"| {frames} frames | {1e3 * own:.1f} | {' | '.join(others)} | {kept[frames]:.1f} |"
        )
    print(*rows, sep="\n", flush=True)
    return "\n".join(rows)


def kernels(args: argparse.Namespace) -> str:
    """Which attention kernels run, by the profiler."""
    rows = []
    for positions, arguments in (
        ("a bias that learns", {}),
        ("rotary positions", {"attn_pos_bias": False, "attn_rotary": True}),
    ):
        models, inputs = on(DEVICE, args.type, alone(8, 64, **arguments))
        for mode in MODES:
            counts = attention_kernels(runs_of(models, inputs, mode)["ours"], DEVICE)
            names = ", ".join(f"`{name}` {count} times" for name, count in counts.items())
            rows.append(f"- {positions}, {mode}: {names or 'none'}")
            print(rows[-1], flush=True)
    return "\n".join(rows)


def wide(best: Limits, args: argparse.Namespace) -> str:
    """A U-Net of dim 256 beside the matmul: 16 TFLOP a forward pass, for a GPU."""
    if DEVICE != "cuda":
        return "not measured: for a GPU"
    models, inputs = on(DEVICE, args.type, alone(16, 64, clips=4, dim=256))
    rows = []
    for mode in MODES:
        runs = runs_of(models, inputs, mode)
        time, flops = medians(runs, args.repeats, DEVICE)["ours"], work(runs["ours"]).flops
        rows.append(
            f"- 4 clips of 16 frames of 64x64, {mode}: {1e3 * time:.1f} ms, "
            f"{flops / time / 1e12:.1f} TFLOP/s, {flops / time / best.flops:.0%} of the matmul"
        )
        print(rows[-1], flush=True)
    return "\n".join(rows)


def growth(args: argparse.Namespace) -> str:
    """Time and memory as clips get longer and larger, with the fitted exponents, and a plot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    series = {
        "frames of 32x32": [(f, 32, f) for f in (8, 16, 32, 64, 128)],
        "pixels of a side, 8 frames": [(8, s, s) for s in (32, 64, 128)],
    }
    rows = ["| | | " + "value | " * 5 + "exponent |", "|---|---|" + "--:|" * 6]
    figure, axes = plt.subplots(1, 4, figsize=(13, 3), layout="constrained")
    axes = iter(axes)
    for name, cases in series.items():
        sizes = [size for _, _, size in cases]
        runs = {}
        for frames, side, size in cases:
            models, inputs = on(DEVICE, args.type, alone(frames, side))
            runs[size] = partial(step, models["ours"], inputs, "forward")
        times = medians(runs, max(args.repeats // 2, 3), DEVICE)
        peaks = {
            size: memory(f"{frames}x{side}", "ours", "forward", "--dtype", args.dtype)
            for frames, side, size in cases
        }
        rows.append(f"| {name} | | " + " | ".join(map(str, sizes)) + " | " * (6 - len(sizes)) + "|")
        for label, values in (
            ("ms", {size: 1e3 * time for size, time in times.items()}),
            ("MiB", peaks),
        ):
            power = exponent(sizes, list(values.values()))
            rows.append(
                f"| | {label} | "
                + " | ".join(f"{value:.0f}" for value in values.values())
                + " | " * (6 - len(sizes))
                + f"{power:.2f} |"
            )
            print(rows[-1], flush=True)
            axis = next(axes)
            axis.loglog(sizes, list(values.values()), marker="o", base=2)
            axis.set(xlabel=name, ylabel=label, title=f"exponent {power:.2f}")
            axis.grid(True, which="both", alpha=0.3)
    figure.savefig(HERE / f"growth-{DEVICE}.png", dpi=80)
    return "\n".join(rows)


def compiled(args: argparse.Namespace) -> str:
    """Both U-Nets under torch.compile, beside themselves in eager."""
    rows = []
    eager, inputs = on(DEVICE, args.type, build(U_NET))
    models = {key: torch.compile(model, dynamic=False) for key, model in eager.items()}
    models |= {f"{key}, eager": model for key, model in eager.items()}
    for mode in MODES:
        runs = runs_of(models, inputs, mode)
        times = medians(runs, args.repeats, DEVICE)
        ours, theirs = (
            f"{1e3 * times[key]:.0f} ms (eager {1e3 * times[key + ', eager']:.0f})" for key in eager
        )
        rows.append(
            f"- {U_NET}, {mode}: {ours}, 0.4.0 {theirs}: "
            f"**{times['0.4.0'] / times['ours']:.2f}** times as fast compiled"
        )
        print(rows[-1], flush=True)
    return "\n".join(rows)


PACKAGES = ("torch", "diffusers", "make-a-video-pytorch")


def machine(packages: Sequence[str] = PACKAGES, device: str = DEVICE) -> str:
    """What was measured on what."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = names[0].partition(": ")[2] if names else name
    if device == "cuda":
        name = torch.cuda.get_device_name()
    return (
        f"{name}, {torch.get_num_threads()} threads of {os.cpu_count()} cores; Python "
        f"{platform.python_version()}, " + ", ".join(f"{p} {version(p)}" for p in packages)
    )


def write(section: str, path: Path) -> None:
    """Put the section of this device into the record, beside that of the other."""
    header = {"cpu": "## CPU", "cuda": "## CUDA"}
    parts = dict.fromkeys(header.values(), "not measured")
    if path.exists():
        for part in path.read_text().split("\n## ")[1:]:
            title, _, text = part.partition("\n")
            parts[f"## {title}"] = text.strip()
    parts[header[DEVICE]] = section
    text = "\n\n".join(f"{title}\n\n{part}" for title, part in parts.items())
    path.write_text("# Results\n\nWritten by `python benchmarks/run.py`.\n\n" + text + "\n")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--repeats", type=int, default=11, help="times that each call is measured")
    add("--out", type=Path, help="where the record goes: RESULTS.md; --against only prints it")
    add("--compile", action="store_true", help="measure under torch.compile too: minutes more")
    add("--dtype", default="float32", choices=["float32", "bfloat16"])
    add("--against", metavar="COMMIT", help="measure this commit and the files as they are now")
    add("--rows", metavar="TEXT", help="with --against, only rows that have this in their name")
    add("--memory", nargs=3, metavar=("CASE", "VARIANT", "MODE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.type = getattr(torch, args.dtype)
    torch.manual_seed(0)
    if args.against is None and args.rows is not None:
        parser.error("--rows is for --against")
    if args.against is not None:
        if args.compile:
            parser.error("--compile is not for --against")
        return against.main(args, parser, machine(["torch"]))
    if args.memory:
        case, variant, mode = args.memory
        print(peak(build(case), variant, mode, args.type))
        return 0
    out = args.out or HERE / "RESULTS.md"
    best = limits(DEVICE, args.type, args.repeats)
    section = [
        machine() + f"; {args.dtype}, medians of {args.repeats} turns (a third beside diffusers).",
        f"Limits, measured in the same run: matmul {best.flops / 1e9:.0f} GFLOP/s, copy "
        f"{best.bytes / 1e9:.1f} GB/s. The bound of a call is the longer of its floating point "
        "operations at the one and the inputs and outputs of its products and convolutions at the "
        "other; training is forward and backward.",
        f"U-Net: `{', '.join(f'{k}={v}' for k, v in UNET.items())}`.",
        "### Beside 0.4.0, the same weights",
        against_original(best, args),
        "### Beside diffusers, 8 frames of 64x64",
        against_diffusers(best, args),
        "### The image path, and bf16",
        image_path(args),
        "### Guidance",
        guided(args),
        "### Streaming, the next frame of 32x32 behind a window of 16",
        streamed(args),
        "### Attention kernels",
        kernels(args),
        "### The U-Net of dim 256",
        wide(best, args),
        "### Growth, forward",
        growth(args),
        f"![growth](growth-{DEVICE}.png)",
        "### Under torch.compile",
        "not measured",
    ]
    write("\n\n".join(section), out)
    if args.compile:  # takes long, and may fail
        section[-1] = compiled(args)
        write("\n\n".join(section), out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
