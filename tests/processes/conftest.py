"""Videos to train on, and the training script as a launcher starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from metrics import read

from tests.examples.media import write_numbers

HERE = Path(__file__).parent
HERE_AND_NOW = "--clips 3 --sampling-steps 1 --workers 0 --device cpu"
SMALL = "--dim 4 --size 16 --frames 4 --steps-images 4 --steps-video 4 --evaluate-every 100"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Five videos, of which clips at many rates can be taken."""
    data = tmp_path_factory.mktemp("data")
    for n in range(5):
        write_numbers(data / f"{n}.mp4", 24, start=40 * n)
    return data


def command(processes, *arguments):
    """How to start the script in so many processes."""
    start = [sys.executable] if processes == 1 else [*TORCHRUN, str(processes)]
    settings = HERE_AND_NOW if "--resume" in arguments else f"{HERE_AND_NOW} {SMALL}"
    return [*start, str(HERE / "spied.py"), *settings.split(), *map(str, arguments)]


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in more.items()}}


def run(processes, *arguments, code=0, **more):
    """Run the script to its end; what it wrote to both streams."""
    done = subprocess.run(
        command(processes, *arguments), env=environment(**more), text=True, timeout=300,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout[-3000:]
    return done.stdout


def losses(out, name="loss"):
    """By the number of steps taken."""
    return {line["step"]: line[name] for line in read(out / "metrics.jsonl") if name in line}


def spied(out):
    """What each process said of itself."""
    return [json.loads(path.read_text()) for path in sorted(out.glob("process-*.json"))]
