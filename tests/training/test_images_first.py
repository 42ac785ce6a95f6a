"""The comparison of `benchmarks/images_first.py`, short and whole, as it is run."""

import json
import math

import evaluation
import measures
import pytest

from benchmarks import images_first
from benchmarks.arms import ARMS, CONDITIONS, Setting
from benchmarks.images_first import Files, Job


def test_a_short_comparison_finds_what_is_real(tmp_path):
    """One seed, in two processes; the judges are good ones, the models are not."""
    images_first.main([
        "--out", str(tmp_path), "--arms", "clips-alone", "joint", "--conditions", "name",
        "--seeds", "1", "--each", "20", "--processes", "2", "--dim", "8", "--steps-images", "8",
        "--steps-joint", "8", "--sampling-steps", "2", "--looks", "1", "--judge-steps", "300",
    ])  # fmt: skip
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert len(found) == 4 + 2  # anchors and arms
    shown = measures.MEASURES
    for numbers in found.values():
        for half in ("seen", "unseen"):
            assert numbers[half].keys() == set(shown)
            assert all(math.isfinite(number) for pair in numbers[half].values() for number in pair)
    real, independent = found["held-out real clips"], found["independent frames"]
    for half in ("seen", "unseen"):
        assert real[half][measures.RIGHT][0] > 0.8
        for name in (measures.SPEED, measures.JERK, measures.OFF_PATH, measures.FRECHET):
            assert real[half][name][0] < independent[half][name][0] / 2
        assert real[half][measures.SAME][0] > independent[half][measures.SAME][0]
    for name in ("results", "rates"):
        for end in (".md", "-curves.png", "-sheet.png"):
            assert (tmp_path / f"{name}{end}").stat().st_size > 0


def test_a_run_that_was_stopped_goes_on_and_says_what_it_found(tmp_path, monkeypatch):
    """In this process, since what is done in others is the same."""
    monkeypatch.setattr(evaluation, "STEPS", 1)
    setting = Setting(
        size=12, frames=4, dim=4, steps_images=2, steps_joint=3, batch_images=6, batch_video=2,
        sampling_steps=1, looks=1, judge_steps=2,
    )  # fmt: skip
    done = []
    run = images_first.run

    def in_processes(_, out, jobs, each, __):
        for job in jobs:
            if len(done) == stop:
                raise KeyboardInterrupt
            if not Files(out).has(job.name):
                run(setting, out, job, each)
                done.append(job)

    monkeypatch.setattr(images_first, "in_processes", in_processes)
    pairs = [(arm, condition) for condition in CONDITIONS for arm in ("joint", "still")]
    given = {"pairs": pairs, "seeds": 1, "each": 2, "processes": 1}
    stop = 5
    with pytest.raises(KeyboardInterrupt):
        images_first.compare(setting, tmp_path, **given)
    stop = None
    images_first.compare(setting, tmp_path, **given)
    assert len(done) == len(set(done))  # nothing twice
    images = [job for job in done if job.arm == "images"]
    assert len(images) == 4  # two seeds, by name and by embedding
    rates = [job.lr for job in done if job[:3] == ("joint", "name", 3)]
    assert rates == [1e-3, 3e-4]
    assert Job("still", "embedding", 0, 0.0) in done
    found = json.loads((tmp_path / "results.json").read_text())
    assert list(found) == [
        "held-out real clips", "independent frames", "shuffled clips", "a still clip",
        *(f"{ARMS[arm].title} ({condition})" for arm, condition in pairs),
    ]  # fmt: skip
    of_rates = json.loads((tmp_path / "rates.json").read_text())
    assert list(of_rates)[4:] == [
        f"{ARMS['joint'].title} ({condition}), {lr:g}"
        for condition in CONDITIONS for lr in (1e-3, 3e-4)
    ]  # fmt: skip
