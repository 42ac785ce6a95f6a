"""Attention of other libraries is known without importing them."""

import pytest
from torch import nn

from make_a_video_pytorch.foreign import SELF_ATTENTION, channels_out, is_known_attention


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


@pytest.mark.parametrize("name", ["to_out", "proj_out", "out_proj", "proj"])
def test_a_projection_with_a_usual_name_comes_first(name):
    module = nn.Module()
    setattr(module, name, nn.Sequential(nn.Linear(3, 4), nn.Dropout()))
    module.last = nn.Linear(4, 5)
    assert channels_out(module) == 4
    setattr(module, name, None)
    assert channels_out(module) == 5
