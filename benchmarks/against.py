"""A commit of this library beside the files as they are now, with the spread of the commit itself.

Three modules take turns: that of the commit, the same once more, and that of now. A row whose
ratio of now to then is one that the commit has to itself, in some round, tells nothing.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

import make_a_video_pytorch
from benchmarks import peers
from benchmarks.cases import CASES, DEVICE, MODES, Models, memory, on, peak, perturb, runs_of
from benchmarks.measure import rounds

ROUNDS = 7  # by chance 3 of 100 rows are then not `within`; in 5 rounds, 10 of them
INFLATED = "inflated convolutions, 8 frames of 32x32"
HEADER = [
    "| | | then, ms | now, ms | now/then | then/then | then, MiB | now, MiB | now/then | "
    "outputs differ by | |",
    "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
]
ABOUT = """\
then: {commit}; now: the files as they are. {machine}; {dtype}, medians of {rounds} rounds of \
{repeats} turns. then/then is the range over the rounds of what one module of the commit takes \
beside another; `slower` and `faster` lie outside of it, as about 3 in 100 rows do by chance. \
Outputs are compared in float32."""


def image_model() -> nn.Module:
    """A plain image model of 32 channels."""
    return nn.Sequential(
        nn.Conv2d(32, 32, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(32, 32, 3, padding=1),
    )


def names(then: ModuleType, text: str = "") -> list[str]:
    """The cases that have `text` in their names and that both packages can build."""
    inflated = [INFLATED] if hasattr(then, "inflate") else []
    return [name for name in (*CASES, *inflated) if text in name]


def build(then: ModuleType, name: str) -> Models:
    """The model of the commit, the same again, and that of now, with one set of weights."""
    packages = {"then": then, "again": then, "now": make_a_video_pytorch}
    if name == INFLATED:
        image = image_model()
        models = {key: package.inflate(copy.deepcopy(image)) for key, package in packages.items()}
        state = models["then"].temporal_state_dict()
        perturb(*state.values())
        for model in models.values():
            model.load_temporal_state_dict(state)
        return models, (torch.randn(1, 32, 8, 32, 32),)
    case = CASES[name]
    models = {key: case.build(package) for key, package in packages.items()}
    perturb(*models["then"].parameters())
    for model in models.values():
        model.load_state_dict(models["then"].state_dict())
    return models, case.inputs()


def difference(models: dict[str, nn.Module], inputs: tuple[Tensor, ...], mode: str) -> float:
    """The largest difference between the outputs of now and then.

    Raises:
        AssertionError: if they do not agree.
    """
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.set_grad_enabled(mode == "training"), exact:
        then, now = (models[key](*inputs).detach() for key in ("then", "now"))
    torch.testing.assert_close(now, then, rtol=1e-4, atol=1e-4)
    return (now - then).abs().max().item()


@dataclass
class Comparison:
    """What the rounds say: seconds, the ratio of now to then, and the range of then to itself."""

    then: float
    now: float
    ratio: float
    lowest: float
    highest: float

    @property
    def verdict(self) -> str:
        """Whether the ratio lies within that range."""
        if self.ratio > self.highest:
            return "slower"
        return "faster" if self.ratio < self.lowest else "within"


def compare(times: list[dict[str, float]]) -> Comparison:
    """The comparison by the seconds of `then`, `again` and `now` in each round."""
    itself = [time["again"] / time["then"] for time in times]
    return Comparison(
        then=statistics.median(time["then"] for time in times),
        now=statistics.median(time["now"] for time in times),
        ratio=statistics.median(time["now"] / time["then"] for time in times),
        lowest=min(itself),
        highest=max(itself),
    )


def rows(then: ModuleType, name: str, commit: str, args: argparse.Namespace) -> Iterator[str]:
    """The lines of a case: forward, and training."""
    models, inputs = on(DEVICE, torch.float32, build(then, name))
    differences = {mode: difference(models, inputs, mode) for mode in MODES}
    models, inputs = on(DEVICE, args.type, (models, inputs))
    for mode in MODES:
        found = compare(rounds(runs_of(models, inputs, mode), args.repeats, ROUNDS, DEVICE))
        before, after = (
            memory(name, variant, mode, "--dtype", args.dtype, "--against", commit)
            for variant in ("then", "now")
        )
        cells = (
            name,
            mode,
            f"{1e3 * found.then:.2f}",
            f"{1e3 * found.now:.2f}",
            f"**{found.ratio:.3f}**",
            f"[{found.lowest:.3f}, {found.highest:.3f}]",
            f"{before:.1f}",
            f"{after:.1f}",
            f"{after / before:.2f}",
            f"{differences[mode]:.0e}" if differences[mode] else "0",
            found.verdict,
        )
        yield f"| {' | '.join(cells)} |"


def main(args: argparse.Namespace, parser: argparse.ArgumentParser, machine: str) -> int:
    """Run the command line of `--against`."""
    try:
        commit = peers.resolve(args.against)
    except ValueError as error:
        parser.error(f"--against: {error}")
    with tempfile.TemporaryDirectory() as folder:
        then = peers.at_commit(commit, Path(folder))
        if args.memory:
            name, variant, mode = args.memory
            print(peak(build(then, name), variant, mode, args.type))
            return 0
        chosen = names(then, args.rows or "")
        if not chosen:
            parser.error(f"--rows: {args.rows!r} is in none of: {'; '.join(names(then))}")
        about = ABOUT.format(
            commit=peers.git("log", "-1", "--format=%h (%s)", commit).decode().strip(),
            machine=machine,
            dtype=args.dtype,
            rounds=ROUNDS,
            repeats=args.repeats,
        )
        lines = [about, "", *HEADER]
        print("\n".join(lines), flush=True)
        for name in chosen:
            for row in rows(then, name, commit, args):
                lines.append(row)
                print(row, flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")
    return 0
