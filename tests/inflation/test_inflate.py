"""Which modules are inflated, that the others are untouched, and what is refused."""

import copy

import pytest
import torch
from torch import nn

import make_a_video_pytorch
from make_a_video_pytorch import InflatedModel, PseudoConv3d, deflate, inflate, temporal_parameters
from make_a_video_pytorch.inflation.temporal import CLIP, InflatedAttention, InflatedConv
from tests.image_models import (
    ATTENTION,
    INFLATED,
    Net,
    PixelAttention,
    TokenAttention,
    inflated,
    parts_of,
)


def names_in(video_model):
    return list(parts_of(video_model))


def snapshot(model):
    """All that `inflate` could change."""
    return {
        name: (type(module), list(vars(module)), list(module._modules), len(module._forward_hooks))
        for name, module in model.named_modules()
    }


def test_convolutions_over_pixels_and_the_attention_that_was_asked_for():
    net = Net()
    model = inflated(net)
    assert isinstance(model, InflatedModel)
    assert model.model is net
    assert names_in(model) == INFLATED
    kinds = {name: type(part) for name, part in parts_of(model).items()}
    assert kinds["pixels"] is kinds["tokens"] is InflatedAttention
    assert kinds["conv_in"] is kinds["down"] is kinds["up"] is kinds["conv_out"] is InflatedConv


@pytest.mark.parametrize(
    ("kwargs", "names"),
    [
        (dict(attention=()), ["conv_in", "down", "up", "conv_out"]),
        (dict(attention=[PixelAttention]), ["conv_in", "down", "pixels", "up", "conv_out"]),
        (dict(attention="auto"), ["conv_in", "down", "up", "conv_out"]),
        (dict(where=lambda name, module: name.startswith("conv")), ["conv_in", "conv_out"]),
        (dict(where=lambda name, module: not isinstance(module, nn.Conv2d)), ["pixels", "tokens"]),
    ],
)
def test_what_is_chosen(kwargs, names):
    assert names_in(inflated(Net(), **kwargs)) == names


def test_where_is_asked_about_what_can_be_inflated_only():
    asked = []
    net = Net()
    inflated(net, where=lambda name, module: asked.append((name, module)) or True)
    assert asked == [(name, net.get_submodule(name)) for name in INFLATED]


def test_auto_knows_a_class_by_its_path():
    class Attention(PixelAttention):
        __module__ = "timm.layers.attention"
        __qualname__ = "Attention"

    net = Net()
    net.pixels = Attention(8)
    assert names_in(inflated(net, attention="auto")) == [n for n in INFLATED if n != "tokens"]


def test_the_sizes_that_were_asked_for():
    model = inflate(Net(), temporal_kernel_size=5, attention=[TokenAttention], heads=3, dim_head=4)
    parts = parts_of(model)
    assert parts["down"].conv.weight.shape == (8, 4, 5, 1)
    assert parts["up"].conv.weight.shape == (6, 6, 5, 1)
    assert parts["tokens"].attn.to_q.weight.shape == (12, 8)
    assert parts["tokens"].attn.heads == 3
    assert {vars(model.model.get_submodule(name))[CLIP] for name in parts} == {model.clip}


def test_the_mode_is_that_of_the_model():
    for training in (False, True):
        model = inflated(Net().train(training))
        assert {module.training for module in model.modules()} == {training}


def test_defaults():
    parts = parts_of(inflate(Net(), attention=ATTENTION))
    assert parts["conv_in"].conv.kernel_size == (3, 1)
    assert parts["pixels"].attn.to_q.weight.shape == (512, 8)


def test_the_model_itself_may_be_a_convolution():
    conv = nn.Conv2d(3, 4, 3)
    model = inflate(conv)
    assert names_in(model) == [""]
    assert model.temporal_state_dict().keys() == {"temporal.conv.weight", "temporal.conv.bias"}
    model.load_temporal_state_dict(model.temporal_state_dict())
    assert model(torch.randn(2, 3, 5, 6, 7)).shape == (2, 4, 5, 4, 5)


def test_any_name_of_a_module_will_do():
    """Parts are held under names of their own, which must not meet."""

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.temporal, self.values = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
            self.model = nn.ModuleDict({"a_b": nn.Conv2d(3, 3, 3, padding=1)})
            self.model_a = nn.ModuleDict({"b": nn.Conv2d(3, 3, 3, padding=1)})
            self.keys = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            convs = (self.temporal, self.values, self.model["a_b"], self.model_a["b"], self.keys)
            for conv in convs:
                x = conv(x)
            return x

    model = inflated(Named(), attention=(), moved=True)
    assert names_in(model) == ["temporal", "model.a_b", "model_a.b", "keys"]
    assert {name.rpartition(".temporal.")[0] for name in model.temporal_state_dict()} == {
        "temporal", "model.a_b", "model_a.b", "keys"
    }  # fmt: skip
    assert model.check(torch.randn(2, 3, 4, 5, 6)) == []


def test_a_module_in_two_places_is_inflated_once():
    conv = nn.Conv2d(3, 3, 3)
    model = inflate(nn.Sequential(conv, conv))
    assert names_in(model) == ["0"]
    assert len(conv._forward_hooks) == 1


def test_parts_are_like_the_module_they_hang_on():
    net = Net().eval()
    net.down.double().train()
    model = inflated(net)
    parts = parts_of(model)
    assert parts["down"].conv.weight.dtype == torch.float64
    assert parts["down"].training
    assert not parts["up"].conv.training
    assert all(p.requires_grad for p in temporal_parameters(model))
    parts = parts_of(inflated(Net().to("meta")))
    assert all(p.is_meta for part in parts.values() for p in part.parameters())


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")  # torch's own, of the old kind
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_older_ways_to_reparametrise_go_on(norm):
    net = norm(nn.Conv2d(3, 4, 3)).eval()
    x = torch.randn(2, 3, 5, 6)
    expected = net(x)
    model = inflate(net)
    assert torch.equal(model(x), expected)
    assert torch.equal(model(x.unsqueeze(2).expand(-1, -1, 4, -1, -1))[:, :, 2], expected)


def test_a_subclass_of_a_convolution_keeps_its_forward():
    class Scaled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    conv = Scaled(3, 4, 3)
    x = torch.randn(2, 3, 5, 6)
    expected = conv(x)
    assert torch.equal(inflate(conv)(x), expected)
    assert type(conv) is Scaled


def test_deflate_gives_the_original_back():
    net = Net()
    before, state, hooked = snapshot(net), copy.deepcopy(net.state_dict()), []
    net.conv_in.register_forward_hook(lambda *args: hooked.append(1) and None)
    model = inflated(net, moved=True)
    assert deflate(model) is net
    assert len(net.conv_in._forward_hooks) == 1  # the user's own stays
    net.conv_in._forward_hooks.clear()
    assert snapshot(net) == before
    assert list(net.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    again = inflated(net)
    assert names_in(again) == INFLATED


class Plain(nn.Module):
    """Attention without a projection."""

    def forward(self, x):
        return x


def with_one_on_meta():
    net = Net()
    net.down.to("meta")
    return net


def with_eight_bits():
    net = Net()
    net.down.to(torch.float8_e4m3fn)
    return net


def with_plain():
    net = Net()
    net.plain = Plain()
    return net


def fails(name, module):
    if name == "conv_out":
        raise RuntimeError("on purpose")
    return True


def compiled(whole):
    net = Net()
    if whole:
        return torch.compile(net, backend="eager")
    net.pixels.compile(backend="eager")
    return net


REFUSED = [
    (Net, dict(temporal_kernel_size=0), ValueError, r"`temporal_kernel_size` \(=0\) must be at le"),
    (Net, dict(heads=0), ValueError, r"`heads` \(=0\) must be at least 1"),
    (Net, dict(dim_head=0), ValueError, r"`dim_head` \(=0\) must be at least 1"),
    (Net, dict(dim_head=3), ValueError, r"`dim_head` \(=3\) must be divisible by 2, for rotary"),
    (Net, dict(attention="all"), TypeError, "attention"),
    (Net, dict(attention=nn.Linear), TypeError, "attention"),
    (Net, dict(attention=["Attention"]), TypeError, "attention"),
    (
        Net,
        dict(attention=(dict,)),
        TypeError,
        r"`attention` \(=\(<class 'dict'>,\)\) must hold subclasses of nn.Module",
    ),
    (Net, dict(where="conv"), TypeError, "where"),
    (
        Net,
        dict(where=lambda name, module: None),
        TypeError,
        "`where` must return a bool, and returned None for `conv_in`",
    ),
    (Net, dict(where=fails), RuntimeError, "on purpose"),
    (lambda: 3, {}, TypeError, "model"),
    (
        Net,
        dict(where=lambda name, module: False),
        ValueError,
        r"`model` \(a Net\) must have a Conv2d with a kernel larger than 1 or attention that",
    ),
    (
        lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.Linear(3, 3)),
        {},
        ValueError,
        r"`model` \(a Sequential\) must have a Conv2d",
    ),
    (
        Net,
        dict(attention=(nn.LSTM, nn.Bilinear)),
        ValueError,
        r"`attention` \(=LSTM, Bilinear\) must name the class of a module of the model",
    ),
    (
        with_one_on_meta,
        {},
        ValueError,
        r"`down` \(a Conv2d\) is offloaded: inflate the model before that",
    ),
    (
        with_eight_bits,
        {},
        ValueError,
        r"`down` \(a Conv2d\) is kept in torch.float8_e4m3fn: inflate the model before that",
    ),
    (
        with_plain,
        dict(attention=(Plain,)),
        ValueError,
        r"`plain` \(a Plain\) must have a Linear, Conv1d or Conv2d that tells the channels it "
        r"gives; leave it out by `where`",
    ),
    (
        lambda: inflated(Net()).model,
        {},
        ValueError,
        "`model` must not be inflated already, as its `conv_in` is",
    ),
    (lambda: inflated(Net()), {}, ValueError, "`model` must not be inflated already, as it is"),
    (
        lambda: nn.Sequential(PseudoConv3d(3)),
        {},
        ValueError,
        "`model` must take images only, and its `0.temporal_conv` acts across frames",
    ),
    (
        lambda: compiled(True),
        {},
        ValueError,
        "`model` must be inflated before it is compiled, as it is",
    ),
    (
        lambda: compiled(False),
        {},
        ValueError,
        "`model` must be inflated before it is compiled, as its `pixels` is",
    ),
]


@pytest.mark.parametrize(("build", "kwargs", "error", "message"), REFUSED)
def test_what_is_refused_is_named_and_the_model_untouched(build, kwargs, error, message):
    model = build()
    before = snapshot(model) if isinstance(model, nn.Module) else None
    with pytest.raises(error, match=message):
        inflate(model, **kwargs)
    assert before is None or snapshot(model) == before


def test_only_what_was_inflated_can_be_deflated():
    with pytest.raises(TypeError, match="video_model"):
        deflate(Net())


def test_names():
    assert {"InflatedModel", "deflate", "inflate", "per_frame"} <= set(make_a_video_pytorch.__all__)
