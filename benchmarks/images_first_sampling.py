"""How samples of what `images_first.py` trained are best led: guidance, and what stands for a name.

    python benchmarks/images_first_sampling.py --arm joint --condition embedding --lr 3e-4

Its tables are written into --out, as sampling-<arm>-<condition>.md. What is sampled is not kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import torch
from measures import DISPLACEMENT, FRECHET, JERK, RIGHT, SAME, SPEED
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.arms import ALL, CONDITIONS, Conditioning, Led, Setting, samples, unet_of
from benchmarks.images_first import Files, Job, conditioning_of, prepare
from benchmarks.images_first_results import Clips, Ruler, of_halves
from make_a_video_pytorch.guidance import guide

SHOWN = (RIGHT, SAME, SPEED, JERK, DISPLACEMENT, FRECHET)


class Way(NamedTuple):
    """Of sampling."""

    guidance: float
    spread: float = 1.0  # of embeddings
    led: Led = guide

    @property
    def title(self) -> str:
        """Of its row."""
        by_frames = ", by frames alone" if self.led is led_by_frames else ""
        return f"guidance {self.guidance:g}{by_frames}, spread {self.spread:g}"


def led_by_frames(unet: nn.Module, scale: float) -> Callable[..., Tensor]:
    """As `guide`, but that a condition leads a clip to where it leads its frames, each alone."""

    def led(x: Tensor, timestep: Tensor, *, cond: Tensor) -> Tensor:
        both = torch.cat((cond, torch.zeros_like(cond)))
        alone = unet(torch.cat((x, x)), timestep, cond=both, enable_time=False)
        told, untold = alone.chunk(2)
        return unet(x, timestep, cond=cond) + (scale - 1) * (told - untold)

    return led


def ways(condition: str) -> list[Way]:
    """Which are tried."""
    plain = [Way(scale) for scale in (1.0, 1.5, 2.0, 4.0)]
    by_frames = [Way(scale, led=led_by_frames) for scale in (1.5, 2.0)]
    if condition == "name":
        return plain + by_frames
    return plain + by_frames + [Way(scale, spread) for spread in (0.5, 0.0) for scale in (1.5, 2.0)]


def sampled(setting: Setting, files: Files, jobs: list[Job], way: Way, each: int) -> Clips:
    """Samples of all jobs, so many of each name and job."""
    asked = torch.arange(setting.domain.names).repeat(each)
    videos = []
    for job in jobs:
        known = conditioning_of(setting, files, job)
        conditioning = Conditioning(known.names, known.embedding, way.spread)
        unet = unet_of(setting, conditioning, ALL[job.arm].images.settings)
        unet.load_state_dict(files.tensors(f"{job.name}-unet"))
        at = setting._replace(guidance=way.guidance)
        shared = ALL[job.arm].shared_noise
        videos.append(samples(at, unet, conditioning, asked, job.seed, shared, way.led))
    return Clips(torch.cat(videos), asked.repeat(len(jobs)))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    described = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = described.add_argument
    add("--out", type=Path, default=Path("runs/images-first"), help="of the comparison")
    add("--arm", choices=ALL, default="joint", help="(default: joint)")
    add("--condition", choices=CONDITIONS, default="embedding", help="(default: embedding)")
    add("--lr", type=float, default=3e-4, help="at which it was trained (default: 0.0003)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    add("--each", type=int, default=20, help="samples of each name and seed (default: 20)")
    return described


def main(arguments: list[str] | None = None) -> None:
    """Sample, measure and write."""
    command = parser()
    args = command.parse_args(arguments)
    files = Files(args.out)
    jobs = [Job(args.arm, args.condition, seed, args.lr) for seed in args.seeds]
    if missing := [job.name for job in jobs if not files.has(job.name)]:
        command.error(f"{args.out} has no {', '.join(missing)}: run images_first.py")
    setting = Setting(**files.record("setting"))
    ruler = Ruler(setting, prepare(setting, files))
    take = partial(sampled, setting, files, jobs, each=args.each)
    measures = {
        way.title: ruler.measures(take(way)) for way in tqdm(ways(args.condition), unit="way")
    }
    tables = "\n\n".join(of_halves(measures, SHOWN))
    path = args.out / f"sampling-{args.arm}-{args.condition}.md"
    path.write_text(f"{tables}\n", encoding="utf-8")
    print(tables)


if __name__ == "__main__":
    main()
