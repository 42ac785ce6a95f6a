"""Processes that are killed leave a whole checkpoint, and the others end and say so."""

import random
import re
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.examples.runs import WEIGHTS
from tests.processes.conftest import command, environment, losses, run

STEPS = ["--batch-images", 4, "--batch-video", 2, "--steps-images", 30, "--steps-video", 30]
STEPS += ["--save-every", 1, "--evaluate-every", 7, "--dim", 16]


def must_be_whole(out):
    """The last checkpoint, and no less than one."""
    paths = sorted(out.glob("checkpoint-*"))
    for path in paths:
        assert load_file(path / WEIGHTS)
        state = torch.load(path / "training.pt", weights_only=True)
        assert state["step"] == int(path.name[-6:])
    assert paths
    return paths[-1]


def killed(arguments, out, draw, whom):
    """Start two processes, kill one or their launcher, and return what the others say."""
    metrics, said = out / "metrics.jsonl", out / "said.txt"
    old = metrics.stat().st_ino if metrics.exists() else None
    with said.open("w") as file:
        launcher = psutil.Popen(
            command(2, *arguments, "--out", out), env=environment(), stdout=file, stderr=file
        )
        deadline = time.monotonic() + 120

        def wait_for(happened):
            while not happened():
                assert launcher.poll() is None, said.read_text()[-3000:]
                assert time.monotonic() < deadline
                time.sleep(0.005)

        wait_for(lambda: metrics.exists() and metrics.stat().st_ino != old)  # it is written anew
        start = len(losses(out))
        wait_for(lambda: len(losses(out)) >= start + draw.randint(2, 5))
        time.sleep(draw.uniform(0, 0.3))  # while a step is computed, or a checkpoint written
        workers = launcher.children()
        assert len(workers) == 2
        victim = launcher if whom == "the launcher" else workers[whom]
        victim.kill()
        launcher.wait(60)
        psutil.wait_procs(workers, 60)
        assert not any(worker.is_running() for worker in workers)
    return said.read_text()


def test_ten_kills_change_nothing(tmp_path):
    """At drawn moments, of either process or the launcher; the end is that of a run without."""
    once, out = tmp_path / "once", tmp_path / "killed"
    run(2, *STEPS, "--out", once)
    out.mkdir()
    draw = random.Random(0)
    victims = [0, 1, "the launcher", 1, 0, 0, 1, "the launcher", 1, 0]
    for number, whom in enumerate(victims):
        said = killed([*(STEPS if number == 0 else ["--resume"])], out, draw, whom)
        ended = re.findall(
            r"process [01] of 2: ended, as its launcher or another process has; "
            r"\S*checkpoint-\d{6} is kept", said
        )  # fmt: skip
        assert len(ended) == (2 if whom == "the launcher" else 1), said[-3000:]
        checkpoint = must_be_whole(out)
        print(f"{whom} killed: {checkpoint.name} is whole")
    run(2, "--resume", "--out", out)
    assert losses(out) == pytest.approx(losses(once), rel=1e-5)
    assert losses(out, "held_out_loss") == pytest.approx(losses(once, "held_out_loss"), rel=1e-5)
    weights = [load_file(must_be_whole(path) / WEIGHTS) for path in (once, out)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_a_process_that_reads_and_is_killed_is_said(folder, tmp_path):
    arguments = [*STEPS, "--data", folder, "--workers", 1, "--out", tmp_path]
    with (tmp_path / "said.txt").open("w") as file:
        launcher = psutil.Popen(command(1, *arguments), env=environment(), stdout=file, stderr=file)
        while len(losses(tmp_path)) < 2 if (tmp_path / "metrics.jsonl").exists() else True:
            assert launcher.poll() is None, (tmp_path / "said.txt").read_text()[-3000:]
            time.sleep(0.01)
        reader = launcher.children()[0]
        reader.kill()
        assert launcher.wait(60) == 143
    said = (tmp_path / "said.txt").read_text()
    assert re.search("a process that reads files is gone: .*; .*checkpoint-.* is kept", said)
