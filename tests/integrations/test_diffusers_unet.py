"""A SpaceTimeUnet as a model of diffusers: saved, loaded, adapted, offloaded, cast."""

import copy
import inspect
import json

import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet
from tests.integrations.small import close, differs, missing, waves
from tests.zoo import CONDITIONS, ONE_STAGE, randomize

pytest.importorskip("diffusers", reason=missing("diffusers"))

from make_a_video_pytorch.integrations.diffusers import SpaceTimeUnetModel, VideoOutput

CPU = torch.device("cpu")
VIDEO = waves(2, 3, 4, 4, 6)
TEXT = waves(2, 5, 6)
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
FURTHER = {"cond": waves(2, 4), "fps": 8, "cond_images": waves(2, 2, 4, 6), "noise_level": 90}


def small(**kwargs) -> SpaceTimeUnetModel:
    return randomize(SpaceTimeUnetModel(**{**ONE_STAGE, **CONDITIONS, **kwargs}), 0.2).eval()


def predicted(model, dtype=torch.float32):
    further = {k: v.to(dtype) if torch.is_tensor(v) else v for k, v in FURTHER.items()}
    with torch.no_grad():
        return model(VIDEO.to(dtype), 5, TEXT.to(dtype), MASK, **further).sample.float()


def test_it_is_the_unet_called_as_diffusers_calls():
    model = small()
    out = model(VIDEO, 5, TEXT, MASK, **FURTHER)
    expected = model.unet(VIDEO, 5, context=TEXT, context_mask=MASK.bool(), **FURTHER)
    assert isinstance(out, VideoOutput)
    assert torch.equal(out.sample, expected)
    assert torch.equal(model(VIDEO, 5, TEXT, MASK, **FURTHER, return_dict=False)[0], expected)
    assert differs(model(VIDEO, 5, TEXT, **FURTHER).sample, expected)
    still = model(VIDEO, 5, TEXT, **FURTHER, enable_time=False).sample
    assert torch.equal(still, model.unet(VIDEO, 5, False, context=TEXT, **FURTHER))


@pytest.mark.parametrize(
    "name", ["timestep_cond", "class_labels", "cross_attention_kwargs", "added_cond_kwargs"]
)
def test_what_it_cannot_take_is_an_error_by_name(name):
    small()(VIDEO, 5, **{name: None})
    with pytest.raises(TypeError, match=f"`{name}` must be left out"):
        small()(VIDEO, 5, **{name: {"scale": 1}})


def test_wrong_calls_are_refused():
    with pytest.raises(
        ValueError, match=r"`encoder_attention_mask` \(with -10000.0\) must be of bools, or hold"
    ):
        small()(VIDEO, 5, TEXT, torch.full((2, 5), -10000.0))
    with pytest.raises(TypeError, match="unexpected keyword argument 'dims'"):
        SpaceTimeUnetModel(dims=4)
    with pytest.raises(TypeError, match=r"`dim` \(='4'\) must be of type int"):
        SpaceTimeUnetModel(dim="4")


def test_its_config_and_its_signature_hold_the_arguments_of_the_unet():
    model = small(sample_size=(4, 6))
    held = {name: model.config[name] for name in model.unet.config}
    assert held == model.unet.config
    assert model.config.sample_size == (4, 6)
    own, unet = (inspect.signature(kind).parameters for kind in (SpaceTimeUnetModel, SpaceTimeUnet))
    assert list(own) == ["sample_size", *unet]
    assert all(own[name].default == unet[name].default for name in unet)
    assert {parameter.kind for parameter in own.values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_from_unet_predicts_the_same_with_weights_of_its_own():
    unet = randomize(SpaceTimeUnet(**ONE_STAGE), 0.2)
    unet.mid_attn.requires_grad_(False)
    model = SpaceTimeUnetModel.from_unet(unet, sample_size=4)
    assert torch.equal(model(VIDEO, 5).sample, unet(VIDEO, 5))
    frozen = [name for name, p in model.unet.named_parameters() if not p.requires_grad]
    assert frozen == [name for name, p in unet.named_parameters() if not p.requires_grad]
    randomize(unet)
    assert differs(model(VIDEO, 5).sample, unet(VIDEO, 5))


@pytest.mark.parametrize("saving", [{}, {"max_shard_size": "20KB"}, {"variant": "fp16"}], ids=str)
@pytest.mark.parametrize("lean", [True, False])
def test_what_is_saved_is_loaded(saving, lean, tmp_path):
    if lean:
        pytest.importorskip("accelerate", reason=missing("accelerate"))
    model = small(sample_size=4)
    model.save_pretrained(tmp_path, **saving)
    shards = len(list(tmp_path.glob("*.safetensors")))
    assert shards > 1 if "max_shard_size" in saving else shards == 1
    loading = {"low_cpu_mem_usage": lean, "variant": saving.get("variant")}
    loaded = SpaceTimeUnetModel.from_pretrained(tmp_path, **loading)
    close(predicted(loaded), predicted(model))
    assert loaded.unet.config == model.unet.config
    assert loaded.config.sample_size == 4


def test_it_is_loaded_in_another_dtype(tmp_path):
    model = small()
    model.save_pretrained(tmp_path)
    loaded = SpaceTimeUnetModel.from_pretrained(tmp_path, torch_dtype=torch.float64)
    assert loaded.dtype == torch.float64
    assert not differs(predicted(loaded, torch.float64), predicted(model))


def test_its_class_is_found_by_auto_class(tmp_path):
    class Own(SpaceTimeUnetModel):
        pass

    Own.register_for_auto_class("AutoModel")
    Own(**ONE_STAGE).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["auto_map"] == {"AutoModel": f"{__name__.rpartition('.')[2]}.Own"}


def test_gradient_checkpointing_is_switched_by_diffusers():
    model = small()
    grads = []
    for switch in (model.disable_gradient_checkpointing, model.enable_gradient_checkpointing):
        switch()
        model.zero_grad()
        model(VIDEO, 5, TEXT, **FURTHER).sample.square().mean().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    assert model.is_gradient_checkpointing
    assert model.unet.gradient_checkpointing
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_weights_may_be_kept_in_another_dtype():
    model = small()
    expected = predicted(model)
    model.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert model.unet.mid_attn.spatial_attn.to_q.weight.dtype == torch.bfloat16
    torch.testing.assert_close(predicted(model), expected, rtol=0.05, atol=0.05 * expected.std())


@pytest.mark.parametrize("kind", ["leaf_level", "block_level"])
def test_weights_may_be_elsewhere_by_groups(kind):
    pytest.importorskip("accelerate", reason=missing("accelerate"))
    model = small()
    expected = predicted(model)
    model.enable_group_offload(CPU, CPU, offload_type=kind, num_blocks_per_group=1)
    close(predicted(model), expected)


def test_an_average_is_kept_saved_and_loaded(tmp_path):
    from diffusers.training_utils import EMAModel

    model = small()
    ema = EMAModel(model.parameters(), decay=0.5, model_cls=SpaceTimeUnetModel,
                   model_config=model.config)  # fmt: skip
    before = copy.deepcopy(model.state_dict())
    randomize(model)
    ema.step(model.parameters())
    ema.save_pretrained(tmp_path)
    loaded = SpaceTimeUnetModel.from_pretrained(tmp_path)
    share = ema.cur_decay_value
    for name, tensor in loaded.state_dict().items():
        expected = share * before[name] + (1 - share) * model.state_dict()[name]
        torch.testing.assert_close(tensor, expected)


LAYERS = {
    "linears": ["to_q", "to_k", "to_v", "to_out"],
    "convolutions": ["spatial_conv", "temporal_conv"],
    "all": "all-linear",
}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_a_lora_is_added_saved_and_loaded(layers, tmp_path):
    peft = pytest.importorskip("peft", reason=missing("peft"))
    model = small()
    plain = predicted(model)
    copied = copy.deepcopy(model)
    model.add_adapter(peft.LoraConfig(r=2, target_modules=layers, init_lora_weights=False))
    adapted = predicted(model)
    assert differs(adapted, plain)
    model.save_lora_adapter(tmp_path)
    copied.load_lora_adapter(tmp_path, prefix=None, weight_name="pytorch_lora_weights.safetensors")
    close(predicted(copied), adapted)
    model.disable_adapters()
    close(predicted(model), plain)
