"""Training steps: what they do with losses and gradients that are not finite."""

import fitting
import pytest
import torch
from accelerate import Accelerator
from diffusion import averaged
from errors import RunError
from fitting import fit
from processes import join
from torch import nn


class Scale(nn.Module):
    """One parameter."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x * self.weight


def trained(loss_of, steps=20, accelerator=None, **more):
    model = Scale()
    ema, optimizer = averaged(model), torch.optim.SGD(model.parameters(), lr=1.0)
    seen = []
    losses = fit(
        accelerator or join("cpu"), model, ema, optimizer, loss_of,
        phase="test", steps=range(steps), lr=0.1, seed=0, batch=4,
        report=lambda step, values: seen.append((step, values)), **more,
    )  # fmt: skip
    return model, ema, losses, seen


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(where):
    """Neither weights, average nor what the optimizer remembers are touched by it."""

    def loss_of(model, draws):
        bad = draws.uniform(1) < 0.4
        x = torch.full((3,), float("inf") if where == "loss" else 0.0)
        loss = model(torch.ones(3)).square().sum()
        if not bad:
            return loss
        # the root has an infinite slope at zero
        return loss + (model(x).sum() if where == "loss" else (model.weight * 0).sqrt().sum())

    model, ema, losses, seen = trained(loss_of)
    skipped = seen[-1][1]["skipped"]
    assert 3 < skipped < 15
    assert torch.isfinite(model.weight).all()
    assert torch.isfinite(ema.module.weight).all()
    assert (model.weight < 0.9).all()
    assert ema.n_averaged == 20 - skipped
    if where == "loss":
        assert sum(loss == float("inf") for loss in losses) == skipped


def test_ten_in_a_row_end_it_and_nine_do_not():
    taken = []

    def loss_of(model, draws, most):
        taken.append(None)
        return model(torch.ones(3)).sum() * (float("nan") if 2 < len(taken) < 3 + most else 1.0)

    trained(lambda model, draws: loss_of(model, draws, 9))
    taken.clear()
    with pytest.raises(RunError, match=r"not finite in 10 steps in a row, up to step 12"):
        trained(lambda model, draws: loss_of(model, draws, 10))
    assert fitting.MOST_NOT_FINITE == 10


def test_what_is_reported_is_what_was_done():
    def loss_of(model, draws):
        return model(torch.full((3,), 2.0)).sum()

    model, _, losses, seen = trained(loss_of, steps=3)
    assert losses[0] == 6.0
    step, values = seen[0]
    assert step == 1
    assert values["loss"] == 6.0
    assert values["gradient_norm"] == pytest.approx(12**0.5)
    assert values["lr"] == pytest.approx(0.1 / 30)
    assert values["samples_per_second"] == pytest.approx(4 * values["steps_per_second"])
    # the gradient is clipped to a norm of one
    moved = sum(values["lr"] for _, values in seen) / 3**0.5
    torch.testing.assert_close(model.weight, torch.full((3,), 1 - moved))


def test_the_parts_of_a_step_are_one_step():
    """Each sample counts as much, however many parts there are."""

    def loss_of(model, draws):
        x = draws.noise((6 // draws.shares, 3, 1, 1)).flatten(1)
        return model(x).square().mean()

    one, three = (trained(loss_of, parts=parts)[0].weight for parts in (1, 3))
    torch.testing.assert_close(one, three)


def test_gradients_that_overflow_are_the_scalers_business():
    """As with fp16 on a GPU: it skips, lowers its scale, and only losses end the run."""
    accelerator = Accelerator(cpu=True, mixed_precision="fp16")
    accelerator.native_amp = True  # which it is on a GPU alone
    accelerator.scaler = scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)

    def loss_of(model, draws):
        return model(torch.full((3,), 4.0)).sum()

    model, ema, _, seen = trained(loss_of, accelerator=accelerator)
    assert seen[-1][1]["skipped"] == 0
    overflows = 127 - int(torch.tensor(scaler.get_scale()).log2())
    assert 0 < overflows < 20
    assert ema.n_averaged == 20 - overflows
    assert torch.isfinite(model.weight).all()
    assert (model.weight < 1).all()
    with pytest.raises(RunError):
        trained(lambda model, draws: loss_of(model, draws) * float("inf"), accelerator=accelerator)

    def without_gradients(model, draws):
        return loss_of(model, draws) + (model.weight * 0).sqrt().sum()

    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with pytest.raises(RunError, match="up to step 13"):  # at 4, 2 and 1 it may be the scale
        trained(without_gradients, accelerator=accelerator)
