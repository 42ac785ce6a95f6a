"""An inflated model of diffusers is one of its models: saved, loaded, put into pipelines."""

import json

import pytest
import torch
from torch import nn

from make_a_video_pytorch import inflate, spatial_parameters, temporal_parameters
from tests.image_models import small_text_unet
from tests.integrations.small import close, differs, missing, video_model, waves
from tests.zoo import randomize

pytest.importorskip("diffusers", reason=missing("diffusers"))

from diffusers import DDIMScheduler, UNet2DConditionModel

from make_a_video_pytorch.integrations.diffusers import InflatedDiffusersModel

SCHEDULER = DDIMScheduler(steps_offset=1, clip_sample=False)
IMAGE, VIDEO, TEXT = waves(2, 3, 4, 6), waves(2, 3, 4, 4, 6), waves(2, 5, 5)


def image_model() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return randomize(small_text_unet(), 0.2).eval()


def small() -> InflatedDiffusersModel:
    return InflatedDiffusersModel(video_model(image_model())).eval()


def predicted(model, x=VIDEO):
    with torch.no_grad():
        return model(x, 5, encoder_hidden_states=TEXT).sample


def test_it_is_called_as_the_image_model_is():
    model = small()
    assert torch.equal(predicted(model), predicted(model.video_model))
    assert torch.equal(predicted(model, IMAGE), predicted(image_model(), IMAGE))
    assert differs(predicted(model), predicted(inflate(image_model())))


def test_what_one_reads_of_it_is_that_of_the_image_model():
    model = small()
    assert model.config.in_channels == 3
    assert model.config.image_model == ["diffusers", "UNet2DConditionModel"]
    assert model.config.inflation["heads"] == 2
    assert model.conv_in is model.image_model.conv_in
    assert model.dtype == torch.float32
    with pytest.raises(AttributeError):
        model.nothing  # noqa: B018


def test_temporal_parameters_are_told_from_the_others():
    model = small()
    assert temporal_parameters(model) == list(model.video_model.temporal.parameters())
    assert len(spatial_parameters(model)) == len(list(model.image_model.parameters()))


@pytest.mark.parametrize("saving", [{}, {"max_shard_size": "20KB"}, {"variant": "fp16"}], ids=str)
@pytest.mark.parametrize("lean", [True, False])
def test_what_is_saved_is_loaded(saving, lean, tmp_path):
    if lean:
        pytest.importorskip("accelerate", reason=missing("accelerate"))
    model = small()
    model.save_pretrained(tmp_path / "unet", **saving)
    variant = {"variant": saving["variant"]} if "variant" in saving else {}
    loaded = InflatedDiffusersModel.from_pretrained(
        tmp_path, subfolder="unet", low_cpu_mem_usage=lean, **variant
    )
    assert torch.equal(predicted(loaded), predicted(model))
    assert not loaded.training
    assert loaded.config.inflation == model.config.inflation


def test_the_folder_holds_the_image_model_as_diffusers_saves_it(tmp_path):
    small().save_pretrained(tmp_path)
    alone = UNet2DConditionModel.from_pretrained(tmp_path)
    assert torch.equal(predicted(alone, IMAGE), predicted(image_model(), IMAGE))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json", "diffusion_pytorch_model.safetensors", "inflated_config.json",
        "motion.safetensors",
    ]  # fmt: skip
    own = json.loads((tmp_path / "inflated_config.json").read_text())
    assert set(own) == {"_class_name", "_diffusers_version", "image_model", "inflation"}


def test_it_is_loaded_in_another_dtype(tmp_path):
    model = small()
    model.save_pretrained(tmp_path)
    loaded = InflatedDiffusersModel.from_pretrained(tmp_path, torch_dtype=torch.float64)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float64}
    out = loaded(VIDEO.double(), 5, encoder_hidden_states=TEXT.double()).sample
    close(out.float(), predicted(model))


def test_a_lora_of_the_image_model_lies_beside_it(tmp_path):
    peft = pytest.importorskip("peft", reason=missing("peft"))
    model = small()
    plain = predicted(model)
    layers = ["to_q", "to_out.0", "conv1"]
    model.image_model.add_adapter(
        peft.LoraConfig(r=2, target_modules=layers, init_lora_weights=False)
    )
    adapted = predicted(model)
    assert differs(adapted, plain)
    model.save_pretrained(tmp_path)
    model.image_model.save_lora_adapter(tmp_path / "lora")
    assert torch.equal(predicted(model), adapted)  # saving leaves it as it is

    loaded = InflatedDiffusersModel.from_pretrained(tmp_path)
    assert torch.equal(predicted(loaded), plain)
    weights = {"weight_name": "pytorch_lora_weights.safetensors"}
    loaded.image_model.load_lora_adapter(tmp_path / "lora", prefix=None, **weights)
    assert torch.equal(predicted(loaded), adapted)


def test_an_image_model_of_a_class_of_ones_own_is_found_by_its_module(tmp_path):
    model = InflatedDiffusersModel(inflate(Own(**dict(image_model().config))))
    assert model.config.image_model == [__name__, "Own"]
    model.save_pretrained(tmp_path)
    assert type(InflatedDiffusersModel.from_pretrained(tmp_path).image_model) is Own


class Own(UNet2DConditionModel):
    """At a place from which it can be imported."""


def test_what_is_not_of_diffusers_is_refused():
    with pytest.raises(
        TypeError, match=r"`video_model` \(of a Sequential\) must be made of a model"
    ):
        InflatedDiffusersModel(inflate(nn.Sequential(nn.Conv2d(3, 3, 3))))
    with pytest.raises(TypeError, match=r"`video_model` \(=.*must be of type InflatedModel"):
        InflatedDiffusersModel(nn.Identity())


def test_gradient_checkpointing_is_that_of_the_image_model():
    model = small()
    grads = []
    for switch in (model.disable_gradient_checkpointing, model.enable_gradient_checkpointing):
        switch()
        model.train().zero_grad()
        model(VIDEO, 5, encoder_hidden_states=TEXT).sample.square().mean().backward()
        grads.append([p.grad.clone() for p in temporal_parameters(model)])
    assert model.is_gradient_checkpointing
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("wrapped", [True, False])
def test_in_a_pipeline_for_images_it_stays_an_image_model(wrapped):
    pytest.importorskip("transformers", reason=missing("transformers"))
    from diffusers import StableDiffusionPipeline

    video = inflate(image_model())
    unet = InflatedDiffusersModel(video) if wrapped else video
    images = []
    for model in (image_model(), unet):
        pipeline = StableDiffusionPipeline(
            vae=None, text_encoder=None, tokenizer=None, unet=model, scheduler=SCHEDULER,
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        images.append(
            pipeline(
                prompt_embeds=TEXT, negative_prompt_embeds=-TEXT, num_inference_steps=2,
                height=32, width=48, output_type="latent",
                generator=torch.Generator().manual_seed(0),
            ).images
        )  # fmt: skip
    assert torch.equal(*images)


@pytest.mark.filterwarnings("ignore")  # the pipeline is deprecated
def test_it_runs_in_the_pipeline_for_videos_that_diffusers_had():
    pytest.importorskip("transformers", reason=missing("transformers"))
    from diffusers import TextToVideoSDPipeline

    model = small()
    pipeline = TextToVideoSDPipeline(
        vae=None, text_encoder=None, tokenizer=None, unet=model, scheduler=SCHEDULER
    )
    pipeline.set_progress_bar_config(disable=True)
    noise = waves(2, 3, 4, 4, 6)
    frames = pipeline(
        prompt_embeds=TEXT, negative_prompt_embeds=-TEXT, num_inference_steps=2, num_frames=4,
        height=32, width=48, latents=noise.clone(), output_type="latent", guidance_scale=2.0,
    ).frames  # fmt: skip
    assert frames.shape == VIDEO.shape
    assert differs(frames, noise)
