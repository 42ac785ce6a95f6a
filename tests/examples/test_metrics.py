"""What is measured is kept, a line a step, and drawn."""

import json

import numpy as np
import pytest
from metrics import Metrics, plot, read, smoothed
from PIL import Image
from processes import join


def written(out, first=0, steps=3, loss=2.0):
    metrics = Metrics(join("cpu"), out, first, {})
    for step in range(first, steps):
        metrics(step + 1, {"phase": "images", "loss": loss, "lr": 0.1})
    return metrics


def test_a_line_is_a_step_and_what_is_no_number_is_none(tmp_path):
    written(tmp_path)(4, {"phase": "images", "loss": float("nan")})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0] == {"step": 1, "phase": "images", "loss": 2.0, "lr": 0.1}
    assert lines[3] == {"step": 4, "phase": "images", "loss": None}


def test_a_run_that_goes_on_forgets_the_steps_that_it_takes_again(tmp_path):
    written(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # as a kill leaves it
    written(tmp_path, first=2, steps=4, loss=1.0)
    assert [(line["step"], line["loss"]) for line in read(tmp_path / "metrics.jsonl")] == [
        (1, 2.0), (2, 2.0), (3, 1.0), (4, 1.0),
    ]  # fmt: skip


def test_the_plot_shows_what_there_is(tmp_path):
    assert plot(tmp_path) is None
    metrics = written(tmp_path, steps=40)
    assert plot(tmp_path) == tmp_path / "losses.png"
    without = np.asarray(Image.open(tmp_path / "losses.png"))
    metrics(40, {"phase": "images", "held_out_loss": 1.5})
    plot(tmp_path)
    assert not np.array_equal(without, np.asarray(Image.open(tmp_path / "losses.png")))


def test_smoothing_is_a_mean_that_forgets():
    assert smoothed((3.0,) * 5) == pytest.approx([3.0] * 5)
    assert smoothed((0.0, 1.0))[1] == pytest.approx(1 / 1.96)
