"""The memory that a training is said to take, against what it takes."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import memory
import pytest

from benchmarks.measure import MIB
from tests.examples.test_memory import SMALL, WIDE
from tests.training.peak import without_gradients_by_hand

ROOT = Path(__file__).parents[2]
TEXT = SMALL | {"context_dim": 20, "condition_on_fps": True}
COMPRESSED = SMALL | {
    "temporal_compression": (True, False), "cond_dim": 7, "attn_pos_bias": False,
    "attn_rotary": True, "self_attns": (True, True),
}  # fmt: skip
CASES = {
    "images": (SMALL, (19, 3, 36, 44), "no"),
    "text": (TEXT, (2, 3, 7, 36, 44), "no"),
    "compressed": (COMPRESSED, (1, 3, 14, 36, 28), "no"),
    "wide": (WIDE, (1, 3, 3, 20, 12), "no"),
    "text-bf16": (TEXT, (2, 3, 7, 36, 44), "bf16"),
}


@cache
def measured(name):
    """Bytes at the peak of a training, with activations kept and with checkpointing."""
    command = [sys.executable, "-m", "tests.training.peak", json.dumps(CASES[name])]
    env = os.environ | {
        "PYTHONPATH": str(ROOT / "examples"),
        # what is freed goes back at once, and leaves no gaps
        "MALLOC_MMAP_THRESHOLD_": str(2**16),
        "MALLOC_TRIM_THRESHOLD_": "0",
        # the kernels for bf16 of AMX keep 70 MiB that are no tensor's
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
    }
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=env)
    return [float(line) * MIB for line in run.stdout.split()]


@pytest.mark.parametrize("again", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("name", CASES)
def test_a_training_takes_what_is_estimated(name, again, monkeypatch):
    without_gradients_by_hand(monkeypatch.setattr)
    monkeypatch.setattr(memory, "on_a_gpu", nullcontext)  # the kernels of this CPU, as measured
    arguments, shape, precision = CASES[name]
    estimate = memory.memory_of(
        arguments, shape, mixed_precision=precision, gradient_checkpointing=again
    )
    assert estimate.total == pytest.approx(measured(name)[again], rel=0.1)
