"""What `images_first.py` found, as tables and pictures."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import matplotlib as mpl
import torch
import torch.nn.functional as F
from judges import Judges
from matplotlib import pyplot as plt
from measures import NEAREST, Number, frechet, measured, nearest, summary
from torch import Generator, Tensor

from benchmarks.arms import Setting
from benchmarks.domains import HALVES, halves

REAL = 2000  # clips that samples are compared with
Curves = Sequence[Sequence[Mapping[str, float]]]  # of each seed, at each look


class Clips(NamedTuple):
    """Clips (b c f h w) of these names (b)."""

    videos: Tensor
    names: Tensor

    def of(self, which: Sequence[int]) -> Clips:
        """Those of some names."""
        there = torch.isin(self.names, torch.tensor(which))
        return Clips(self.videos[there], self.names[there])


def real_clips(setting: Setting, count: int, seed: int, held_out: bool = True) -> Clips:
    """Clips of all names, `count` of each half."""
    generator, known = Generator().manual_seed(seed), setting.domain
    batches = [
        known.clips(which, held_out)(count, setting.frames, generator)
        for which in halves(known).values()
    ]
    return Clips(
        torch.cat([batch.videos for batch in batches]),
        torch.cat([batch.names.argmax(-1) for batch in batches]),
    )


def anchors(setting: Setting, count: int) -> dict[str, Clips]:
    """Between what every measure lies: real clips, and three kinds that are not, `count` a half.

    The frames of an independent one are each of another clip of the same name.
    """
    real = real_clips(setting, count, 70_001)
    generator = Generator().manual_seed(70_002)
    orders = torch.stack([
        torch.randperm(setting.frames, generator=generator) for _ in real.names
    ])  # fmt: skip
    shuffled = torch.stack(
        [video[:, order] for video, order in zip(real.videos, orders, strict=True)]
    )
    independent = torch.empty_like(real.videos)
    for name in real.names.unique():
        places = (real.names == name).nonzero()[:, 0]
        for frame in range(setting.frames):
            others = places[torch.randperm(len(places), generator=generator)]
            independent[places, :, frame] = real.videos[others, :, frame]
    return {
        "held-out real clips": real,
        "independent frames": real._replace(videos=independent),
        "shuffled clips": real._replace(videos=shuffled),
        "a still clip": real._replace(videos=real.videos[:, :, :1].expand_as(real.videos)),
    }


class Ruler:
    """What clips are measured with, the same for all.

    Args:
        setting: of the comparison.
        judging: the judges.
    """

    def __init__(self, setting: Setting, judging: Judges) -> None:
        self.judging, self.halves = judging, halves(setting.domain)
        real = real_clips(setting, REAL // 2, 70_000)
        self.real = {half: judging.clip(real.of(of).videos) for half, of in self.halves.items()}
        self.all_real = judging.clip(real.videos)
        self.training = real_clips(setting, REAL // 2, 70_003, held_out=False)

    def score(self, clips: Clips) -> float:
        """One number for digit and motion, of both halves: the Fréchet distance."""
        return frechet(self.judging.clip(clips.videos), self.all_real)

    def measures(self, clips: Clips) -> dict[str, dict[str, Number]]:
        """Of each half, each measure."""
        found: dict[str, dict[str, Number]] = {}
        for half, which in self.halves.items():
            some = clips.of(which)
            each = measured(*some, self.judging)
            each[NEAREST] = nearest(some.videos, self.training.of(which).videos)
            found[half] = summary(each, self.judging.clip(some.videos), self.real[half])
        return found


def table(rows: Mapping[str, Mapping[str, Number]], shown: Sequence[str]) -> str:
    """Measures as a table of Markdown, a row each."""
    lines = ["| | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for name, numbers in rows.items():
        lines.append(f"| {name} | " + " | ".join(str(numbers[key]) for key in shown) + " |")
    return "\n".join(lines)


def of_halves(
    measures: Mapping[str, Mapping[str, Mapping[str, Number]]], shown: Sequence[str]
) -> list[str]:
    """What `Ruler.measures` gave of each row, as a table of Markdown for each half."""
    return [
        f"Names {half} moving:\n\n{table({row: of[half] for row, of in measures.items()}, shown)}"
        for half in HALVES
    ]


def costs(records: Mapping[str, Sequence[Mapping[str, object]]]) -> str:
    """What the training of each arm was, the mean over seeds, as a table of Markdown."""
    lines = [
        "| | rate | steps | 10^12 operations | clips | minutes | held-out loss, seen | unseen |",
        "|---" * 8 + "|",
    ]
    for name, seeds in records.items():
        lr, steps, operations, clips, seconds = (
            fmean(record[key] for record in seeds)
            for key in ("lr", "steps", "operations", "clips", "seconds")
        )
        last = [record["curve"][-1] for record in seeds if record["curve"]]
        losses = [f"{fmean(at[half] for at in last):.3f}" if last else "" for half in HALVES]
        numbers = [
            f"{lr:g}", f"{steps:.0f}", f"{operations / 1e12:.2f}", f"{clips:.0f}",
            f"{seconds / 60:.1f}", *losses,
        ]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def plot(curves: Mapping[str, Curves], path: Path) -> None:
    """Held-out losses against operations: the mean over seeds, in a band from lowest to highest."""
    mpl.use("agg")
    figure, axes = plt.subplots(1, 2, figsize=(10, 5), sharey=True, layout="constrained")
    for half, axis in zip(HALVES, axes, strict=True):
        for name, seeds in curves.items():
            looks = list(zip(*seeds, strict=True))
            operations = [look[0]["operations"] / 1e12 for look in looks]
            losses = [[seed[half] for seed in look] for look in looks]
            (line,) = axis.plot(operations, [fmean(of) for of in losses], label=name)
            axis.fill_between(
                operations, [min(of) for of in losses], [max(of) for of in losses],
                color=line.get_color(), alpha=0.2,
            )  # fmt: skip
        axis.set_title(f"names {half} moving")
        axis.set_xlabel("10^12 operations")
    axes[0].set_ylabel("loss of held-out clips")
    handles, labels = axes[0].get_legend_handles_labels()  # below, where they hide no curve
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def sheet(rows: Mapping[str, Clips], which: Mapping[str, range], path: Path) -> None:
    """A contact sheet: a row for each, with a clip of the first and the last name of each half."""
    mpl.use("agg")
    figure, axes = plt.subplots(
        len(rows), len(HALVES), figsize=(9.5, 0.8 * len(rows)), layout="constrained"
    )
    for half, axis in zip(which, axes[0], strict=True):
        axis.set_title(f"names {half} moving", fontsize="small")
    for (title, clips), row in zip(rows.items(), axes, strict=True):
        for half, axis in zip(which.values(), row, strict=True):
            some = clips.of(half)
            places = some.names.sort(stable=True).indices[[0, -1]]
            pictures = F.pad(some.videos[places].mean(1), (1, 1, 1, 1))  # 2 f h w
            strips = [torch.cat(list(frames), -1) for frames in pictures]
            axis.imshow(torch.cat(strips).numpy(), cmap="gray", vmin=-1, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize="small")
    figure.savefig(path, dpi=110, bbox_inches="tight")  # a long title is cut otherwise
    plt.close(figure)
