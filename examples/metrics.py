"""What is measured while a training runs: `metrics.jsonl`, trackers, and a plot at the end."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator

FILE = "metrics.jsonl"


class Metrics:
    """The measures of a run, a line of JSON a step, and in the trackers of an accelerator.

    Args:
        accelerator: its main process writes.
        out: the folder of the run. What was measured there after step `first` is forgotten, since
            a run that goes on takes those steps again.
        first: steps taken.
        settings: of the run, for the trackers.
    """

    def __init__(
        self, accelerator: Accelerator, out: Path, first: int, settings: Mapping[str, object]
    ) -> None:
        self.accelerator, self.path = accelerator, out / FILE
        known = {k: v if isinstance(v, int | float) else str(v) for k, v in settings.items()}
        accelerator.init_trackers("make-a-video-pytorch", known)
        if accelerator.is_main_process:
            kept = [line for line in read(self.path) if line["step"] <= first]
            shorter = self.path.with_suffix(".partial")
            shorter.write_text("".join(json.dumps(line) + "\n" for line in kept))
            shorter.replace(self.path)

    def __call__(self, step: int, values: Mapping[str, float | str]) -> None:
        """Write what was measured after so many steps."""
        if self.accelerator.is_main_process:
            known = {k: v if isinstance(v, str) or math.isfinite(v) else None
                     for k, v in values.items()}  # fmt: skip
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **known}) + "\n")
        numbers = {k: v for k, v in values.items() if not isinstance(v, str)}
        self.accelerator.log(numbers, step=step)


def read(path: Path) -> list[dict[str, float | str | None]]:
    """The lines of a file of measures, but for one that was not written to its end."""
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def plot(out: Path) -> Path | None:
    """Draw the losses of a run over its steps, if there are any; return the picture's path."""
    losses: dict[str, list[tuple[float, float]]] = defaultdict(list)
    held_out: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in read(out / FILE):
        for name, points in (("loss", losses), ("held_out_loss", held_out)):
            if line.get(name) is not None:
                points[line["phase"]].append((line["step"], line[name]))
    if not losses:
        return None
    from matplotlib.figure import Figure  # here, as no process but one draws, and that at the end

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for colour, (phase, points) in enumerate(losses.items()):
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=f"C{colour}", alpha=0.25, linewidth=0.8)
        axes.plot(steps, smoothed(values), color=f"C{colour}", label=f"{phase}, training")
        if held_out[phase]:
            axes.plot(*zip(*held_out[phase], strict=True), "o--", color=f"C{colour}",
                      markerfacecolor="white", label=f"{phase}, held out")  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(out / "losses.png", dpi=120)
    return out / "losses.png"


def smoothed(values: tuple[float, ...]) -> list[float]:
    """Each value's mean with those before it, the weight of which decays over 25 steps."""
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = 0.96 * total + value, 0.96 * weight + 1
        means.append(total / weight)
    return means
