"""Does it pay to learn looks and names from images first? At equal operations, with seeds.

    pip install -c constraints.txt -e ".[examples]" && python benchmarks/images_first.py

Pictures of all ten digits have names; clips, of 0 to 4 only, have none. Each arm is trained with
the same operations, on three seeds, at the highest learning rate that is best on a fourth, and
asked for clips of all ten digits. What is done lies in --out, and is not done again: a run that
was stopped goes on. At the end tables (results.md, results.json), results-curves.png and
results-sheet.png are written there, and the same of the rates that were tried (rates.md, ...).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import torch
from cache import write
from embedding import learned, saved
from judges import Judges, kept_judges
from measures import DISPLACEMENT, FRECHET, JERK, NEAREST, OFF_PATH, RIGHT, SAME, SPEED
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from benchmarks.arms import (
    ALL,
    ARMS,
    CONDITIONS,
    IMAGE_PHASES,
    SHARED,
    Conditioning,
    Setting,
    samples,
    train_arm,
    train_images,
)
from benchmarks.domains import halves
from benchmarks.images_first_results import (
    Clips,
    Ruler,
    anchors,
    costs,
    of_halves,
    plot,
    sheet,
)

IMAGE_RATE = 2e-3  # that of examples/train.py
RATES = {True: (1e-3, 3e-4), False: (2e-3, 1e-3)}  # after images, and from scratch
CHOOSING = 3  # the seed on which rates are chosen


class Job(NamedTuple):
    """A training, and samples of it."""

    arm: str
    condition: str  # name or embedding
    seed: int
    lr: float

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.arm}-{self.condition}-{self.seed}-{self.lr:g}"


def images_of(job: Job) -> Job:
    """The image phase that an arm goes on from."""
    own = f"{job.arm}-images"
    return job._replace(arm=own if own in IMAGE_PHASES else "images", lr=IMAGE_RATE)


class Files:
    """What is done, in a folder. A file is there whole, or not at all."""

    def __init__(self, out: Path) -> None:
        self.out = out
        out.mkdir(parents=True, exist_ok=True)

    def has(self, name: str) -> bool:
        """Whether this is done."""
        return (self.out / f"{name}.json").exists()

    def save(self, name: str, tensors: dict[str, Tensor], record: dict[str, object]) -> None:
        """Keep tensors and what is told of them, which is written last."""
        write(self.out / f"{name}.safetensors", tensors)
        unfinished = self.out / f"{name}.{os.getpid()}"
        unfinished.write_text(json.dumps(record), encoding="utf-8")
        unfinished.replace(self.out / f"{name}.json")

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of this name."""
        return load_file(self.out / f"{name}.safetensors")

    def record(self, name: str) -> dict[str, object]:
        """What is told of them."""
        return json.loads((self.out / f"{name}.json").read_text(encoding="utf-8"))


def embedding_of(width: int) -> str:
    """What the embedding of a width is called."""
    return "embedding" if width == SHARED.width else f"embedding-{width}"


def prepare(setting: Setting, files: Files, arms: Iterable[str] = ()) -> Judges:
    """The judges; they and the embeddings of all `arms` are made once.

    Raises:
        ValueError: if what is done is of another setting.
    """
    if not files.has("setting"):
        files.save("setting", {}, setting._asdict())
    before = files.record("setting")
    for name, value in setting._asdict().items():
        if value != before[name]:
            raise ValueError(
                f"{files.out} has a comparison with `{name}` {before[name]}, not {value}"
            )
    known, steps = setting.domain, setting.judge_steps
    widths = {SHARED.width} | {ALL[arm].images.width for arm in arms}
    source = known.clips(range(known.names))
    for width in sorted(widths):
        if not files.has(embedding_of(width)):
            embedding = learned(source, known.channels, known.names, width, steps)
            files.save(embedding_of(width), embedding.state_dict(), {})
    kept = files.out / "judges.safetensors"
    return kept_judges(kept, source, known.channels, setting.frames, known.names, steps)


def conditioning_of(setting: Setting, files: Files, job: Job) -> Conditioning:
    """By names, or by the embedding that `prepare` made."""
    known = setting.domain
    if job.condition == "name":
        return Conditioning(known.names)
    width = (IMAGE_PHASES.get(job.arm) or ALL[job.arm].images).width
    return Conditioning(known.names, saved(files.out / f"{embedding_of(width)}.safetensors"))


def run(setting: Setting, out: Path, job: Job, each: int) -> None:
    """Do a job and keep what it gives."""
    torch.set_num_threads(1)
    files = Files(out)
    conditioning = conditioning_of(setting, files, job)
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # the bars of many at once
        if job.arm in IMAGE_PHASES:
            images = IMAGE_PHASES[job.arm]
            unet, record = train_images(setting, conditioning, job.seed, job.lr, images)
            files.save(job.name, unet.state_dict(), record)
            return
        arm = ALL[job.arm]
        images = files.tensors(images_of(job).name) if arm.images_first else {}
        unet, record = train_arm(setting, conditioning, arm, job.seed, job.lr, images)
    asked = torch.arange(setting.domain.names).repeat(each)
    videos = samples(setting, unet, conditioning, asked, job.seed, arm.shared_noise)
    files.save(f"{job.name}-unet", unet.state_dict(), {})
    pixels = ((videos + 1) * 127.5).round().byte()
    files.save(job.name, {"videos": pixels, "names": asked}, record)


def in_processes(
    setting: Setting, out: Path, jobs: Iterable[Job], each: int, processes: int
) -> None:
    """Do those of the jobs that are not done, so many at once, of one thread each."""
    files = Files(out)
    waiting = [job for job in dict.fromkeys(jobs) if not files.has(job.name)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        running = {pool.submit(run, setting, out, job, each): job for job in waiting}
        for done in tqdm(as_completed(running), total=len(running), unit="training"):
            done.result()
            tqdm.write(f"{time.strftime('%H:%M:%S')} {running[done].name}")


def sampled(files: Files, jobs: Iterable[Job]) -> Clips:
    """What the jobs sampled, all together."""
    found = [files.tensors(job.name) for job in jobs]
    videos = torch.cat([tensors["videos"] for tensors in found])
    return Clips(videos.float() / 127.5 - 1, torch.cat([tensors["names"] for tensors in found]))


def rate(arm: str) -> tuple[float, ...]:
    """Of which the highest learning rate of an arm is chosen."""
    if not ALL[arm].clips:
        return (0.0,)
    return RATES[ALL[arm].images_first]


def compare(
    setting: Setting,
    out: Path,
    pairs: Sequence[tuple[str, str]],
    seeds: int,
    each: int,
    processes: int,
) -> None:
    """Do all that is not done yet, and write what came of it.

    Args:
        setting: what all arms share.
        out: folder of what is done.
        pairs: arms, and what they are conditioned on.
        seeds: how many, at most three; with none, rates are chosen on the fourth, and no more.
        each: samples of each name and seed.
        processes: trainings at once.
    """
    files = Files(out)
    ruler = Ruler(setting, prepare(setting, files, [arm for arm, _ in pairs]))
    images = [
        images_of(Job(*pair, seed, 0.0))
        for seed in (CHOOSING, *range(seeds))
        for pair in pairs
        if ALL[pair[0]].images_first
    ]
    in_processes(setting, out, images, 0, processes)
    tried = {pair: [Job(*pair, CHOOSING, lr) for lr in rate(pair[0])] for pair in pairs}
    choosing = [job for jobs in tried.values() for job in jobs if len(jobs) > 1]
    in_processes(setting, out, choosing, each, processes)
    if choosing:
        report(setting, files, ruler, {by_rate(job): [job] for job in choosing}, each, "rates")
    if not seeds:
        return
    done = {}
    for pair, jobs in tried.items():
        if len(jobs) > 1:
            jobs.sort(key=lambda job: ruler.score(sampled(files, [job])))
        done[pair] = [jobs[0]._replace(seed=seed) for seed in range(seeds)]
    by_seed = [job for jobs in zip(*done.values(), strict=True) for job in jobs]
    in_processes(setting, out, by_seed, each, processes)
    rows = {f"{ALL[arm].title} ({told})": jobs for (arm, told), jobs in done.items()}
    report(setting, files, ruler, rows, each * seeds, "results")


def by_rate(job: Job) -> str:
    """What a job is called among those of other rates."""
    return f"{ALL[job.arm].title} ({job.condition}), {job.lr:g}"


def report(
    setting: Setting,
    files: Files,
    ruler: Ruler,
    rows: Mapping[str, Sequence[Job]],
    each: int,
    name: str,
) -> None:
    """Measure what is done, beside anchors of as many clips; write tables, plots and a sheet.

    Args:
        setting: what all arms share.
        files: of what is done.
        ruler: what it is measured with.
        rows: the jobs of each seed, by their title.
        each: samples of each name in a row.
        name: what the files that are written are called.
    """
    clips = anchors(setting, each * setting.domain.names // 2)
    records = {
        title: [{"lr": job.lr, **files.record(job.name)} for job in jobs]
        for title, jobs in rows.items()
    }
    clips |= {title: sampled(files, jobs) for title, jobs in rows.items()}
    measures = {title: ruler.measures(of) for title, of in clips.items()}
    parts = [costs(records)]
    for shown in ([RIGHT, SAME, FRECHET], [SPEED, JERK, DISPLACEMENT, OFF_PATH, NEAREST]):
        parts += of_halves(measures, shown)
    (files.out / f"{name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    (files.out / f"{name}.json").write_text(json.dumps(measures), encoding="utf-8")
    curves = {title: [record["curve"] for record in of] for title, of in records.items()}
    plot({title: of for title, of in curves.items() if of[0]}, files.out / f"{name}-curves.png")
    sheet(clips, halves(setting.domain), files.out / f"{name}-sheet.png")
    print("\n\n".join(parts))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    described = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = described.add_argument
    add("--out", type=Path, default=Path("runs/images-first"), help="where what is done is kept")
    add("--arms", nargs="+", choices=ALL, default=list(ARMS), help="which are compared")
    add("--conditions", nargs="+", choices=CONDITIONS, default=CONDITIONS, help="told by which")
    add("--seeds", type=int, choices=range(CHOOSING + 1), default=3, help="(default: 3)")
    add("--each", type=int, default=20, help="samples of each name and seed (default: 20)")
    add("--processes", type=int, default=os.cpu_count(), help="trainings at once, a thread each")
    for name, default in Setting()._asdict().items():
        option = f"--{name.replace('_', '-')}"
        add(option, type=type(default), default=default, help=f"(default: {default})")
    return described


def main(arguments: list[str] | None = None) -> None:
    """Compare."""
    command = parser()
    args = command.parse_args(arguments)
    setting = Setting(**{name: getattr(args, name) for name in Setting._fields})
    pairs = [
        (arm, condition)
        for condition in args.conditions
        for arm in args.arms
        if condition in ALL[arm].conditions
    ]
    if not pairs:
        command.error("none of these arms is compared under these conditions")
    compare(setting, args.out, pairs, args.seeds, args.each, args.processes)


if __name__ == "__main__":
    main()
