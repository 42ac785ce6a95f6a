"""The processes that train together, as Accelerate joins them, and how they end together.

One process is the case where there are no others: everything here then does nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from types import FrameType
from typing import NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin
from errors import DataError
from sharding import is_sharded
from torch import nn

# of gloo, and of NCCL; other errors of theirs say what is wrong with this process
LOST = ("Connection closed by peer", "Connection reset by peer", "remote process exited")


class Ended(BaseException):
    """The launcher has told this process to end."""


def join(device: str, **settings: object) -> Accelerator:
    """The accelerator of this process, which waits for the others if there are any.

    Args:
        device: where one process alone computes; several have one each, or the CPU.
        **settings: of `Accelerator`.

    Raises:
        DataError: if the device does not do what is asked.
    """
    views = DistributedDataParallelKwargs(gradient_as_bucket_view=True)  # instead of copies
    alone = GradientAccumulationPlugin(num_steps=1)  # `fit` divides, else Accelerate would too
    try:
        accelerator = Accelerator(
            cpu=device == "cpu", kwargs_handlers=[views], gradient_accumulation_plugin=alone,
            **settings,
        )  # fmt: skip
    except (ValueError, ImportError) as error:
        raise DataError(str(error).splitlines()[0]) from error
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise DataError("fp16 needs a GPU; a CPU has bf16")  # Accelerate would compute in fp32
    if accelerator.num_processes == 1:
        accelerator.state.device = torch.device(device)
    if not accelerator.is_main_process:
        be_quiet()
    return accelerator


def be_quiet() -> None:
    """Print nothing from here on, but errors: one process speaks."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it is never closed


@contextmanager
def ended_with_the_launcher() -> Iterator[None]:
    """`Ended` is raised where the launcher ends this process, or has ended itself.

    A launcher that is killed cannot say so, and what it started would train on, beside the run
    that goes on from the same checkpoint.
    """

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise Ended

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)  # a process that waits for a GPU does not hear of it
        os._exit(1)

    before = signal.signal(signal.SIGTERM, end)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def leave(code: int) -> NoReturn:
    """End this process with a code, and at once if it is one of several whose work is done.

    What the last exchange with the others left, a thread of gloo's lets go of, with Python's leave.
    It aborts if the interpreter is ending by then (torch 2.13); and of sharded models it lives on
    after the group is destroyed.
    """
    if code or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def lost(error: BaseException) -> str | None:
    """Which process is gone, if an error says that one is."""
    text = str(error)
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return f"a process that reads files is gone: {text.splitlines()[0].strip()}"
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    if isinstance(error, Ended) or (joined and any(sign in text for sign in LOST)):
        return "ended, as its launcher or another process has"
    return None


@contextmanager
def main_first(accelerator: Accelerator) -> Iterator[None]:
    """What the main process does first, and says, and the others then find done.

    They wait for as long as it takes, where a step of a training is given up after minutes.
    """
    if accelerator.num_processes == 1:
        yield
        return
    group = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=7))
    if accelerator.is_main_process:
        yield
        torch.distributed.barrier(group)
    else:
        torch.distributed.barrier(group)
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    torch.distributed.destroy_process_group(group)


@contextmanager
def together(
    accelerator: Accelerator, unet: nn.Module, unused: Iterable[nn.Parameter]
) -> Iterator[nn.Module]:
    """`unet` as the processes train it together: in DDP, unless each has a shard of it.

    The `unused` parameters get no gradient, and DDP would wait for it.
    """
    if accelerator.num_processes == 1 or is_sharded(unet):
        yield unet
        return
    frozen = [parameter for parameter in unused if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        with warnings.catch_warnings():
            # of convolutions on channels-last pictures, whose gradients are copied in each step
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield accelerator.prepare_model(unet)
    finally:
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            vars(unet).pop(name, None)  # what Accelerate leaves, of mixed precision and else
        for parameter in frozen:
            parameter.requires_grad_(True)
