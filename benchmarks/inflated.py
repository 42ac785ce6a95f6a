"""Inflate image models of other libraries, and record what that changes and costs.

    pip install -c constraints.txt -e ".[test-integrations]" && python benchmarks/inflated.py

For each model: that its images and first videos are what they were, how many parameters come in,
and the time of a video beside that of its frames as a batch in the image model, in turns. The
record goes into docs/inflated.md.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor

from benchmarks.image_models import (
    MODELS,
    B,
    F,
    ImageModel,
    call,
    first_frames,
    folded,
    unfolded,
)
from benchmarks.libraries import import_libraries
from benchmarks.measure import medians
from benchmarks.run import machine
from make_a_video_pytorch import InflatedModel, inflate, spatial_parameters, temporal_parameters
from make_a_video_pytorch.inflation.temporal import InflatedConv

SCALE = 4  # of the models and pictures of the tests, which are too small to be timed
# About as wide as these models, as the default is beside large ones.
ATTENTION = {"heads": 4, "dim_head": 8}
HEADER = [
    "| library | model | convs + attentions | parameters added / original | images differ by | "
    "first videos differ by | frames, ms | video, ms | times as long | not reached |",
    "|---|---|--:|--:|--:|--:|--:|--:|--:|---|",
]
ABOUT = f"""\
Image models of other libraries, in small random configurations (`benchmarks/image_models.py`, \
at scale {SCALE}), by `inflate(model, {", ".join(f"{k}={v}" for k, v in ATTENTION.items())})`: the \
attention over frames is about as wide as they are, as the default, 8 heads of 64, is beside \
large models.

- images: the largest difference between what the model gives for {B} images before and after it \
is inflated;
- first videos: the same for {B} videos of {F} frames in the inflated model, and for their frames \
as a batch of {B * F} in the image model;
- frames, video: milliseconds of these two calls, without gradients;
- not reached: inflated modules whose temporal part a video does not reach, as `check` names them.
"""


def difference(results: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference between what two models give."""
    pairs = zip(results, expected, strict=True)
    return max((result - other).abs().max().item() for result, other in pairs)


def parts(model: InflatedModel) -> str:
    """How many convolutions and attentions are inflated."""
    convs = sum(isinstance(part, InflatedConv) for part in model.temporal.values())
    return f"{convs} + {len(model.temporal) - convs}"


def millions(numbers: list[Tensor]) -> str:
    """How many numbers are in the tensors."""
    return f"{sum(tensor.numel() for tensor in numbers) / 1e6:.2f}M"


@torch.no_grad()
def row(name: str, entry: ImageModel, repeats: int) -> str:
    """The line of a model."""
    original, inputs = entry.make(SCALE), entry.inputs(SCALE)
    model = inflate(copy.deepcopy(original), **ATTENTION)
    images, frames = first_frames(inputs), folded(inputs)
    differences = (
        difference(call(model, images), call(original, images)),
        difference(call(model, inputs), unfolded(call(original, frames))),
    )
    unreached = model.check(inputs[0], **inputs[1])
    times = medians(
        {"frames": lambda: call(original, frames), "video": lambda: call(model, inputs)},
        repeats,
        "cpu",
    )
    cells = (
        entry.package,
        name,
        parts(model),
        f"{millions(temporal_parameters(model))} / {millions(spatial_parameters(model))}",
        *(f"{value:.0e}" if value else "0" for value in differences),
        *(f"{1e3 * seconds:.1f}" for seconds in times.values()),
        f"**{times['video'] / times['frames']:.2f}**",
        ", ".join(f"`{name}`" for name in unreached) or "none",
    )
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Run the command line."""
    root = Path(__file__).parent.parent
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--repeats", type=int, default=21, help="times that each call is measured")
    add("--out", type=Path, default=root / "docs" / "inflated.md", help="where the record goes")
    add("--models", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="MODEL")
    args = parser.parse_args()
    torch.manual_seed(0)
    import_libraries()
    rows = []
    for name in args.models:
        rows.append(row(name, MODELS[name], args.repeats))
        print(rows[-1], flush=True)
    packages = dict.fromkeys(MODELS[name].package for name in args.models)
    setting = machine(["torch", *packages, "make-a-video-pytorch"], "cpu")
    sections = [
        "# Image models as video models",
        "Written by `python benchmarks/inflated.py`.",
        f"{setting}; float32, medians of {args.repeats} turns.",
        ABOUT.strip(),
        "\n".join(HEADER + rows),
    ]
    args.out.write_text("\n\n".join(sections) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
