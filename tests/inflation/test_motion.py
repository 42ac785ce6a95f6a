"""Temporal parts run after what stands at a name, whatever is wrapped around it, and so load."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from make_a_video_pytorch import deflate, temporal_parameters
from make_a_video_pytorch.inflation.temporal import part_of
from tests.image_models import INFLATED, Around, Net, inflated, parts_of
from tests.zoo import as_in_1_0_0


def inputs():
    return torch.randn(2, 3, 3, 5, 7), torch.rand(2)


def wrapped(model, name, wrap):
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, wrap(model.get_submodule(name)))


@pytest.mark.parametrize("name", INFLATED)
@pytest.mark.parametrize("wrap", [Around, checkpoint_wrapper])
def test_what_is_put_around_an_inflated_module_is_inflated(name, wrap):
    model = inflated(Net(), moved=True)
    x = inputs()
    expected = model(*x)
    wrapped(model.model, name, wrap)
    torch.testing.assert_close(model(*x), expected)
    assert part_of(model.model.get_submodule(name)) is parts_of(model)[name]
    assert sum(part_of(module) is not None for module in model.model.modules()) == len(INFLATED)


def test_the_part_reads_the_output_of_the_wrapper():
    model = inflated(Net(), moved=True, where=lambda name, module: name == "conv_in")
    model.model.conv_in.bias.data.zero_()
    x = inputs()
    part = parts_of(model)["conv_in"]
    seen = []
    part.register_forward_pre_hook(lambda part, args: seen.append(args[0]))
    model(*x)
    wrapped(model.model, "conv_in", lambda inner: Around(inner, 2))
    model(*x)
    torch.testing.assert_close(seen[1], 2 * seen[0])
    wrapped(model.model, "conv_in", lambda around: around.inner)
    model(*x)
    assert len(seen) == 3
    assert torch.equal(seen[2], seen[0])


def test_a_wrapper_around_what_holds_an_inflated_module_leaves_it_alone():
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 3)), nn.SiLU())
    model = inflated(net, attention=(), moved=True)
    video = inputs()[0]
    expected = model(video)
    wrapped(model.model, "0", Around)
    assert torch.equal(model(video), expected)
    assert torch.equal(copy.deepcopy(model)(video), expected)
    model.model[0] = nn.Conv2d(3, 3, 3)
    with pytest.raises(ValueError, match=r"`0\.0`, which is inflated, is no more in `model`"):
        model(video)


def test_a_wrapper_in_one_of_two_places_is_an_error():
    conv = nn.Conv2d(3, 3, 3)
    model = inflated(nn.Sequential(conv, conv), attention=(), moved=True)
    video = inputs()[0]
    expected = model(video)
    message = "`0`, `1` are one module, which is inflated: wrap or replace none"
    for place in ("0", "1"):
        wrapped(model.model, place, Around)
        with pytest.raises(ValueError, match=message):
            model(video)
        wrapped(model.model, place, lambda around: around.inner)
        assert torch.equal(model(video), expected)


def test_a_wrapper_around_a_part_runs():
    model = inflated(Net(), moved=True)
    x = inputs()
    expected = model(*x)
    ran = []
    for key in model.temporal:
        wrapped(model.temporal, key, Around)
        model.temporal[key].register_forward_hook(lambda around, args, out: ran.append(around))
    assert torch.equal(model(*x), expected)
    assert len(ran) == len(INFLATED)
    assert len(temporal_parameters(model)) == len(temporal_parameters(inflated(Net())))
    with pytest.raises(ValueError, match=r"`conv_in\.temporal\.conv\.bias` is hidden by"):
        model.temporal_state_dict()


def test_parts_may_be_copies_or_those_of_another():
    """As where averaged weights are put in for a while."""
    model, other = inflated(Net(), moved=True), inflated(Net(), moved=True)
    x = inputs()
    expected, kept = model(*x), model.temporal
    model.temporal = copy.deepcopy(kept)
    assert torch.equal(model(*x), expected)
    model.temporal = other.temporal
    assert not torch.allclose(model(*x), expected, atol=1e-3)
    model.load_temporal_state_dict(kept.motion())
    assert torch.equal(model(*x), expected)


# torch 2.6 says no more of what is raised while it compiles
NOTICED = "call it on a video once before it is compiled|^Observed exception"


def test_layers_that_change_places_and_parts_that_are_wrapped_are_noticed(dynamo):
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    model = inflated(net, attention=(), moved=True)
    video = inputs()[0]
    model(video)
    for change in ("places", "parts"):
        if change == "places":
            net[0], net[1] = net[1], net[0]
        else:
            wrapped(model.temporal, "after_0", lambda part: Around(part, 2))
        dynamo.reset()
        with pytest.raises(Exception, match=NOTICED):
            torch.compile(model, fullgraph=True, backend="eager")(video)
        expected = model(video)
        dynamo.reset()
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(video), expected)


def test_a_wrapper_around_a_block_and_one_around_its_part():
    model = inflated(nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 3))), attention=(), moved=True)
    video = inputs()[0]
    expected = model(video)
    wrapped(model.model, "0", Around)
    wrapped(model.temporal, "after_0_0", Around)
    assert torch.equal(model(video), expected)


def test_hooks_that_were_cleared_are_back():
    model = inflated(Net(), moved=True)
    x = inputs()
    expected = model(*x)
    model.model.down._forward_hooks.clear()
    assert torch.equal(model(*x), expected)


def test_a_child_of_the_model_may_be_called_temporal():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.temporal = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.temporal(x)

    net = nn.Sequential(nn.Conv2d(3, 3, 3), Attention())
    model = inflated(net, attention=[Attention], moved=True)
    other = inflated(copy.deepcopy(deflate(model)), attention=[Attention])
    model = inflated(net, attention=[Attention], moved=True)
    other.load_state_dict(model.state_dict(), strict=True)
    video = inputs()[0]
    assert torch.equal(other(video), model(video))


def test_a_change_is_noticed_before_a_compiler_takes_the_model(dynamo):
    model = inflated(Net(), moved=True)
    model.model.up = nn.Conv2d(8, 6, 3, padding=1)
    wrapped(model.model, "down", Around)
    x = inputs()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with pytest.raises(Exception, match=NOTICED):
        compiled(*x)
    expected = model(*x)
    dynamo.reset()
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(*x), expected)


def test_values_that_are_elsewhere_are_neither_saved_nor_loaded_into():
    model = inflated(Net(), moved=True)
    state = model.temporal_state_dict()
    parts_of(model)["down"].to("meta")
    message = r"`down\.temporal\.conv\.weight` is on meta, as if offloaded: bring it back first"
    with pytest.raises(ValueError, match=message):
        model.temporal_state_dict()
    with pytest.raises(ValueError, match=message):
        model.load_temporal_state_dict(state)


def test_files_of_1_0_0_load():
    model = inflated(Net(), moved=True)
    x = inputs()
    motion = as_in_1_0_0(model.temporal_state_dict())
    assert any(name.endswith("to_kv.weight") for name in motion)
    other = inflated(copy.deepcopy(Net()))
    other.model.load_state_dict(model.model.state_dict())
    other.load_temporal_state_dict(motion)
    assert torch.equal(other(*x), model(*x))
    both = {**model.model.state_dict(), **motion}
    whole = {f"model.{name}": tensor for name, tensor in both.items()}
    another = inflated(Net())
    another.load_state_dict(whole, strict=True)
    assert torch.equal(another(*x), model(*x))
    outer = nn.Sequential(inflated(Net()))
    outer.load_state_dict({f"0.{name}": tensor for name, tensor in whole.items()}, strict=True)
    assert torch.equal(outer[0](*x), model(*x))
