"""Videos of any length, sampled and learned chunk by chunk."""

import copy
import itertools

import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet, inflate
from make_a_video_pytorch.guidance import guide
from make_a_video_pytorch.recipes import frame_timesteps, roll_out, teacher_forced
from tests.image_models import small_text_unet
from tests.zoo import UNET, randomize

diffusers = pytest.importorskip("diffusers")
SHAPE = (2, 3, 7, 4, 8)
# Schedulers whose steps are a formula of the last prediction, of the last two, and of two in turns.
SCHEDULERS = {
    "ddim": lambda: diffusers.DDIMScheduler(clip_sample=False),
    "dpm++": lambda: diffusers.DPMSolverMultistepScheduler(),
    "euler": lambda: diffusers.EulerDiscreteScheduler(),
    "unipc": lambda: diffusers.UniPCMultistepScheduler(),
}


def causal(**options):
    torch.manual_seed(1)
    unet = SpaceTimeUnet(**{**UNET, "temporal_window": 3, **options}, causal=True)
    return randomize(unet, 0.1).double()


def without_caches(unet, scheduler, noise, steps, **conditions):
    """The same, with all frames before a chunk computed again in every step."""
    done = noise[0][:, :, :0]
    for chunk in noise:
        scheduler = copy.deepcopy(scheduler)
        scheduler.set_timesteps(steps)
        x = chunk * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            whole = torch.cat((done, scheduler.scale_model_input(x, timestep)), dim=2)
            levels = torch.zeros(len(x), whole.shape[2], dtype=torch.float64)
            levels[:, done.shape[2] :] = timestep
            with torch.no_grad():
                predicted = unet(whole, levels, **conditions)[:, :, done.shape[2] :]
            x = scheduler.step(predicted, timestep, x).prev_sample
        done = torch.cat((done, x), dim=2)
    return done


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers', with numpy 2
@pytest.mark.parametrize("name", SCHEDULERS)
def test_it_equals_all_frames_computed_again(name):
    unet, scheduler = causal(), SCHEDULERS[name]()
    noise = torch.randn(SHAPE).double().split([2, 2, 3], dim=2)
    config = dict(scheduler.config)
    got = torch.cat(list(roll_out(unet.stream(), scheduler, noise, steps=4)), dim=2)
    wanted = without_caches(unet, scheduler, noise, 4)
    assert got.isfinite().all()
    scale = wanted.abs().max().item()
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-8 * scale)
    assert dict(scheduler.config) == config
    assert scheduler.num_inference_steps is None  # it was copied


def test_a_guided_stream_leads_both_sides():
    unet = causal(cond_dim=4)
    cond, noise = torch.randn(2, 4).double(), torch.randn(SHAPE).double().split(3, dim=2)
    scheduler = SCHEDULERS["ddim"]()
    got = roll_out(guide(unet.stream(), 2.0), scheduler, noise, steps=3, cond=cond)
    wanted = without_caches(guide(unet, 2.0), scheduler, noise, 3, cond=cond)
    torch.testing.assert_close(torch.cat(list(got), dim=2), wanted, rtol=1e-8, atol=1e-8)


def test_it_goes_on_without_an_end_and_from_given_frames():
    unet, scheduler = causal(), SCHEDULERS["ddim"]()
    given = torch.randn(SHAPE).double()
    stream = unet.stream()
    with torch.no_grad():
        stream(given, 0)
    endless = (torch.randn(2, 3, 1, 4, 8).double() for _ in itertools.count())
    chunks = list(itertools.islice(roll_out(stream, scheduler, endless, steps=2), 5))
    assert [chunk.shape for chunk in chunks] == [(2, 3, 1, 4, 8)] * 5
    assert stream.frames == 12


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # as above
@pytest.mark.parametrize("name", SCHEDULERS)
def test_later_chunks_see_earlier_ones_at_a_level(name):
    """As a model was trained to see them, by a DDPMScheduler."""
    seen = []

    def stream(x, timestep, commit):
        seen.append((x, timestep, commit))
        return torch.zeros_like(x)

    scheduler = SCHEDULERS[name]()
    noise = [torch.randn(2, 3, 5, 4, 4)] * 2
    for level in (0, 300):
        seen.clear()
        generator = torch.Generator().manual_seed(5)
        chunks = list(roll_out(stream, scheduler, noise, steps=2, level=level, generator=generator))
        committed = [(x, timestep) for x, timestep, commit in seen if commit]
        assert [timestep for _, timestep in committed] == [level, level]
        assert [commit for *_, commit in seen] == [False, False, True] * 2
        drawn = torch.randn(2, 3, 5, 4, 4, generator=torch.Generator().manual_seed(5))
        levels = torch.tensor([level, level])
        wanted = diffusers.DDPMScheduler().add_noise(chunks[0], drawn, levels)
        torch.testing.assert_close(committed[0][0], wanted if level else chunks[0])


def test_what_steps_draw_comes_from_the_generator():
    def stream(x, timestep, commit):
        return torch.zeros_like(x)

    noise = [torch.randn(1, 3, 2, 4, 4)]
    made = [
        next(roll_out(stream, diffusers.DDPMScheduler(), noise, steps=3,
                      generator=torch.Generator().manual_seed(seed)))
        for seed in (1, 1, 2)
    ]  # fmt: skip
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_given_frames_go_through_what_is_guided():
    unet, scheduler = causal(cond_dim=4), SCHEDULERS["ddim"]()
    cond, given = torch.randn(2, 4).double(), torch.randn(SHAPE).double()
    guided = guide(unet.stream(), 2.0)
    with torch.no_grad():
        guided(given, 0, cond=cond)
    noise = torch.randn(2, 3, 2, 4, 8).double()
    (got,) = roll_out(guided, scheduler, [noise], steps=2, cond=cond)
    scheduler.set_timesteps(2)
    x, whole = noise, guide(unet, 2.0)
    for timestep in scheduler.timesteps:
        levels = torch.zeros(2, 9).double()
        levels[:, 7:] = timestep
        with torch.no_grad():
            predicted = whole(torch.cat((given, x), dim=2), levels, cond=cond)[:, :, 7:]
        x = scheduler.step(predicted, timestep, x).prev_sample
    torch.testing.assert_close(got, x, rtol=1e-8, atol=1e-8)


def test_an_inflated_model_of_diffusers_rolls_out():
    model = inflate(small_text_unet(), causal=True, temporal_window=2, heads=2, dim_head=4)
    randomize(model.temporal)
    noise = torch.randn(1, 3, 6, 8, 8).split(2, dim=2)
    text = torch.randn(1, 7, 5)
    made = [
        torch.cat(list(roll_out(model.stream(), diffusers.DDIMScheduler(), noise, steps=2,
                                encoder_hidden_states=text, **more)), dim=2)
        for more in ({}, {"return_dict": False})
    ]  # fmt: skip
    assert torch.equal(*made)
    assert made[0].shape == (1, 3, 6, 8, 8)


def test_teacher_forcing_shows_what_is_real():
    unet = causal(temporal_window=None)
    noisy, clean = torch.randn(2, *SHAPE).double().unbind()
    timesteps = frame_timesteps(2, 7, chunk=3)
    got = teacher_forced(unet.stream(), noisy, clean, timesteps, chunk=3, level=20)
    for start, stop in ((0, 3), (3, 6), (6, 7)):
        x = torch.cat((clean[:, :, :start], noisy[:, :, start:stop]), dim=2)
        levels = torch.cat((torch.full((2, start), 20), timesteps[:, start:stop]), dim=1)
        whole = unet(x, levels)[:, :, start:stop]
        torch.testing.assert_close(got[:, :, start:stop], whole, rtol=1e-9, atol=1e-9)


def test_teacher_forcing_has_the_gradients_that_the_stream_lets_flow():
    found = []
    for detach in (True, False):
        unet = causal()
        noisy, clean = torch.randn(2, *SHAPE).double().requires_grad_().unbind()
        clean.retain_grad()
        out = teacher_forced(
            unet.stream(detach=detach), noisy, clean, frame_timesteps(2, 7), chunk=3
        )
        out.square().sum().backward()
        found.append(clean.grad)
        assert unet.conv_in.spatial_conv.weight.grad.any()
    ended, through = found
    assert ended is None or not ended.any()
    assert through[:, :, :6].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: list(roll_out(None, None, [], steps=0)), r"`steps` \(=0\) must be at least 1"),
        (lambda x: list(roll_out(None, None, [], steps=1, level=-1)), r"`level` \(=-1\) must be"),
        (
            lambda x: list(
                roll_out(None, diffusers.FlowMatchEulerDiscreteScheduler(), [], steps=1, level=5)
            ),
            r"`level` \(=5\) must be from 0 to below .* \(a FlowMatchEulerDiscreteScheduler\)",
        ),
        (
            lambda x: teacher_forced(None, x, x[:, :1], torch.zeros(1, 3), chunk=1),
            r"`shown` \(shape \(1, 1, 3, 4, 4\)\) must be of the shape of `noisy`, \(1, 2, 3, 4, 4",
        ),
        (
            lambda x: teacher_forced(None, x, x, torch.zeros(3), chunk=1),
            r"`timesteps` \(shape \(3,\)\) must be \(b f\) = \(1, 3\)",
        ),
        (
            lambda x: teacher_forced(None, x, x, torch.zeros(1, 3), chunk=0),
            r"`chunk` \(=0\) must be at least 1",
        ),
    ],
)
def test_wrong_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 2, 3, 4, 4))
