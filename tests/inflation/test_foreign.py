"""What is known of the modules of other libraries, without importing them."""

import pytest
import torch
from torch import nn

from make_a_video_pytorch.inflation.foreign import (
    SELF_ATTENTION,
    SEVERAL,
    WRAPPERS,
    channels_out,
    is_known_attention,
    layer_at,
    named_layers,
    where_it_computes,
    without_wrappers,
)


def stand_in(path: str, **attributes) -> nn.Module:
    """A module whose class says that it is at `path`."""
    module, _, name = path.rpartition(".")
    kind = type(name, (nn.Module,), {"__module__": module, "__qualname__": name})
    instance = kind()
    for key, value in attributes.items():
        setattr(instance, key, value)
    return instance


@pytest.mark.parametrize("path", sorted(SELF_ATTENTION))
def test_what_is_in_the_table_is_known_and_so_are_subclasses(path):
    module = stand_in(path)
    assert is_known_attention(module)
    assert is_known_attention(type("Mine", (type(module),), {})())


def test_other_classes_are_not():
    assert not is_known_attention(stand_in("diffusers.models.attention_processor.Attn"))
    assert not is_known_attention(stand_in("my_diffusers.models.attention_processor.Attention"))
    assert not is_known_attention(nn.MultiheadAttention(4, 2))


def test_cross_attention_is_not_unless_pixels_see_each_other_beside_the_text():
    path = "diffusers.models.attention_processor.Attention"
    assert is_known_attention(stand_in(path, is_cross_attention=False, added_kv_proj_dim=None))
    assert not is_known_attention(stand_in(path, is_cross_attention=True, added_kv_proj_dim=None))
    assert is_known_attention(stand_in(path, is_cross_attention=True, added_kv_proj_dim=8))


def test_channels_are_those_of_the_last_projection():
    norm = nn.LayerNorm(5)
    assert channels_out(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), norm)) == 5
    assert channels_out(nn.Sequential(nn.Linear(3, 4), nn.Conv1d(4, 6, 1))) == 6
    assert channels_out(nn.Sequential(nn.Linear(3, 4), nn.Conv2d(4, 7, 1))) == 7
    assert channels_out(nn.MultiheadAttention(8, 2)) == 8
    assert channels_out(nn.Linear(3, 9)) == 9
    assert channels_out(norm) is None


def wrapper(path, child, inner):
    """A module of the class at `path` that holds `inner` as its `child`."""
    around = stand_in(path)
    around.add_module(child, inner)
    return around


def test_layers_are_listed_and_found_as_if_nothing_were_around_them():
    conv, block = nn.Conv2d(3, 4, 3), nn.Module()
    adapted = wrapper("peft.tuners.tuners_utils.BaseTunerLayer", "base_layer", conv)
    adapted.lora_A = nn.ModuleDict({"default": nn.Conv2d(3, 2, 3)})
    block.conv = adapted
    for path, child in WRAPPERS.items():
        model = nn.Sequential(wrapper(path, child, block))
        if path == SEVERAL:  # it passes on what the copy has that runs
            model[0].conv = adapted
        outer = wrapper("peft.peft_model.PeftModel", "base_model", model)
        assert [name for name, _, _ in named_layers(outer)] == ["", "0", "0.conv"]
        _, path_to, module = list(named_layers(outer))[-1]
        assert module is conv
        assert path_to == [outer, model[0], adapted]
        assert layer_at(outer, "0.conv") is adapted
        assert layer_at(outer, "") is outer
        assert layer_at(outer, "0.other") is None
        assert layer_at(outer, "1.conv") is None


def test_a_child_may_have_the_name_by_which_a_wrapper_holds_another():
    """Wrappers of peft pass attributes on, and `model` is a usual name."""

    class Passing(nn.Module):
        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(next(iter(self._modules.values())), name)

    for child in ("model", "base_model", "net"):
        inner, outer = nn.Module(), nn.Module()
        inner.conv, outer.conv = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        outer.add_module(child, inner)
        wrapped = outer
        for path in ("peft.tuners.tuners_utils.BaseTuner", "peft.peft_model.PeftModel"):
            module, _, name = path.rpartition(".")
            kind = type(name, (Passing,), {"__module__": module, "__qualname__": name})
            around = kind()
            around._modules[WRAPPERS[path]] = wrapped
            wrapped = around
        assert layer_at(wrapped, f"{child}.conv") is inner.conv
        assert layer_at(wrapped, "conv") is outer.conv
        assert layer_at(wrapped, child) is inner


def test_names_lose_what_wrappers_add():
    assert without_wrappers("conv.base_layer.weight") == "conv.weight"
    assert without_wrappers("_checkpoint_wrapped_module.attn.to_q.weight") == "attn.to_q.weight"


class Hook:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def test_hooks_say_where_a_module_computes():
    outer, inner = nn.Module(), nn.Module()
    assert where_it_computes([outer, inner]) == (None, None)
    outer._hf_hook = Hook(execution_device="meta")
    assert where_it_computes([outer, inner]) == (torch.device("meta"), None)
    inner._hf_hook = Hook(hooks=[Hook(), Hook(execution_device=torch.device("cpu"))])
    assert where_it_computes([outer, inner]) == (torch.device("cpu"), None)
    casting = Hook(compute_dtype=torch.bfloat16)
    inner._diffusers_hook = Hook(hooks={"layerwise_casting": casting})
    assert where_it_computes([outer, inner]) == (torch.device("cpu"), torch.bfloat16)
    outer = nn.Module()
    offloading = Hook(group=Hook(onload_device=torch.device("meta")))
    outer._diffusers_hook = Hook(hooks={"group_offloading": offloading})
    assert where_it_computes([outer, nn.Module()]) == (torch.device("meta"), None)


@pytest.mark.parametrize("name", ["to_out", "proj_out", "out_proj", "proj"])
def test_a_projection_with_a_usual_name_comes_first(name):
    module = nn.Module()
    setattr(module, name, nn.Sequential(nn.Linear(3, 4), nn.Dropout()))
    module.last = nn.Linear(4, 5)
    assert channels_out(module) == 4
    setattr(module, name, None)
    assert channels_out(module) == 5


def test_a_module_in_two_places_is_one_layer():
    shared = nn.Conv2d(3, 3, 3)
    model = nn.Sequential(shared, nn.Sequential(nn.SiLU(), shared))
    assert [name for name, _, module in named_layers(model) if module is shared] == ["0"]
