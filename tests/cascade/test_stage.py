"""What holds for every stage: sampling in windows, and training."""

import copy
import math
import pickle

import pytest
import torch
from fake_gpu import Live

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.cascade.frames import noise_of_frames
from make_a_video_pytorch.guidance import guide
from tests.cascade.small import (
    Told,
    clean_scheduler,
    decoder,
    diffusers,
    interpolation,
    noise_scheduler,
    of_the_noise,
    super_resolution,
)
from tests.zoo import ONE_STAGE, randomize

VIDEO = torch.linspace(-1, 1, 2 * 2 * 5 * 4 * 6).view(2, 2, 5, 4, 6)
KINDS = {"decoder": decoder, "interpolation": interpolation, "super-resolution": super_resolution}
each_kind = pytest.mark.parametrize("kind", KINDS)
CHANNELS = {"decoder": 0, "interpolation": 3, "super-resolution": 5}


def unet_for(kind, **options):
    given = ONE_STAGE | dict(channels=2, temporal_compression=(False,), cond_dim=3)
    unet = SpaceTimeUnet(**given | dict(cond_channels=CHANNELS[kind]) | options)
    return randomize(unet, 0.1).double()


def sampled(stage, kind, **given):
    before = {"batch": 2} if kind == "decoder" else {"video": VIDEO.double()}
    return stage(**before, dtype=torch.float64, **given)


@each_kind
@pytest.mark.parametrize("scheduler", ["DDIM", "DDPM", "DPMSolverMultistep", "EulerDiscrete"])
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers', with numpy 2
def test_the_seed_says_all_and_the_scheduler_stays_as_it_was(kind, scheduler):
    torch.manual_seed(0)
    unet, cond = unet_for(kind), torch.randn(2, 3)
    scheduler = getattr(diffusers, f"{scheduler}Scheduler")()
    before = copy.deepcopy(scheduler.timesteps)
    stage = KINDS[kind](unet, scheduler)
    once = sampled(stage, kind, cond=cond, seed=3)
    assert once.isfinite().all()
    assert torch.equal(once, sampled(stage, kind, cond=cond, seed=3))
    assert not torch.allclose(once, sampled(stage, kind, cond=cond, seed=4), atol=1e-3)
    assert not torch.allclose(once, sampled(stage, kind, cond=-cond, seed=3), atol=1e-6)
    assert torch.equal(scheduler.timesteps, before)


@each_kind
def test_its_settings_make_it_again(kind):
    stage = KINDS[kind](Told(), alpha=math.inf, guidance=2.0)
    again = type(stage)(stage.model, stage.scheduler, **stage.settings)
    assert vars(again) == vars(stage)
    for other in (copy.deepcopy(stage), pickle.loads(pickle.dumps(stage))):
        assert other.settings == stage.settings


@each_kind
def test_guidance_is_that_of_guide(kind):
    unet, cond = unet_for(kind), torch.randn(2, 3).double()
    guided = sampled(KINDS[kind](unet, guidance=2.5), kind, cond=cond)
    by_hand = sampled(KINDS[kind](guide(unet, 2.5)), kind, cond=cond)
    torch.testing.assert_close(guided, by_hand)
    assert not torch.allclose(guided, sampled(KINDS[kind](unet), kind, cond=cond), atol=1e-4)


def test_every_frame_has_the_noise_that_is_its_own_whatever_the_windows():
    """By a model that hands the noise on."""
    stage = super_resolution(of_the_noise, overlap=0, window=2, alpha=1.5, steps=1)
    wanted = noise_of_frames((2, 2, 5, 8, 12), 0, 1.5, 3, "SuperResolution")
    torch.testing.assert_close(stage(VIDEO, seed=3), wanted, rtol=1e-5, atol=1e-5)


@each_kind
def test_a_model_is_given_its_dtype_and_the_steps_are_taken_in_fp32_at_least(kind):
    model = Told(0.3)
    before = {"batch": 2} if kind == "decoder" else {"video": VIDEO}
    out = KINDS[kind](model)(**before, dtype=torch.bfloat16)
    assert {call["x"].dtype for call in model.calls} == {torch.bfloat16}
    assert out.dtype == torch.float32


@pytest.mark.parametrize("kind", ["interpolation", "super-resolution"])
def test_memory_above_the_output_does_not_grow_with_the_length(kind):
    unet = unet_for(kind).float()
    stage = KINDS[kind](unet, window=8)

    def above(frames):
        with Live() as live:
            video = torch.zeros(1, 2, frames, 4, 6)
            out = stage(video)
            assert live.now >= out.nbytes + video.nbytes
        return live.peak - out.nbytes - video.nbytes

    assert above(160) == above(16) > 0


@each_kind
def test_windows_that_are_done_are_not_computed_again(kind):
    kept, steps = {}, []
    stage = KINDS[kind](Told(0.3), **({} if kind == "decoder" else {"window": 4}))
    whole = sampled(stage, kind, after_window=kept.__setitem__)
    calls = len(stage.model.calls)
    del kept[0]
    again = sampled(stage, kind, made=kept.get, after_step=lambda: steps.append(1))
    assert torch.equal(again, whole)
    assert len(stage.model.calls) - calls == len(steps) == stage.steps
    assert len(kept) >= calls // stage.steps - 1


# Training


@each_kind
@pytest.mark.parametrize("predicts", ["epsilon", "sample", "v_prediction"])
def test_the_loss_is_the_mean_square_of_what_is_to_be_predicted(kind, predicts):
    scheduler = diffusers.DDPMScheduler(prediction_type=predicts)
    clips, timesteps = torch.randn(2, 2, 7, 8, 12), torch.tensor([30, 700])
    model = Told(0.0)
    stage = KINDS[kind](model, scheduler, size=(8, 12))
    noise = torch.randn(clips.shape)
    generator = torch.Generator().manual_seed(1)
    loss = stage.loss(clips, noise=noise, timesteps=timesteps, generator=generator)
    (call,) = model.calls
    torch.testing.assert_close(call["x"], scheduler.add_noise(clips, noise, timesteps))
    assert torch.equal(call["timestep"], timesteps)
    velocity = scheduler.get_velocity(clips, noise, timesteps)
    target = {"epsilon": noise, "sample": clips, "v_prediction": velocity}[predicts]
    wanted = target.square().mean()
    torch.testing.assert_close(loss, wanted)


@each_kind
def test_a_loss_of_a_perfect_model_is_zero_and_another_model_may_be_called(kind):
    clips = torch.randn(2, 2, 7, 8, 12)
    stage = KINDS[kind](Told(), clean_scheduler(), size=(8, 12))

    def perfect(x, timestep, **conditions):
        return (clips,)  # as models of diffusers do without a dict

    assert stage.loss(clips, model=perfect) == 0
    assert not stage.model.calls
    assert stage.loss(clips) > 0


@each_kind
def test_the_loss_has_a_gradient_and_conditions_and_a_generator(kind):
    unet, clips = unet_for(kind).float(), torch.randn(2, 2, 4, 16, 24)
    stage = KINDS[kind](unet, noise_scheduler(), alpha=1.0)

    def loss(seed, **conditions):
        return stage.loss(clips, generator=torch.Generator().manual_seed(seed), **conditions)

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)
    assert loss(1) != loss(1, cond=torch.randn(2, 3))
    loss(1).backward()
    assert unet.conv_in.spatial_conv.weight.grad.abs().max() > 0


@pytest.mark.parametrize("kind", ["decoder", "super-resolution"])
def test_images_are_learned_from_too(kind):
    unet = unet_for(kind).float()
    stage = KINDS[kind](unet, noise_scheduler())
    stage.loss(torch.randn(3, 2, 16, 24)).backward()
    assert unet.conv_in.spatial_conv.weight.grad.abs().max() > 0
    assert unet.conv_in.temporal_conv.weight.grad is None


def test_a_variance_that_is_learned_too_does_not_count():
    clips = torch.randn(2, 2, 3, 4, 6)
    stage = decoder(Told(), clean_scheduler())

    def both(x, timestep):
        return torch.cat((clips[: len(x)], torch.full_like(x, 9.0)), dim=1)

    assert stage.loss(clips, model=both) == 0
    stage.model = both
    torch.testing.assert_close(stage(batch=2), clips)


def test_few_bits_have_the_noise_of_many():
    """That of a first timestep is below what a bfloat16 beside 1 can tell."""
    model = Told()
    clips, noise = torch.zeros(1, 2, 3, 4, 6).bfloat16(), torch.ones(1, 2, 3, 4, 6)
    loss = decoder(model, noise_scheduler()).loss(
        clips, noise=noise, timesteps=torch.zeros(1, dtype=torch.long)
    )
    assert model.calls[0]["x"].unique().item() == pytest.approx(0.01, rel=0.01)
    assert loss.dtype == torch.float32


@each_kind
def test_frames_that_the_model_cannot_take_are_refused_before_all(kind):
    unet = unet_for(kind, temporal_compression=(True,)).float()
    stage = KINDS[kind](unet, window=5) if kind != "decoder" else decoder(unet, frames=5)
    with pytest.raises(ValueError, match=r"`frames` \(=5\) must be divisible by 2, as the `model`"):
        sampled(stage, kind)


@each_kind
def test_conditions_that_the_stage_sets_itself_are_refused(kind):
    stage = KINDS[kind](Told())
    if kind != "decoder":
        message = "`cond_images` must be left out: the stage sets it"
        with pytest.raises(ValueError, match=message):
            sampled(stage, kind, cond_images=VIDEO)
        with pytest.raises(ValueError, match=message):
            stage.loss(VIDEO, cond_images=VIDEO)
    with pytest.raises(ValueError, match=r"`guidance` \(=2.0\) must be 1 with `tokens`, by which"):
        sampled(KINDS[kind](Told(), guidance=2.0), kind, tokens=torch.zeros(2, 3))


def test_device_and_dtype_are_those_of_the_model_and_the_batch_that_of_conditions():
    unet = unet_for("decoder").bfloat16()
    given = {}
    unet.register_forward_pre_hook(
        lambda m, args, kwargs: given.update(kwargs, x=args[0]), with_kwargs=True
    )
    video = decoder(unet)(cond=torch.zeros(4, 3))
    assert len(video) == 4
    assert video.dtype == torch.float32
    assert given["x"].dtype == given["cond"].dtype == torch.bfloat16
    with pytest.raises(
        ValueError, match=r"`batch`, `cond` must be of as many videos: .*'batch': 3"
    ):
        decoder(unet)(batch=3, cond=torch.zeros(4, 3))


def test_a_window_with_nothing_to_make_is_not_computed():
    model = Told()
    stage = interpolation(model, window=7, overlap=2)
    video = stage(VIDEO)  # frames 0 to 6, 5 to 11, and 12, which is a key
    assert video.shape[2] == 13
    assert len(model.calls) == 2 * stage.steps


def test_what_is_set_anew_is_what_holds():
    stage = decoder(Told(0.3))
    stage.frames, stage.size = 5, [6, 8]
    assert stage().shape == (1, 2, 5, 6, 8)
    assert stage.settings["frames"] == 5
    stage = interpolation(Told())
    stage.overlap = 9
    with pytest.raises(ValueError, match=r"`overlap` \(=9\) must be below `window` \(=7\)"):
        stage(VIDEO)
    stage.overlap, stage.takes = 2, "cond"
    with pytest.raises(TypeError, match=r"`takes` \(='cond'\) must be a list of names"):
        stage(VIDEO)


def test_it_takes_what_its_model_is_built_for():
    assert decoder(Told()).taken == ("cond", "context", "context_mask", "fps")
    assert decoder(unet_for("decoder")).taken == ("cond",)
    unet = unet_for("decoder", cond_dim=None, context_dim=4, condition_on_fps=True)
    assert decoder(unet).taken == ("context", "context_mask", "fps")
    assert decoder(unet, takes=["fps"]).taken == ("fps",)


@pytest.mark.parametrize(
    ("clips", "scheduler", "error", "message"),
    [
        (
            torch.zeros(2, 4, 6),
            "DDIM",
            ValueError,
            r"`clips` \(shape \(2, 4, 6\)\) must be \(b c f",
        ),
        (torch.zeros(1, 2, 3, 4, 6).byte(), "DDIM", ValueError, "`clips` .* floating point"),
        ([], "DDIM", TypeError, "`clips` .a list. must be a tensor"),
        (VIDEO, "FlowMatchEulerDiscrete", ValueError, "with `prediction_type` None. must have `al"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(clips, scheduler, error, message):
    stage = decoder(Told(), getattr(diffusers, f"{scheduler}Scheduler")())
    with pytest.raises(error, match=message):
        stage.loss(clips)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(steps=0), r"`steps` \(=0\) must be at least 1"),
        (dict(window=0), r"`window` \(=0\) must be at least 1"),
        (dict(overlap=-1), r"`overlap` \(=-1\) must be at least 0"),
        (dict(overlap=7), r"`overlap` \(=7\) must be below `window` \(=7\)"),
        (dict(alpha=-1), r"`alpha` \(=-1\) must be at least 0"),
        (dict(alpha=math.nan), r"`alpha` \(=nan\) must be at least 0"),
        (dict(size=(4,)), r"`size` \(=\(4,\)\) must be height and width"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        interpolation(Told(), **wrong)
    for argument in (dict(size="4"), dict(steps=2.5)):
        with pytest.raises(TypeError, match=r"`(size|steps)` \(=.*\) must be of type"):
            interpolation(Told(), **argument)
    with pytest.raises(TypeError, match=r"`scheduler` .* must be of type Scheduler"):
        interpolation(Told(), 3)
