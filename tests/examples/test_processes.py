"""What a process says of others that are gone, and of itself."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import Ended, ended_with_the_launcher, lost, main_first, together
from torch import nn


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Ended(), "ended, as its launcher or another process has"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. \nmore"),
            "a process that reads files is gone: DataLoader worker (pid 7) is killed by signal: "
            "Killed.",
        ),
        (RuntimeError("pair.cc: Connection closed by peer [127.0.0.1]:7"), None),  # of no group
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
    ],
)
def test_only_what_is_the_loss_of_another_is_said_to_be(error, said):
    assert lost(error) == said


def test_in_a_group_the_end_of_a_connection_is_the_loss_of_another(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    closed = RuntimeError("gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:7")
    assert lost(closed) == "ended, as its launcher or another process has"
    full = RuntimeError("NCCL error: unhandled system error, No space left on device /dev/shm")
    assert lost(full) is None


def test_a_signal_ends_what_runs_and_is_then_as_it_was():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Ended), ended_with_the_launcher():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert signal.getsignal(signal.SIGTERM) is before


class Joined:
    """One of two processes, as far as it is asked."""

    num_processes = 2

    def prepare_model(self, model):
        assert [p.requires_grad for p in model.parameters()] == [False, True, True, False]
        model.forward = model._original_forward = None
        return nn.Sequential(model)


def test_what_a_phase_does_not_train_is_frozen_for_it_alone():
    """What was frozen before stays so, and what Accelerate leaves in the model is gone."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    unused = [model[0].weight, model[1].bias]
    model[1].bias.requires_grad_(False)
    with together(Joined(), model, unused) as wrapped:
        assert wrapped is not model
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, False]
    assert model(torch.ones(2)).shape == (2,)


def test_one_process_waits_for_nobody():
    class Alone:
        num_processes = 1

    with main_first(Alone()):
        done = True
    assert done
    model = nn.Linear(2, 2)
    with together(Alone(), model, model.parameters()) as same:
        assert same is model
        assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("processes", "ended"), [(1, "said the interpreter ends"), (2, "said ")])
def test_one_of_several_does_not_wait_for_the_interpreter_to_end(processes, ended):
    """Whose threads may then abort it. What was printed is not lost."""
    script = (
        "import atexit; from processes import leave; print('said', end=' '); "
        "atexit.register(print, 'the interpreter ends', end=''); leave(0)"
    )
    examples = str(Path(__file__).parents[2] / "examples")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        env={**os.environ, "WORLD_SIZE": str(processes), "PYTHONPATH": examples},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ended)
