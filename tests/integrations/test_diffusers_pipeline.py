"""From text to video by diffusers, with either wrapper and each scheduler."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.image_models import small_text_unet
from tests.integrations.small import close, differs, missing, video_model, waves
from tests.zoo import ONE_STAGE, randomize

pytest.importorskip("diffusers", reason=missing("diffusers"))

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.utils import export_to_gif

from make_a_video_pytorch.integrations import diffusers_pipeline
from make_a_video_pytorch.integrations.diffusers import (
    InflatedDiffusersModel,
    SpaceTimeUnetModel,
    TextToVideoPipeline,
    TextToVideoPipelineOutput,
)

# of its schedulers, which make arrays of tensors
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SCHEDULERS = (
    DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)  # fmt: skip
B, F, H, W = 2, 4, 4, 6
TEXT, OTHER = waves(B, 5, 5), waves(1, 5, 5) / 2
NOISE = waves(B, 3, F, H, W)
CLIP = (waves(B, F, 3, H, W) + 1) / 2  # as diffusers takes videos: b f c h w in [0, 1]
SIZE = {"height": H, "width": W, "num_frames": F}


def own(**kwargs) -> SpaceTimeUnetModel:
    torch.manual_seed(0)
    built = SpaceTimeUnetModel(**{**ONE_STAGE, "context_dim": 5, **kwargs})
    return randomize(built, 0.1).eval()


def inflated() -> InflatedDiffusersModel:
    torch.manual_seed(0)
    return InflatedDiffusersModel(video_model(randomize(small_text_unet(), 0.1))).eval()


UNETS = {"own": own, "inflated": inflated}
each_unet = pytest.mark.parametrize("build", UNETS.values(), ids=UNETS)


def pipeline(unet, scheduler=None, **parts) -> TextToVideoPipeline:
    made = TextToVideoPipeline(unet, scheduler or DDIMScheduler(clip_sample=False), **parts)
    made.set_progress_bar_config(disable=True)
    return made


def sampled(made, **kwargs):
    given = {"prompt_embeds": TEXT, "negative_prompt_embeds": OTHER, "num_inference_steps": 3}
    given.update(output_type="latent", generator=torch.Generator().manual_seed(0), **SIZE)
    return made(**{**given, **kwargs}).frames


@each_unet
@pytest.mark.parametrize("kind", SCHEDULERS, ids=lambda kind: kind.__name__)
def test_every_scheduler_samples_and_keeps_what_is_to_be_kept(kind, build):
    made = pipeline(build(), kind.from_config(DDIMScheduler().config))
    frames = sampled(made)
    assert frames.shape == NOISE.shape
    assert frames.isfinite().all()
    assert torch.equal(sampled(made), frames)
    assert differs(sampled(made, generator=torch.Generator().manual_seed(1)), frames)
    kept = sampled(made, image=CLIP[:, 0])
    close(kept[:, :, 0], CLIP[:, 0] * 2 - 1)
    assert differs(kept[:, :, 1:], frames[:, :, 1:])


@each_unet
@pytest.mark.parametrize("scale", [1, 3.0, [0.0, 1.0, 2.0, 5.0]], ids=str)
def test_a_step_is_that_of_the_guided_prediction(build, scale):
    unet, scheduler = build(), DDIMScheduler(clip_sample=False)
    made = pipeline(unet, scheduler)
    out = sampled(made, num_inference_steps=1, latents=NOISE, guidance_scale=scale)
    scheduler.set_timesteps(1)
    (timestep,) = scheduler.timesteps
    with torch.no_grad():
        towards = unet(NOISE, timestep, encoder_hidden_states=TEXT).sample
        away = unet(NOISE, timestep, encoder_hidden_states=OTHER.expand(B, -1, -1)).sample
    per_frame = torch.tensor(scale).view(1, 1, -1, 1, 1)
    guided = away + per_frame * (towards - away)
    close(out, scheduler.step(guided, timestep, NOISE).prev_sample)


def calls_of(unet, monkeypatch):
    """What a U-Net is called with, while a pipeline samples."""
    calls, forward = [], unet.forward
    monkeypatch.setattr(unet, "forward", lambda *a, **k: calls.append((a, k)) or forward(*a, **k))
    return calls


def test_mask_channels_are_told_the_frames_that_are_kept(monkeypatch):
    unet = own(cond_channels=4)
    made, calls = pipeline(unet), calls_of(unet, monkeypatch)
    kept = torch.tensor([[True, False, False, True], [False, True, False, False]])
    out = sampled(made, video=CLIP, kept=kept, guidance_scale=1)
    clean = CLIP.transpose(1, 2) * 2 - 1
    for (_, timestep), given in calls:
        assert timestep.ndim == 0
        beside = given["cond_images"]
        torch.testing.assert_close(beside[:, 3, :, 0, 0], kept.float())
        torch.testing.assert_close(beside[:, :3], clean * kept[:, None, :, None, None])
    for sample in range(B):
        close(out[sample][:, kept[sample]], clean[sample][:, kept[sample]])


@pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler])
def test_without_them_kept_frames_are_clean_and_of_level_zero(kind, monkeypatch):
    unet = own()
    made, calls = pipeline(unet, kind()), calls_of(unet, monkeypatch)
    sampled(made, image=CLIP[:, 0], guidance_scale=1)
    for ((x, levels), _), timestep in zip(calls, made.scheduler.timesteps, strict=True):
        close(x[:, :, 0], CLIP[:, 0] * 2 - 1)
        assert levels.tolist() == [[0, *[timestep] * 3]] * B


def test_no_token_stands_for_a_negative_text_that_is_not_given(monkeypatch):
    unet = own()
    made, calls = pipeline(unet), calls_of(unet, monkeypatch)
    sampled(made, negative_prompt_embeds=None)
    mask = calls[0][1]["encoder_attention_mask"]
    assert not mask[:B].any()
    assert mask[B:].all()


def test_texts_of_several_lengths_are_padded(monkeypatch):
    unet = own()
    made, calls = pipeline(unet), calls_of(unet, monkeypatch)
    mask = torch.ones(B, 5, dtype=torch.long)
    out = sampled(made, negative_prompt_embeds=waves(B, 2, 5), prompt_attention_mask=mask)
    mask = calls[0][1]["encoder_attention_mask"]
    assert mask.sum(1).tolist() == [2, 2, 5, 5]
    assert out.isfinite().all()


def test_a_vector_and_frames_per_second_are_conditions_too(monkeypatch):
    unet = own(context_dim=None, cond_dim=3, condition_on_fps=True)
    made, calls = pipeline(unet), calls_of(unet, monkeypatch)
    cond = waves(B, 3)
    sampled(made, prompt_embeds=None, negative_prompt_embeds=None, cond=cond, fps=8)
    (_, given) = calls[0]
    assert torch.equal(given["cond"], torch.cat((torch.zeros_like(cond), cond)))
    assert given["fps"] == 8
    assert "encoder_hidden_states" not in given


def test_without_any_condition_there_is_one_video_and_no_guidance(monkeypatch):
    unet = own(context_dim=None)
    made, calls = pipeline(unet), calls_of(unet, monkeypatch)
    out = sampled(made, prompt_embeds=None, negative_prompt_embeds=None)
    assert out.shape == (1, 3, F, H, W)
    assert calls[0][0][0].shape == out.shape


@pytest.mark.parametrize(
    "given",
    [
        {"image": CLIP[:, 0]},
        {"image": [Image.new("RGB", (W, H)), Image.new("RGB", (W, H), "red")]},
        {"video": CLIP, "kept": torch.arange(F) < 2},
        {"latents": NOISE},
    ],
    ids=["pictures", "images", "videos", "latents"],
)
def test_without_any_condition_there_are_as_many_videos_as_pictures(given):
    made = pipeline(own(context_dim=None))
    out = sampled(made, prompt_embeds=None, negative_prompt_embeds=None, **given)
    assert out.shape == NOISE.shape


def test_a_predicted_variance_is_left_to_schedulers_that_use_it():
    unet = own(channels_out=6)
    fixed = sampled(pipeline(unet, DDPMScheduler()), guidance_scale=1)
    learned = sampled(
        pipeline(unet, DDPMScheduler(variance_type="learned_range")), guidance_scale=1
    )
    assert fixed.shape == learned.shape == NOISE.shape
    assert differs(fixed, learned)


def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(4, 4), norm_num_groups=2, latent_channels=3, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()  # fmt: skip


def test_a_vae_makes_pictures_of_latents():
    made = pipeline(own(), vae=vae())
    size = {"height": 2 * H, "width": 2 * W}
    latents = sampled(made, **size)
    assert latents.shape == NOISE.shape
    frames = sampled(made, **size, output_type="pt")
    assert frames.shape == (B, F, 3, 2 * H, 2 * W)
    with torch.no_grad():
        decoded = made.vae.decode(latents[1:, :, 2] / made.vae.config.scaling_factor).sample
    close(frames[1, 2], (decoded[0] / 2 + 0.5).clamp(0, 1))
    first = waves(B, 3, 2 * H, 2 * W) / 2 + 0.5
    kept = sampled(made, **size, image=first)
    with torch.no_grad():
        encoded = made.vae.encode(first * 2 - 1).latent_dist.mode()
    close(kept[:, :, 0], encoded * made.vae.config.scaling_factor)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("pt", lambda frames: frames.shape == (B, F, 3, H, W)),
        ("np", lambda frames: isinstance(frames, np.ndarray) and frames.shape == (B, F, H, W, 3)),
        ("pil", lambda frames: frames[1][3].size == (W, H) and len(frames[0]) == F),
        ("latent", lambda frames: frames.shape == (B, 3, F, H, W)),
    ],
)
def test_frames_come_as_they_are_asked_for(kind, check):
    assert check(sampled(pipeline(own()), output_type=kind))


def test_a_result_is_a_dataclass_or_a_tuple_and_goes_into_a_file(tmp_path):
    made = pipeline(own())
    given = {"prompt_embeds": TEXT, "num_inference_steps": 1, "return_dict": False, **SIZE}
    (frames,) = made(**given)
    assert isinstance(made(**{**given, "return_dict": True}), TextToVideoPipelineOutput)
    export_to_gif(frames[0], str(tmp_path / "video.gif"))
    with Image.open(tmp_path / "video.gif") as file:
        assert (file.size, file.n_frames) == ((W, H), F)


def test_the_callback_sees_each_step_and_may_change_it():
    seen = []

    def callback(made, index, timestep, tensors):
        seen.append((index, int(timestep)))
        return {"latents": torch.zeros_like(tensors["latents"])}

    made = pipeline(own())
    out = sampled(made, callback_on_step_end=callback)
    assert seen == list(enumerate(made.scheduler.timesteps.tolist()))
    assert not out.any()


@each_unet
def test_the_whole_is_saved_and_loaded(build, tmp_path):
    made = pipeline(build(), EulerDiscreteScheduler(), vae=vae())
    made.save_pretrained(tmp_path)
    loaded = TextToVideoPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.unet) is type(made.unet)
    assert loaded.text_encoder is None
    size = {"height": 2 * H, "width": 2 * W, "output_type": "pt"}
    close(sampled(loaded, **size), sampled(made, **size))


def test_a_download_fetches_the_motion_of_an_inflated_unet_too(monkeypatch):
    fetched = []
    monkeypatch.setattr(DiffusionPipeline, "download", lambda name, **kwargs: f"cache/{name}")
    monkeypatch.setattr(
        diffusers_pipeline, "snapshot_download", lambda name, **kwargs: fetched.append(kwargs)
    )
    folder = TextToVideoPipeline.download("a/b", revision="main", variant="fp16")
    assert folder == "cache/a/b"
    assert fetched == [
        {"allow_patterns": ["*/inflated_config.json", "*/motion*.safetensors"], "revision": "main"}
    ]


@each_unet
def test_its_models_may_be_offloaded_one_by_one(build):
    pytest.importorskip("accelerate", reason=missing("accelerate"))
    made = pipeline(build(), vae=vae())
    size = {"height": 2 * H, "width": 2 * W, "output_type": "pt"}
    expected = sampled(made, **size)
    made.enable_model_cpu_offload(device="cpu")
    close(sampled(made, **size), expected)


def test_the_size_is_that_of_the_unet_if_it_is_not_said():
    made = pipeline(own(sample_size=(6, 4)))
    assert sampled(made, height=None, width=None).shape == (B, 3, F, 6, 4)
    assert sampled(made, height=None, width=8).shape == (B, 3, F, 6, 8)
    with pytest.raises(ValueError, match="`height` must be given: the U-Net has no `sample_size`"):
        sampled(pipeline(own()), height=None)


WRONG = {
    "scales": ({"guidance_scale": [1.0, 2.0]}, r"`guidance_scale` \(shape \(2,\)\) must be one"),
    "twice": ({"prompt": "a"}, "`prompt` and `prompt_embeds` cannot both be given"),
    "no encoder": (
        {"prompt": "a", "prompt_embeds": None},
        "`prompt` must be given as `prompt_embeds`: the pipeline has no `text_encoder`",
    ),
    "embeds": ({"prompt_embeds": TEXT[0]}, r"`prompt_embeds` \(shape \(5, 5\)\) must be"),
    "negative": (
        {"negative_prompt_embeds": waves(3, 5, 5)},
        r"`negative_prompt_embeds` \(shape \(3, 5, 5\)\) must be .* b = 2 and d = 5",
    ),
    "latents": ({"latents": NOISE[:, :, 1:]}, r"`latents` \(shape \(2, 3, 3, 4, 6\)\) must be"),
    "kept": ({"kept": torch.ones(F).bool()}, "`video` and `kept` must be given together"),
    "image": (
        {"image": CLIP[:, 0], "video": CLIP, "kept": torch.ones(F).bool()},
        "`image` must be left out, if `video` and `kept` are given",
    ),
    "mask": (
        {"video": CLIP, "kept": torch.ones(3).bool()},
        r"`kept` \(shape \(3,\), torch.bool\) must be a bool tensor \(f\) = \(4,\)",
    ),
    "video": (
        {"video": CLIP[:, :3], "kept": torch.ones(F).bool()},
        r"`video` \(as \(b c f h w\): \(2, 3, 3, 4, 6\)\) must have b = 2 and f = 4",
    ),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_wrong_calls_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        sampled(pipeline(own()), **given)


def test_an_inflated_model_needs_its_negative_text():
    made = pipeline(inflated())
    with pytest.raises(ValueError, match="`negative_prompt_embeds` must be given, for a `guidance"):
        sampled(made, negative_prompt_embeds=None)
    assert sampled(made, negative_prompt_embeds=None, guidance_scale=1).isfinite().all()
    with pytest.raises(ValueError, match=r"`negative_prompt_embeds` .* must have 5 tokens"):
        sampled(made, negative_prompt_embeds=waves(1, 3, 5))
