"""Adapters of peft around the layers of inflated models, before and after `inflate`."""

import copy

import pytest
import torch

from make_a_video_pytorch import InflatedModel, deflate, inflate, temporal_parameters
from tests.integrations.small import IMAGE_MODELS, close, differs, missing, video_model, waves
from tests.zoo import randomize

pytest.importorskip("diffusers", reason=missing("diffusers"))
pytest.importorskip("peft", reason=missing("peft"))

from peft import (
    LoraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)

# Of the image model only. Net's `down` is left out: peft merges no grouped convolution.
SPATIAL = (
    r"(?!(.*\.)?temporal\.)(.*\.)?"
    r"(conv\d?|conv_in|conv_out|conv_shortcut|up|pointwise|to_qkv|to_q|proj)"
)
MOTION = r"(?!after_down\.).*(\.conv|to_q|to_k|to_v|to_out)"
each_kind = pytest.mark.parametrize("kind", IMAGE_MODELS.values(), ids=IMAGE_MODELS)
dora_too = pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])


def randomized(adapters):
    """Adapters of the same shape get the same numbers, wherever they are."""
    with torch.no_grad():
        for name, parameter in adapters.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.copy_(0.2 * waves(*parameter.shape))
    return adapters


def adapted(model, dora=False, targets=SPATIAL):
    config = LoraConfig(target_modules=targets, r=2, use_dora=dora)
    return randomized(get_peft_model(model, config)).eval()


class Expected:
    """What a video model gives whose image model has the adapters merged into it, and without."""

    def __init__(self, kind, dora=False):
        self.image_model = kind.make()
        plain = video_model(copy.deepcopy(self.image_model))
        self.motion = plain.temporal_state_dict()
        self.counts = repr(plain).splitlines()[1]
        self.without = kind.call(plain)
        merged = adapted(copy.deepcopy(self.image_model), dora).merge_and_unload()
        model = video_model(merged, self.motion)
        self.video, self.image = kind.call(model), kind.call(model, f=1)
        assert differs(self.video, self.without)

    def inflated(self, image_model):
        model = video_model(image_model, self.motion)
        assert repr(model).splitlines()[1] == self.counts
        return model


@torch.no_grad()
@each_kind
@dora_too
def test_adapters_before_inflate_give_what_merged_ones_give(kind, dora):
    expected = Expected(kind, dora)
    adapters = adapted(copy.deepcopy(expected.image_model), dora)
    around = expected.inflated(copy.deepcopy(adapters))
    close(kind.call(around), expected.video)
    model = expected.inflated(adapters.base_model.model)
    for change in (lambda: None, adapters.merge_adapter, adapters.unmerge_adapter):
        change()
        close(kind.call(model), expected.video)
        close(kind.call(model, f=1), expected.image)
    model.load_temporal_state_dict(around.temporal_state_dict())
    close(kind.call(model), expected.video)
    adapters.unload()
    close(kind.call(model), expected.without)
    assert list(deflate(model).state_dict()) == list(expected.image_model.state_dict())


@torch.no_grad()
@each_kind
@dora_too
@pytest.mark.parametrize("around", [lambda model: model.model, lambda model: model])
def test_adapters_after_inflate_give_what_merged_ones_give(kind, dora, around):
    expected = Expected(kind, dora)
    model = expected.inflated(copy.deepcopy(expected.image_model))
    adapters = adapted(around(model), dora)
    called = model if around(model) is model.model else adapters
    for change in (lambda: None, adapters.merge_adapter, adapters.unmerge_adapter):
        change()
        close(kind.call(called), expected.video)
        close(kind.call(called, f=1), expected.image)
    assert model.temporal_state_dict().keys() == expected.motion.keys()
    model.load_temporal_state_dict({k: 0 * v for k, v in expected.motion.items()})
    assert differs(kind.call(called), expected.video)
    model.load_temporal_state_dict(expected.motion)
    close(kind.call(called), expected.video)
    twin = copy.deepcopy(adapters).unload()
    if isinstance(twin, InflatedModel):
        close(kind.call(twin), expected.without)
    adapters.merge_and_unload()
    close(kind.call(model), expected.video)
    assert not any("lora" in name for name, _ in model.named_modules())


@torch.no_grad()
def test_adapters_of_diffusers_own_are_enabled_fused_and_removed(tmp_path):
    kind = IMAGE_MODELS["diffusers"]
    expected = Expected(kind)
    config = LoraConfig(target_modules=SPATIAL, r=2)
    before = copy.deepcopy(expected.image_model)
    before.add_adapter(config, "style")
    after = expected.inflated(copy.deepcopy(expected.image_model))
    after.model.add_adapter(config, "style")
    close(kind.call(after), expected.without)
    after.model.save_lora_adapter(tmp_path, "style")
    for model in (expected.inflated(randomized(before)), randomized(after)):
        unet = model.model
        close(kind.call(model), expected.video)
        unet.disable_adapters()
        close(kind.call(model), expected.without)
        unet.enable_adapters()
        unet.fuse_lora()
        close(kind.call(model), expected.video)
        unet.unfuse_lora()
        close(kind.call(model), expected.video)
        assert model.temporal_state_dict().keys() == expected.motion.keys()
        unet.unload_lora()
        close(kind.call(model), expected.without)
    after.model.load_lora_adapter(
        str(tmp_path), prefix=None, adapter_name="style", use_safetensors=True
    )
    close(kind.call(after), expected.without)  # it was saved when it was fresh
    close(kind.call(randomized(after)), expected.video)


@each_kind
@dora_too
def test_motion_adapters_learn_alone_and_are_saved(kind, dora):
    image_model = kind.make()
    model = video_model(copy.deepcopy(image_model)).requires_grad_(False)
    before, image = kind.call(model), kind.call(model, f=1)
    motion = copy.deepcopy(model.temporal_state_dict())
    config = LoraConfig(target_modules=MOTION, r=2, use_dora=dora)
    adapters = get_peft_model(model.temporal, config)
    close(kind.call(model), before)
    learning = [p for p in model.parameters() if p.requires_grad]
    assert set(learning) <= set(temporal_parameters(model))
    assert len(learning) > 2 * len(model.temporal.names)
    assert not kind.call(model, f=1).requires_grad

    optimizer, losses = torch.optim.Adam(learning, lr=0.02), []
    for _ in range(4):
        optimizer.zero_grad()
        losses.append((kind.call(model) - 1).square().mean())
        losses[-1].backward()
        assert all(p.grad is not None for p in learning)
        optimizer.step()
    assert losses[-1] < losses[0]
    assert torch.equal(kind.call(model, f=1), image)
    assert all(torch.equal(t, motion[name]) for name, t in model.temporal_state_dict().items())

    trained = kind.call(model)
    assert differs(trained, before)
    other = video_model(copy.deepcopy(image_model))
    moved = get_peft_model(other.temporal, config)
    assert not set_peft_model_state_dict(moved, get_peft_model_state_dict(adapters)).unexpected_keys
    close(kind.call(other), trained)
    moved.merge_adapter()
    close(kind.call(other), trained)
    moved.unmerge_adapter()
    moved.merge_and_unload()
    close(kind.call(other), trained)
    third = video_model(image_model, other.temporal_state_dict())  # the adapter is in the motion
    close(kind.call(third), trained)


def test_adapters_train_on_videos_and_motion_stays_apart():
    kind = IMAGE_MODELS["diffusers"]
    adapters = adapted(video_model(kind.make()), targets="all-linear")
    trainable = {name: p for name, p in adapters.named_parameters() if p.requires_grad}
    across_frames = set(temporal_parameters(adapters))
    temporal = {name for name in trainable if ".temporal." in name}
    assert temporal
    assert {name for name, p in trainable.items() if p in across_frames} == temporal
    kind.call(adapters).square().mean().backward()
    assert all(p.grad.any() for p in trainable.values())
    adapters.zero_grad()
    kind.call(adapters, f=1).square().mean().backward()
    for name, parameter in trainable.items():
        assert (parameter.grad is None) == (name in temporal), name


@torch.no_grad()
@pytest.mark.parametrize("child", ["model", "base_model", "net"])
@pytest.mark.parametrize("first", [True, False])
def test_a_child_may_be_called_as_peft_calls_its_own(child, first):
    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)
            self.add_module(child, torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1)))

        def forward(self, x):
            return getattr(self, child)(self.conv(x))

    config = LoraConfig(target_modules=r"(.*\.)?(conv|0)", init_lora_weights=False)
    image_model = randomize(Outer(), 0.3)
    if first:
        adapted = get_peft_model(image_model, config)
        video = inflate(adapted)
    else:
        video = inflate(image_model)
        video.model = adapted = get_peft_model(image_model, config)
    assert sorted(video.temporal.names.values()) == sorted(["conv", f"{child}.0"])
    randomize(video.temporal, 0.3)
    x = waves(2, 3, 4, 5, 6)
    expected = video(x)
    adapted.merge_adapter()
    close(video(x), expected)
