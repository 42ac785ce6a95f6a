"""Models of diffusers, in small random configurations, as video models."""

import copy

import pytest
import torch
import torch._dynamo
from packaging.version import Version

from make_a_video_pytorch import deflate, inflate, spatial_parameters, temporal_parameters
from tests.image_models import folded, unfolded

pytest.importorskip("diffusers")
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMPipeline,
    DDIMScheduler,
    DiTTransformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)

B, F = 2, 3
WIDTHS = dict(block_out_channels=(6, 8), norm_num_groups=2, layers_per_block=1)
TEXT = dict(cross_attention_dim=5, attention_head_dim=2)
AROUND = dict(
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
)
SIMPLE = dict(
    down_block_types=("SimpleCrossAttnDownBlock2D", "DownBlock2D"),
    mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    up_block_types=("UpBlock2D", "SimpleCrossAttnUpBlock2D"),
)


def unet():
    return UNet2DModel(
        **WIDTHS,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


def text_unet(**kwargs):
    return UNet2DConditionModel(in_channels=3, out_channels=3, **WIDTHS, **TEXT, **AROUND, **kwargs)


def simple_unet():
    return UNet2DConditionModel(in_channels=3, out_channels=3, **WIDTHS, **TEXT, **SIMPLE)


def controlnet():
    return ControlNetModel(
        in_channels=3,
        **WIDTHS,
        **TEXT,
        down_block_types=AROUND["down_block_types"],
        conditioning_embedding_out_channels=(4, 6),
    )


def vae(kind=AutoencoderKL):
    return kind(
        **WIDTHS,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )


def dit():
    return DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=3, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=10, norm_num_groups=2,
    )  # fmt: skip


def timestep(repeats=1):
    return torch.tensor([3, 500]).repeat_interleave(repeats)


def text(repeats=1):
    return torch.linspace(-1, 1, B * 4 * 5).sin().view(B, 4, 5).repeat_interleave(repeats, 0)


def labels(repeats=1):
    return torch.tensor([1, 4]).repeat_interleave(repeats)


# the model, what it takes beside the picture, how many convolutions and attentions are inflated
MODELS = {
    "unet": (unet, (timestep,), (20, 4)),
    "text-unet": (text_unet, (timestep, text), (20, 4)),
    "simple-unet": (simple_unet, (timestep, text), (21, 4)),
    "vae": (vae, (), (26, 2)),
    "vq": (lambda: vae(VQModel), (), (26, 2)),
    "dit": (dit, (timestep, labels), (1, 2)),
}
models = pytest.mark.parametrize(("build", "takes", "counts"), MODELS.values(), ids=MODELS)


def video(width=12):
    return torch.randn(B, 3, F, 8, width)


def size(build):
    return 8 if build is dit else 12


def small(model, **kwargs):
    return inflate(model, heads=3, dim_head=2, **kwargs)


@models
def test_images_and_first_videos_are_the_originals_bit_for_bit(build, takes, counts):
    image_model = build().eval()
    original = copy.deepcopy(image_model)
    model = small(image_model)
    assert f"convs={counts[0]}, attentions={counts[1]}, " in repr(model)
    x = video(size(build))
    with torch.no_grad():
        extra = [make() for make in takes]
        expected = original(x[:, :, 0], *extra)
        result = model(x[:, :, 0], *extra)
        assert type(result) is type(expected)
        assert torch.equal(result.sample, expected.sample)
        expected = original(folded(x), *[make(F) for make in takes])
        result = model(x, *extra)
        assert type(result) is type(expected)
        assert torch.equal(result.sample, unfolded(expected.sample, B))
        assert torch.equal(result["sample"], result[0])
        assert torch.equal(model(x, *extra, return_dict=False)[0], result.sample)
    assert model.check(x, *extra) == []
    assert list(deflate(model).state_dict()) == list(original.state_dict())


@models
def test_videos_train_the_temporal_parts_alone(build, takes, counts):
    model = small(build())
    for parameter in spatial_parameters(model):
        parameter.requires_grad_(False)
    model(video(size(build)), *[make() for make in takes]).sample.square().mean().backward()
    assert all(p.grad is not None for p in temporal_parameters(model))
    assert all(p.grad is None for p in spatial_parameters(model))


def moved(model):
    for parameter in temporal_parameters(model):
        torch.nn.init.normal_(parameter, 0, 0.3)
    return model


def test_its_own_checkpointing_changes_no_gradient():
    model = moved(small(text_unet()))
    x, grads = video(), []
    for checkpoints in (False, True):
        if checkpoints:
            model.model.enable_gradient_checkpointing()
        model.zero_grad()
        model(x, timestep(), text()).sample.square().mean().backward()
        grads.append([p.grad for p in model.parameters()])
    for plain, saved in zip(*grads, strict=True):
        torch.testing.assert_close(saved, plain)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # it scripts its own decompositions
def test_tangents_go_through_attention_that_is_fused_elsewhere():
    model = moved(small(text_unet())).double()
    x = video().double()
    direction, context = torch.randn_like(x), text().double()

    def call(x):
        return model(x, timestep(), context).sample

    out, tangent = torch.func.jvp(call, (x,), (direction,))
    expected = (call(x + 1e-6 * direction) - call(x - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close(out, call(x))
    torch.testing.assert_close(tangent, expected, rtol=1e-5, atol=1e-6)


def test_text_is_not_attended_to_over_frames():
    names = small(text_unet()).temporal.names.values()
    assert any(name.endswith("attn1") for name in names)
    assert not any(name.endswith("attn2") for name in names)


def test_a_video_controlnet_steers_a_video_unet():
    """Its residuals are videos, and go into the U-Net as such."""
    image_unet, image_control = text_unet().eval(), controlnet().eval()
    for parameter in image_control.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    hint, x = torch.rand(B, 3, F, 16, 24), video()

    def steered(unet, control, x, hint, timestep, text):
        down, mid = control(x, timestep, text, hint, return_dict=False)
        return unet(
            x, timestep, text, down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample  # fmt: skip

    with torch.no_grad():
        frames = folded(x), folded(hint), timestep(F), text(F)
        expected = steered(image_unet, image_control, *frames)
        unsteered = image_unet(frames[0], *frames[2:]).sample
        result = steered(small(image_unet), small(image_control), x, hint, timestep(), text())
    assert torch.equal(result, unfolded(expected, B))
    assert not torch.allclose(expected, unsteered)


def test_encode_and_decode_as_other_entry_points():
    original = vae().eval()
    model = small(copy.deepcopy(original))
    x = video()
    with torch.no_grad():
        expected = original.encode(folded(x)).latent_dist
        posterior = model.run(model.model.encode, x).latent_dist
        assert type(posterior) is type(expected)
        latents = posterior.mode()
        assert torch.equal(latents, unfolded(expected.mode(), B))
        assert posterior.sample().shape == latents.shape
        assert torch.equal(
            model.run(lambda x: model.model.encode(x).latent_dist.mode(), x), latents
        )
        decoded = model.run(model.model.decode, latents).sample
        assert torch.equal(decoded, unfolded(original.decode(folded(latents)).sample, B))


def test_slicing_goes_frame_by_frame_and_is_refused_by_name():
    model = small(vae().eval())
    model.model.enable_slicing()
    with pytest.raises(ValueError, match=r"`encoder.conv_in` must give .* b\*f = 6"):
        model.run(model.model.encode, video())
    model.model.disable_slicing()
    model.run(model.model.encode, video())


@pytest.mark.skipif(
    Version(torch.__version__).release < (2, 7), reason="torch 2.6 cannot compile dataclasses"
)
def test_it_compiles_to_one_graph():
    torch._dynamo.reset()
    one_level = UNet2DModel(
        block_out_channels=(6,),
        layers_per_block=1,
        norm_num_groups=2,
        attention_head_dim=2,
        down_block_types=("AttnDownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type=None,
    )
    model = moved(small(one_level.eval()))
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")
    with torch.no_grad():
        for x in (video(), video()[:, :, 0]):
            result = compiled(x, timestep())
            torch.testing.assert_close(
                result.sample, model(x, timestep()).sample, rtol=1e-4, atol=1e-4
            )
    torch._dynamo.reset()


def test_a_checkpoint_of_the_image_model_loads():
    model = small(unet())
    model.model.load_state_dict(unet().state_dict(), strict=True)
    assert list(model.model.state_dict()) == list(unet().state_dict())


def test_a_pipeline_takes_the_inflated_model():
    def sampled(unet):
        pipeline = DDIMPipeline(unet, DDIMScheduler())
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        arguments = dict(batch_size=2, num_inference_steps=3, generator=generator)
        return pipeline(**arguments, output_type="np").images

    image_unet = unet().eval()
    image_unet.register_to_config(sample_size=8)
    expected = sampled(image_unet)
    video_unet = inflate(image_unet, dim_head=8, heads=2)
    assert (sampled(video_unet) == expected).all()
    assert video_unet.config is image_unet.config
    with pytest.raises(AttributeError, match="`enable_gradient_checkpointing` is a method"):
        video_unet.enable_gradient_checkpointing()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = video_unet.nothing
