"""What a scheduler of diffusers does with a prediction, and what it says of noise."""

from dataclasses import dataclass

import pytest
import torch

from make_a_video_pytorch.recipes.denoising import (
    denoised,
    prediction_of,
    signal_and_noise,
    steps_of,
)

diffusers = pytest.importorskip("diffusers")


@dataclass
class SimpleOutput(diffusers.utils.BaseOutput):
    sample: torch.Tensor


def perfect(clean, scheduler):
    """A model that knows what is clean, and predicts the noise."""

    def model(x, timestep):
        signal, sigma = signal_and_noise(scheduler, timestep, x)
        return (x - signal * clean) / sigma

    return model


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers', with numpy 2
def test_a_perfect_model_leads_to_what_is_clean(name):
    build = getattr(diffusers, name)
    scheduler = build()
    clean = torch.linspace(-0.9, 0.9, 2 * 3 * 4 * 5).view(2, 3, 4, 5).double()
    noise = torch.randn(clean.shape).double()
    steps = []
    got = denoised(
        perfect(clean, build()), scheduler, noise, 20,
        generator=torch.Generator().manual_seed(1), after_step=lambda: steps.append(1),
    )  # fmt: skip
    torch.testing.assert_close(got, clean, rtol=0, atol=0.02)
    assert len(steps) == steps_of(scheduler, 20) == 20


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_a_scheduler_may_take_more_predictions_than_steps():
    assert steps_of(diffusers.HeunDiscreteScheduler(), 5) == 9


def test_steps_that_draw_noise_draw_it_from_the_generator():
    noise = torch.randn(1, 1, 3, 5)

    def made(seed):
        generator = torch.Generator().manual_seed(seed)
        scheduler = diffusers.DDPMScheduler()
        return denoised(lambda x, t: (x,), scheduler, noise, 3, generator=generator)

    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("build", [diffusers.DDIMScheduler, diffusers.EulerDiscreteScheduler])
def test_signal_and_noise_are_those_of_add_noise(build):
    scheduler = diffusers.DDPMScheduler()
    x, noise = torch.randn(2, 2, 3, 4, 5), torch.randn(2, 2, 3, 4, 5)
    levels = torch.tensor([7, 950])
    signal, sigma = signal_and_noise(build(), levels, x)
    wanted = scheduler.add_noise(x, noise, levels)
    torch.testing.assert_close(signal * x + sigma * noise, wanted)
    assert signal_and_noise(build(), 7, x)[0].shape == (1, 1, 1, 1, 1)


@pytest.mark.parametrize("level", [-1, 1000, torch.tensor([3, 1000])])
def test_levels_that_there_are_not_are_refused(level):
    with pytest.raises(
        ValueError, match=r"`level` \(=(-1|1000)\) must be from 0 to below 1000, the"
    ):
        signal_and_noise(diffusers.DDIMScheduler(), level, torch.zeros(1))


def test_a_prediction_is_a_tensor_or_the_first_of_several():
    x = torch.zeros(1)
    output = SimpleOutput(sample=x)
    assert all(prediction_of(out) is x for out in (x, (x, 3), output))
