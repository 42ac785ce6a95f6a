"""Adapters of peft around the layers of a SpaceTimeUnet."""

import copy

import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet, spatial_parameters, temporal_parameters
from tests.integrations.small import UNETS, close, differs, missing, picture

pytest.importorskip("peft", reason=missing("peft"))

from peft import LoraConfig, get_peft_model

TARGETS = {
    "linear": "all-linear",
    "spatial-convs": r".*\.spatial_conv",
    "temporal-convs": r".*\.temporal_conv",
    "attention-and-convs": r".*(spatial_conv|temporal_conv|to_q|to_k|to_v|to_out)",
}
each_kind = pytest.mark.parametrize("kind", UNETS.values(), ids=UNETS)
each_target = pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
dora_too = pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])


def adapted(model, targets, dora=False, **kwargs):
    return get_peft_model(
        model, LoraConfig(target_modules=targets, r=2, use_dora=dora, **kwargs)
    ).eval()


def randomized(adapters):
    for name, parameter in adapters.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            torch.nn.init.normal_(parameter, 0, 0.2)
    return adapters


@torch.no_grad()
@each_kind
@each_target
@dora_too
def test_fresh_adapters_change_nothing(kind, targets, dora):
    model = kind.make()  # random: a layer of zeros has no direction, and DoRA gives NaN for it
    expected, image = kind.call(model), kind.call(model, f=1)
    adapters = adapted(model, targets, dora)
    close(kind.call(adapters), expected)
    close(kind.call(adapters, f=1), image)


@torch.no_grad()
@each_kind
@each_target
@dora_too
def test_merged_or_not_the_output_is_the_same(kind, targets, dora):
    model = kind.make()
    before = kind.call(model)
    adapters = randomized(adapted(model, targets, dora))
    expected, image = kind.call(adapters), kind.call(adapters, f=1)
    assert differs(expected, before)
    adapters.merge_adapter()
    close(kind.call(adapters), expected)
    close(kind.call(adapters, f=1), image)
    adapters.unmerge_adapter()
    close(kind.call(adapters), expected)
    with adapters.disable_adapter():
        close(kind.call(adapters), before)
    merged = adapters.merge_and_unload()
    assert type(merged) is SpaceTimeUnet
    assert not any("lora" in name for name, _ in merged.named_modules())
    close(kind.call(merged), expected)
    other = kind.build().eval()
    other.load_state_dict(merged.state_dict())
    close(kind.call(other), expected)


@torch.no_grad()
@each_kind
def test_unload_gives_the_model_back(kind):
    model = kind.make()
    before, names = kind.call(model), list(model.state_dict())
    unloaded = randomized(adapted(model, TARGETS["attention-and-convs"])).unload()
    assert list(unloaded.state_dict()) == names
    assert torch.equal(kind.call(unloaded), before)


@each_kind
@each_target
@dora_too
def test_what_is_temporal_stays_so_and_images_train_none_of_it(kind, targets, dora):
    adapters = randomized(adapted(kind.make(), targets, dora))
    trainable = {name: p for name, p in adapters.named_parameters() if p.requires_grad}
    marks = (".temporal_conv.", ".temporal_attn.", ".temporal_rel_pos_bias.", "_time.", "_fps_")
    expected = {name for name in trainable if any(mark in name for mark in marks)}
    across_frames = set(temporal_parameters(adapters))
    assert {name for name, p in trainable.items() if p in across_frames} == expected
    assert across_frames.isdisjoint(spatial_parameters(adapters))
    assert bool(expected) == (targets != TARGETS["spatial-convs"])

    kind.call(adapters).square().mean().backward()
    assert all(p.grad.any() for p in trainable.values())
    adapters.zero_grad()
    if expected == trainable.keys():
        assert not kind.call(adapters, f=1).requires_grad
        return
    kind.call(adapters, f=1).square().mean().backward()
    for name, parameter in trainable.items():
        assert (parameter.grad is None) == (name in expected), name


@torch.no_grad()
def test_a_causal_model_with_adapters_sees_no_later_frame():
    kind = UNETS["causal"]
    adapters = randomized(adapted(kind.make(), TARGETS["attention-and-convs"]))
    x = picture(2, 4)
    before = adapters(x, **kind.extra(2))
    x[:, :, 2] += 1
    changed = (adapters(x, **kind.extra(2)) - before).abs().amax((1, 3, 4)) > 1e-5
    assert changed.tolist() == [[False, False, True, True]] * 2


@torch.no_grad()
def test_a_whole_layer_that_is_trained_and_saved_beside_adapters():
    """Its copy stands in its place, and is temporal if it was."""
    kind = UNETS["causal"]
    model = kind.make()
    before = kind.call(model)
    adapters = adapted(
        model, ["to_q"], modules_to_save=["temporal_conv", "temporal_attn", "to_fps_cond"]
    )
    close(kind.call(adapters), before)
    copies = [p for name, p in adapters.named_parameters() if ".modules_to_save." in name]
    assert copies
    assert set(copies) <= set(temporal_parameters(adapters))
    for parameter in copies:
        torch.nn.init.normal_(parameter, 0, 0.2)
    expected = kind.call(adapters)
    assert differs(expected, before)
    close(kind.call(adapters.merge_and_unload()), expected)


@torch.no_grad()
def test_two_adapters_are_switched_and_copied():
    kind = UNETS["compressed"]
    adapters = randomized(adapted(kind.make(), TARGETS["attention-and-convs"]))
    first = kind.call(adapters)
    adapters.add_adapter("second", LoraConfig(target_modules=TARGETS["temporal-convs"], r=3))
    adapters.set_adapter("second")
    randomized(adapters)
    second = kind.call(adapters)
    assert differs(second, first)
    twin = copy.deepcopy(adapters)
    close(kind.call(twin), second)
    adapters.set_adapter("default")
    adapters.delete_adapter("second")
    assert differs(kind.call(adapters), second)
