"""The training steps, in one process or in many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from statistics import fmean

import torch
from accelerate import Accelerator
from draws import Draws
from errors import RunError
from loading import Share
from processes import together
from sharding import whole
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

Report = Callable[[int, dict[str, float | str]], None]  # steps taken, and what was measured
MOST_NOT_FINITE = 10  # steps in a row: those before may be of bad data, these are of bad weights


def learning_rate(step: int, steps: int, highest: float) -> float:
    """A short linear rise, then a cosine down to a tenth."""
    rise = min(1.0, (step + 1) / 30)
    return highest * rise * (0.55 + 0.45 * math.cos(math.pi * step / steps))


def fit(
    accelerator: Accelerator,
    unet: nn.Module,
    ema: AveragedModel,
    optimizer: Optimizer,
    loss_of: Callable[[nn.Module, Draws], Tensor],
    *,
    phase: str,
    steps: range,
    lr: float,
    seed: int,
    batch: int,
    first: int = 0,
    parts: int = 1,
    unused: Iterable[nn.Parameter] = (),
    after_step: Callable[[int], None] | None = None,
    report: Report | None = None,
) -> list[float]:
    """Train `unet` and average it in `ema`; return the losses.

    A step whose loss or gradients are not finite is skipped.

    Args:
        accelerator: of the processes.
        unet: the model, on its device.
        ema: the average of its weights.
        optimizer: of its parameters; the learning rate is at most `lr`, times the `speed` of a
            parameter group that has one.
        loss_of: the mean loss of a share of a step; what it is given in the place of `unet` is
            what it must call.
        phase: what to call this.
        steps: the numbers of the steps, of which those before `first` were taken earlier.
        lr: the highest learning rate.
        seed: what is random follows from it and from the number of a step.
        batch: samples in a step, of all processes.
        first: the number of the first step to take.
        parts: shares of a step that a process computes one after another.
        unused: parameters that get no gradient.
        after_step: is told how many steps are taken.
        report: is told too, and what was measured.

    Raises:
        RunError: if ten losses in a row are not finite.
    """
    taken = min(max(first - steps.start, 0), len(steps))
    if taken == len(steps):
        return []
    share = Share(accelerator.process_index, accelerator.num_processes, parts)
    losses: list[float] = []
    skipped = in_a_row = 0
    bar = tqdm(
        total=len(steps), initial=taken, desc=phase, unit="step",
        disable=not accelerator.is_main_process,
    )  # fmt: skip
    with bar, together(accelerator, unet, unused) as model:
        stepping = accelerator.prepare_optimizer(optimizer)
        for step in steps[taken:]:
            began = time.perf_counter()
            stepping.zero_grad()
            mean = torch.zeros((), device=accelerator.device)
            for part in range(parts):
                last = part == parts - 1
                with nullcontext() if last else accelerator.no_sync(model):
                    with accelerator.autocast():
                        loss = loss_of(model, Draws(seed, step, *share.of(part))) / parts
                    accelerator.backward(loss)
                mean += loss.detach()
            norm = float(whole(accelerator.clip_grad_norm_(unet.parameters(), 1.0)))
            losses.append(accelerator.reduce(mean, reduction="mean").item())
            for group in optimizer.param_groups:
                highest = lr * group.get("speed", 1.0)
                group["lr"] = learning_rate(step - steps.start, len(steps), highest)
            # gradients that are not finite are a scaler's business, as long as its scale, which it
            # then lowers, may be what is wrong
            scaler = accelerator.scaler
            scaled = scaler is not None and scaler.get_scale() >= 1
            good = math.isfinite(losses[-1]) and (scaled or math.isfinite(norm))
            if good or scaler is not None:
                stepping.step()
            if good and math.isfinite(norm):
                ema.update_parameters(unet)
            in_a_row = 0 if good else in_a_row + 1
            skipped += not good
            seconds = time.perf_counter() - began
            shown = {"loss": f"{fmean(losses[-50:]):.4f}", "samples/s": f"{batch / seconds:.1f}"}
            bar.set_postfix(shown | ({"skipped": skipped} if skipped else {}))
            bar.update()
            if report is not None:
                report(step + 1, {
                    "phase": phase, "loss": losses[-1], "gradient_norm": norm,
                    "lr": optimizer.param_groups[0]["lr"], "skipped": skipped,
                    "steps_per_second": 1 / seconds, "samples_per_second": batch / seconds,
                })  # fmt: skip
            if in_a_row == MOST_NOT_FINITE:
                raise RunError(
                    f"the loss or its gradients were not finite in {in_a_row} steps in a row, "
                    f"up to step {step + 1}"
                )
            if after_step is not None:
                after_step(step + 1)
    accelerator.free_memory()
    return losses
