"""An image model as a video model: what it gives, how it learns, what it leaves behind."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from make_a_video_pytorch import (
    InflatedModel,
    deflate,
    per_frame,
    spatial_parameters,
    temporal_parameters,
)
from make_a_video_pytorch.inflation.clip import Clip
from make_a_video_pytorch.inflation.temporal import CLIP, part_of
from tests.image_models import (
    ATTENTION,
    FORMS,
    INFLATED,
    Net,
    Noise,
    Result,
    folded,
    inflated,
    parts_of,
    sample_of,
    unfolded,
)

B, F = 2, 3
SIZE = (5, 7)


def image(b=B, **kwargs):
    return torch.randn(b, 3, *SIZE, **kwargs)


def video(b=B, f=F, **kwargs):
    return torch.randn(b, 3, f, *SIZE, **kwargs)


def timestep(b=B):
    return torch.linspace(0.1, 0.9, b)


@pytest.fixture
def net():
    return Net()


@pytest.fixture
def original(net):
    return copy.deepcopy(net)


def grads_of(model, *losses):
    """Gradients of the sum of the losses, a new backward pass for all of them."""
    model.zero_grad()
    sum(loss() for loss in losses).backward()
    return {name: p.grad for name, p in model.named_parameters()}


# What it gives


@pytest.mark.parametrize("form", FORMS)
def test_images_are_the_originals_bit_for_bit(form):
    net = Net(form)
    x, t = image(), timestep()
    expected = net(x, t)
    result = inflated(net, moved=True)(x, t)
    assert type(result) is type(expected)
    assert torch.equal(sample_of(result), sample_of(expected))


@pytest.mark.parametrize("form", FORMS)
def test_a_video_is_at_first_the_originals_frames_bit_for_bit(form):
    net = Net(form)
    x, t = video(), timestep()
    expected = net(folded(x), t.repeat_interleave(F))
    result = inflated(net)(x, t)
    assert type(result) is type(expected)
    assert torch.equal(sample_of(result), unfolded(sample_of(expected), B))
    assert sample_of(result).is_contiguous()


def test_what_lies_beside_the_picture_is_unfolded_too():
    x, t = video(), timestep()
    picture, number, pooled = inflated(Net("tuple"))(x, t)
    assert number == 3
    torch.testing.assert_close(pooled, picture.mean((3, 4)).transpose(1, 2))
    result = inflated(Net("dict"))(x, t)
    assert result["inner"]["pooled"].shape == (B, F, 5)
    result = inflated(Net("dataclass"))(x, t)
    assert result.note == "a dataclass"
    assert result.norm.shape == (B, F)
    assert inflated(Net("named"))(x, t).note == "of frames"
    noise = inflated(Net("object"))(x, t)
    assert noise.name == "noise"
    assert noise.sample().shape == (B, 5, F, *SIZE)


def test_a_trained_one_sees_other_frames_of_the_same_video_only(net):
    model = inflated(net, moved=True)
    x, t = video(), timestep()
    changed = x.clone()
    changed[0, :, 1] += 1
    difference = (model(changed, t) - model(x, t)).abs().amax((1, 3, 4))
    assert (difference[0] > 1e-4).all()
    assert (difference[1] == 0).all()


@pytest.mark.parametrize("name", INFLATED)
def test_every_part_takes_part(net, name):
    model = inflated(net, where=lambda here, module: here == name, moved=True)
    x, t = video(), timestep()
    assert not torch.allclose(model(x, t), inflated(Net(), where=lambda *_: True)(x, t))
    flipped = model(x.flip(2), t).flip(2)
    assert not torch.allclose(model(x, t), flipped)  # the order of frames is seen


def test_a_video_of_one_frame_is_an_image(net):
    model = inflated(net, moved=True)
    x, t = image(), timestep()
    assert torch.equal(model(x.unsqueeze(2), t), model(x, t).unsqueeze(2))


@pytest.mark.parametrize("moved", [True, False])
def test_no_samples_are_fine(net, moved):
    model = inflated(net, moved=moved)
    assert model(video(b=0), timestep(0)).shape == (0, 5, F, *SIZE)
    assert model(image(b=0), timestep(0)).shape == (0, 5, *SIZE)
    model(video(b=0), timestep(0)).sum().backward()


@pytest.mark.parametrize("b", [1, 2])
@pytest.mark.parametrize("f", [2, 3])
def test_one_sample_and_other_lengths(net, original, b, f):
    x, t = video(b, f), timestep(b)
    expected = unfolded(original(folded(x), t.repeat_interleave(f)), b)
    assert torch.equal(inflated(net)(x, t), expected)


# Conditioning


def test_conditioning_of_a_sample_is_for_all_its_frames(net, original):
    x, t, context, low_res = video(), timestep(), torch.randn(B, 6, 4), image()
    gain = torch.randn(B, 3)
    expected = original(
        folded(x),
        t.repeat_interleave(F),
        context=context.repeat_interleave(F, 0),
        low_res=low_res.repeat_interleave(F, 0),
        given={"gain": [gain.repeat_interleave(F, 0)]},
    )
    result = inflated(net)(x, t, context=context, low_res=low_res, given={"gain": [gain]})
    assert torch.equal(result, unfolded(expected, B))


def test_conditioning_of_a_frame_is_folded(net, original):
    x, t, low_res, gain = video(), torch.rand(B, F), video(), torch.randn(B, F, 3)
    expected = original(
        folded(x), t.flatten(), low_res=folded(low_res), given={"gain": (gain.flatten(0, 1),)}
    )
    model = inflated(net)
    given = {"gain": (per_frame(gain),)}
    result = model(x, timestep=per_frame(t), low_res=low_res, given=given)
    assert torch.equal(result, unfolded(expected, B))
    rows = {"gain": (gain.flatten(0, 1),)}  # what has a row for each frame stays as it is
    assert torch.equal(model(x, t.flatten(), low_res=low_res, given=rows), result)


def test_numbers_and_scalars_are_left_alone(net, original):
    x = video()
    for t in (0.5, torch.tensor(0.5), torch.tensor([0.5])):
        expected = unfolded(original(folded(x), t), B)
        assert torch.equal(inflated(copy.deepcopy(net))(x, t), expected)


def test_other_entry_points(net, original):
    model = inflated(net)
    x = video()
    result, expected = model.run(net.features, x), original.features(folded(x))
    for key, value in result.items():
        assert torch.equal(value, unfolded(expected[key], B))
    low = model.run(lambda x: net.features(x)["low"] + 1, x=x)
    assert torch.equal(low, result["low"] + 1)
    assert torch.equal(model.run(net.conv_in, x[:, :, 0]), net.conv_in(x[:, :, 0]))
    assert model.run(lambda: 3) == 3


def test_an_argument_may_have_any_name():
    class Taking(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)

        def forward(self, function, args, kwargs=None, model=None):
            return self.conv(function + args)

    x = video()
    taking = Taking()
    result = inflated(taking, attention=())(function=x, args=x, kwargs=x, model=x)
    assert torch.equal(result, unfolded(taking(folded(x), folded(x)), B))


# Learning


def test_a_video_trains_every_temporal_parameter_and_an_image_none(net):
    model = inflated(net)
    model(image(), timestep()).square().mean().backward()
    temporal = temporal_parameters(model)
    assert all(p.grad is None for p in temporal)
    model(video(), timestep()).square().mean().backward()
    assert all(p.grad is not None for p in temporal)
    hidden = {p for m in model.modules() if hasattr(m, "to_q") for p in m.parameters()}
    hidden -= {p for m in model.modules() if hasattr(m, "to_q") for p in m.to_out.parameters()}
    for p in temporal:  # a zero projection hides what is before it
        assert p.grad.any() == (p not in hidden)
    torch.optim.SGD(temporal, 0.1).step()
    model(video(), timestep()).square().mean().backward()
    assert all(p.grad.any() for p in temporal)


def test_parameters_are_either_temporal_or_the_originals(net, original):
    model = inflated(net)
    spatial = spatial_parameters(model)
    temporal = temporal_parameters(model)
    assert len(spatial) + len(temporal) == len(list(model.parameters()))
    assert len(spatial) == len(list(original.parameters()))
    assert [id(p) for p in spatial] == [id(p) for p in deflate(model).parameters()]


@pytest.mark.parametrize("reentrant", [None, True, False])
def test_frozen_spatial_parameters_stay_and_the_temporal_ones_learn(reentrant):
    model = inflated(Net(reentrant=reentrant), moved=True)
    for parameter in spatial_parameters(model):
        parameter.requires_grad_(False)
    model(video(), timestep()).square().mean().backward()
    assert all(p.grad is None for p in spatial_parameters(model))
    assert all(p.grad.any() for p in temporal_parameters(model))


def test_a_video_model_learns_motion_and_keeps_its_images(net):
    x, t = image(), timestep()
    expected = net(x, t)
    model = inflated(net)
    clip, target = video(), torch.randn(B, 5, F, *SIZE)
    optimizer = torch.optim.Adam(temporal_parameters(model), 1e-2)
    losses = []
    for _ in range(20):
        loss = (model(clip, t) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    assert torch.equal(model(x, t), expected)


# Activation checkpointing


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kinds", ["v", "vi", "iv", "vwi", "wv"])
def test_checkpointing_changes_no_gradient(reentrant, kinds):
    """Videos, longer videos and images, several in one backward pass."""
    plain = inflated(Net(), moved=True)
    saving = inflated(Net(reentrant=reentrant))
    saving.load_state_dict(plain.state_dict())
    inputs = {"v": video(), "w": video(b=3, f=2), "i": image(b=6)}

    def losses(model):
        for x in (inputs[kind] for kind in kinds):
            yield lambda x=x: model(x, timestep(x.shape[0])).square().mean()

    expected, got = grads_of(plain, *losses(plain)), grads_of(saving, *losses(saving))
    for name, grad in expected.items():
        torch.testing.assert_close(got[name], grad, msg=lambda m, name=name: f"{name}: {m}")
    assert saving.clip.current() is None


@pytest.mark.parametrize("form", FORMS)
def test_checkpointing_in_every_form_of_result(form):
    model = inflated(Net(form, reentrant=True), moved=True)
    sample_of(model(video(), timestep())).square().mean().backward()
    assert all(p.grad.any() for p in temporal_parameters(model))


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("inner", [None, True, False])
def test_the_whole_model_in_a_checkpoint(outer, inner):
    plain = inflated(Net(), moved=True)
    saving = inflated(Net(reentrant=inner))
    saving.load_state_dict(plain.state_dict())
    x, t = video(requires_grad=True), timestep()
    expected = grads_of(plain, lambda: plain(x, t).square().mean())
    got = grads_of(saving, lambda: checkpoint(saving, x, t, use_reentrant=outer).square().mean())
    for name, grad in expected.items():
        torch.testing.assert_close(got[name], grad)
    assert saving.clip.current() is None


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_backward_pass_that_raises_leaves_no_video(reentrant):
    model = inflated(Net(reentrant=reentrant), moved=True)
    six = image(6)  # as many rows as the video has: if it stayed, nothing would raise
    expected = model.model(six, timestep(6))

    def stop(grad):
        raise RuntimeError("on purpose")

    result = model(video(), timestep())
    parameter = parts_of(model)["conv_in"].conv.weight
    hook = parameter.register_hook(stop)
    with pytest.raises(RuntimeError, match="on purpose"):
        result.square().mean().backward()
    hook.remove()
    assert torch.equal(model.model(six, timestep(6)), expected)
    assert model.clip.sizes is None


# State


def test_an_exception_leaves_no_video(net):
    model = inflated(net, moved=True)
    six, t = image(6), timestep(6)
    expected = net(six, t)

    def fail(module, args):
        raise RuntimeError("on purpose")

    hook = net.conv_out.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        model(video(), timestep())
    hook.remove()
    assert model.clip.sizes is None
    assert torch.equal(net(six, t), expected)


def test_copies_are_the_model_and_apart_from_it(net):
    net.up = nn.Conv2d(8, 6, 3, padding=1)  # torch does not pickle a weight norm
    model = inflated(net, moved=True)
    x, t = video(), timestep()
    expected = model(x, t)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ):
        assert torch.equal(other(x, t), expected)
        assert torch.equal(model(x, t), expected)
        layers = [other.model.get_submodule(name) for name in other.temporal.names.values()]
        assert {id(vars(layer)[CLIP]) for layer in layers} == {id(other.clip)}
        assert other.clip is not model.clip
        image_model = deflate(other)
        assert not any(part_of(module) for module in image_model.modules())
        assert not any(part._forward_hooks for part in image_model.modules())


def test_names_of_the_original_stay_in_the_state_dict(net, original):
    model = inflated(net, moved=True)
    before = original.state_dict()
    assert list(model.model.state_dict()) == list(before)
    other = inflated(Net())
    other.model.load_state_dict(before, strict=True)
    x, t = image(), timestep()
    assert torch.equal(other(x, t), original(x, t))
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other(clip := video(), t), model(clip, t))


def test_motion_goes_from_one_fine_tuning_to_another(net, tmp_path):
    model = inflated(net, moved=True)
    state = model.temporal_state_dict()
    assert len(state) == len(temporal_parameters(model))
    assert all(".temporal." in name for name in state)
    torch.save(state, tmp_path / "motion.pt")
    fine_tuned = Net()
    image_state = copy.deepcopy(fine_tuned.state_dict())
    other = inflated(fine_tuned)
    other.load_temporal_state_dict(torch.load(tmp_path / "motion.pt"))
    for name, tensor in other.temporal_state_dict().items():
        assert torch.equal(tensor, state[name])
    for name, tensor in image_state.items():
        assert torch.equal(fine_tuned.state_dict()[name], tensor)


def test_motion_in_a_safetensors_file(net, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    model, path = inflated(net, moved=True), tmp_path / "motion.safetensors"
    safetensors.save_file(model.temporal_state_dict(), path)
    other = inflated(Net())
    other.load_temporal_state_dict(safetensors.load_file(path))
    for ours, theirs in zip(temporal_parameters(model), temporal_parameters(other), strict=True):
        assert torch.equal(ours, theirs)


def test_what_is_wrong_with_a_motion_file_is_said_and_nothing_loaded(net):
    model = inflated(net)
    before = copy.deepcopy(model.state_dict())
    state = {name: torch.ones_like(t) for name, t in model.temporal_state_dict().items()}
    name = "down.temporal.conv.bias"
    lacking = {n: t for n, t in state.items() if n != name}
    for wrong, message in (
        (lacking, f"`state` lacks `{name}`"),
        ({**state, "mid.temporal.x": torch.ones(1)}, "`state` has the unknown `mid.temporal.x`"),
        (
            {**lacking, "other": torch.ones(1)},
            f"`state` has the unknown `other` and lacks `{name}`; see `temporal_state_dict`",
        ),
        (
            {**state, name: torch.ones(9)},
            rf"`{name}` in `state` \(shape \(9,\)\) must be \(8,\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            model.load_temporal_state_dict(wrong)
    for wrong in ([], {name: 3}):
        with pytest.raises(TypeError, match="state"):
            model.load_temporal_state_dict(wrong)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])


def test_it_is_made_of_a_module():
    with pytest.raises(TypeError, match="model"):
        InflatedModel(3, [], Clip())


# What it says


def test_check_names_what_a_call_does_not_reach(net):
    net.spare = nn.Conv2d(3, 3, 3)
    net.idle = ATTENTION[0](4)
    model = inflated(net).train()
    net.pixels.eval()
    hooks = sum(len(m._forward_pre_hooks) for m in model.modules())
    assert model.check(video(), timestep()) == ["spare", "idle"]
    assert model.check(x=video(), timestep=0.5) == ["spare", "idle"]
    assert net.training
    assert not net.pixels.training
    assert sum(len(m._forward_pre_hooks) for m in model.modules()) == hooks
    with pytest.raises(TypeError):
        model.check(video())
    assert net.training
    for x in (image(), video(f=1)):
        with pytest.raises(ValueError, match=r"`args` must hold a video \(b c f h w\) of 2 frames"):
            model.check(x, timestep())


def test_check_changes_nothing():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model = inflated(net, attention=())
    before = copy.deepcopy(model.state_dict())
    assert model.check(video()) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_prints_what_was_inflated(net):
    model = inflated(net)
    added = sum(p.numel() for p in temporal_parameters(model))
    assert model.extra_repr() == f"convs=4, attentions=2, temporal_parameters={added:,}"
    text = repr(model)
    assert model.extra_repr() in text
    assert "TemporalConv(8, 8, kernel_size=(3, 1), stride=(1, 1), padding=(1, 0), groups=2)" in text


# Precision and memory formats


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    net = Net().to(dtype)
    original, model = copy.deepcopy(net), inflated(net)
    assert {p.dtype for p in model.parameters()} == {dtype}
    x, t = video(dtype=dtype), timestep().to(dtype)
    result = model(x, t)
    assert result.dtype == dtype
    assert torch.equal(result, unfolded(original(folded(x), t.repeat_interleave(F)), B))
    result.square().mean().backward()


def test_autocast(net, original):
    model = inflated(net)
    x, t = video(), timestep()
    with torch.autocast("cpu", torch.bfloat16):
        expected = original(folded(x), t.repeat_interleave(F))
        result = model(x, t)
    assert result.dtype == expected.dtype == torch.bfloat16
    assert torch.equal(result, unfolded(expected, B))
    result.float().square().mean().backward()
    assert all(p.grad is not None for p in temporal_parameters(model))


@pytest.mark.parametrize("b", [1, 2])
@pytest.mark.parametrize("moved", [True, False])
def test_channels_last_stays(net, b, moved):
    model = inflated(net, moved=moved)
    x, t = video(b), timestep(b)
    expected = model(x, t)
    formats = []
    for name in ("conv_in", "conv_out"):  # after the hook of the temporal part
        net.get_submodule(name).register_forward_hook(
            lambda module, args, out: formats.append(
                out.is_contiguous(memory_format=torch.channels_last)
            )
        )
    model.to(memory_format=torch.channels_last)
    result = model(x.contiguous(memory_format=torch.channels_last_3d), t)
    assert result.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(result, expected)
    assert formats == [True, True]


def test_every_output_has_the_strides_it_had(net, original):
    model = inflated(net, moved=True)
    strides = {net: [], original: []}
    for holder in (net, original):
        for name in ("conv_in", "down", "pixels", "up", "conv_out"):
            holder.get_submodule(name).register_forward_hook(
                lambda module, args, out, holder=holder: strides[holder].append(out.stride())
            )
    x, t = video(), timestep()
    assert model(x, t).is_contiguous()
    original(folded(x), t.repeat_interleave(F))
    assert strides[net] == strides[original]


def test_a_repeated_picture_keeps_its_memory_format():
    seen = []

    class Look(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)

        def forward(self, x, low_res):
            seen.append(low_res.is_contiguous(memory_format=torch.channels_last))
            return self.conv(x + low_res)

    model = inflated(Look(), attention=())
    model(video(), image().contiguous(memory_format=torch.channels_last))
    model(video(), image())
    assert seen == [True, False]


# Errors


def test_videos_that_disagree(net):
    model = inflated(net)
    message = (
        r"`low_res` \(shape \(2, 3, 4, 5, 7\)\) must be a video \(b c f h w\) with b = 2 and "
        r"f = 3, as `args\[0\]`"
    )
    with pytest.raises(ValueError, match=message):
        model(video(), timestep(), low_res=video(f=4))
    with pytest.raises(ValueError, match=r"`args\[0\]` \(shape .*\) must have frames"):
        model(video(f=0), timestep())


def test_marked_tensors_that_disagree(net):
    model = inflated(net)
    message = (
        r"`timestep` \(shape \(2, 4\)\), marked `per_frame`, must be \(b, f, ...\) with b = 2 and "
        r"f = 3, as `x`"
    )
    with pytest.raises(ValueError, match=message):
        model(x=video(), timestep=per_frame(torch.rand(2, 4)))
    message = r"`args\[1\]` is marked `per_frame`, which needs a video \(b c f h w\)"
    with pytest.raises(ValueError, match=message):
        model(image(), per_frame(torch.rand(2, 3)))


UNMARKED = r"must be marked by `per_frame` if it has an entry for each of the 3 frames, \(b f ...\)"


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        (dict(timestep=torch.rand(2, 3)), r"`timestep` \(shape \(2, 3\)\)"),
        (dict(timestep=torch.ones(2, 3, dtype=torch.long)), r"`timestep` \(shape \(2, 3\)\)"),
        (
            dict(timestep=0.5, context=torch.randn(2, 3, 5, 4)),
            r"`context` \(shape \(2, 3, 5, 4\)\)",
        ),
        (
            dict(timestep=0.5, context=torch.randn(2, 3, 3, 4, 4)),
            r"`context` \(shape \(2, 3, 3, 4, 4\)\)",
        ),
        (
            dict(timestep=0.5, given={"gain": [torch.randn(2, 3, 6)]}),
            r"`given\['gain'\]\[0\]` \(shape \(2, 3, 6\)\)",
        ),
    ],
)
def test_an_argument_for_each_frame_that_is_not_marked(net, kwargs, named):
    model = inflated(net)
    with pytest.raises(ValueError, match=f"; {named} {UNMARKED}$") as raised:
        model(video(), **kwargs)
    cause = raised.value.__cause__
    assert type(cause) is RuntimeError
    assert str(raised.value).startswith(f"RuntimeError: {cause}; ")


def test_a_video_in_another_layout(net):
    model = inflated(net)
    message = (
        r"^RuntimeError: .* expected input\[6, 4, 5, 7\] to have 3 .*; `args\[0\]` \(shape "
        r"\(2, 4, 3, 5, 7\)\) was taken for a video \(b c f h w\), 3 frames of 4 channels$"
    )
    with pytest.raises(ValueError, match=message):
        model(video(f=4).transpose(1, 2), timestep())
    message = (
        r"`timestep` \(shape \(2, 4\)\), marked `per_frame`, must be \(b, f, ...\) with b = 2 and "
        r"f = 3, as `x` \(shape \(2, 4, 3, 5, 7\)\), a video \(b c f h w\)"
    )
    with pytest.raises(ValueError, match=message):
        model(x=video(f=4).transpose(1, 2), timestep=per_frame(torch.rand(2, 4)))
    message = (
        r"`low_res` \(shape \(2, 4, 3, 5, 7\)\) must be a video \(b c f h w\) with b = 2 and f = "
        r"4, as `args\[0\]` \(shape \(2, 3, 4, 5, 7\)\), or \(b f ...\) and marked by `per_frame`"
    )
    with pytest.raises(ValueError, match=message):
        model(video(f=4), timestep(), low_res=video(f=4).transpose(1, 2))


class Stop(RuntimeError):
    """What a hook leaves by, once it has what it wants."""


ERRORS = [
    Stop("of this shape"),
    RuntimeError(""),
    AssertionError(),
    RuntimeError("the channel was closed"),
    ValueError("`dimension_order` must be bchw"),
    RuntimeError("on purpose"),
    RuntimeError("Expected all tensors to be on the same device, cuda:0 and cpu!"),
    RuntimeError("mat1 and mat2 must have the same dtype, but got Double and Float"),
    ValueError("`mode` (=3) must be 4"),
    TypeError("a shape"),
    KeyError("size"),
    NotImplementedError("of this shape"),
    torch.OutOfMemoryError("max_split_size_mb"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_error_that_is_not_about_sizes_passes_through(net, error):
    def fail(x, embedding):
        raise error

    with pytest.raises(type(error)) as raised:
        inflated(net).run(fail, video(), torch.rand(2, 3))
    assert raised.value is error
    assert error.__cause__ is None


def test_an_error_of_sizes_that_no_argument_explains_passes_through(net):
    model = inflated(net)
    with pytest.raises(RuntimeError, match="size of tensor"):
        model(video(f=4), timestep(), low_res=torch.randn(2, 3, 2, 2))
    with pytest.raises(RuntimeError, match="size of tensor"):
        model(video(f=4), timestep(), low_res=torch.randn(2, 3, 4, 2, 2))
    with pytest.raises(RuntimeError, match="expected input"):
        model(torch.randn(2, 4, *SIZE), torch.rand(2, 4))
    with pytest.raises(RuntimeError, match="expand"):
        model(video(f=1), torch.rand(2, 1))


def test_an_embedding_as_wide_as_there_are_frames_is_taken(net):
    model = inflated(net, moved=True)
    for context in (torch.randn(2, 3, 4), per_frame(torch.randn(2, 3, 5, 4))):
        assert model(video(), timestep(), context=context).shape == (2, 5, 3, *SIZE)


def windowed(x):
    """Windows in the batch, as in Swin."""
    return torch.cat(x.split(1, dim=-1))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda net, x: net.conv_in(windowed(x)),
            r"`conv_in` must give \(b\*f c h w\) or \(b\*f n c\) with b\*f = 6 to be inflated, and "
            r"gave \(42, 6, 5, 1\); leave it out by `where`",
        ),
        (
            lambda net, x: net.tokens(1.0, tokens=torch.randn(1, 6, 8)),
            r"`tokens` must give .* b\*f = 6 .* gave \(1, 6, 8\)",
        ),
    ],
)
def test_outputs_that_cannot_be_unfolded(net, function, message):
    model = inflated(net)
    with pytest.raises(ValueError, match=message):
        model.run(lambda x: function(net, x), video())


def test_channels_in_another_place():
    class Last(ATTENTION[0]):
        def forward(self, x):
            return super().forward(x).movedim(1, -1)

    class Rows(ATTENTION[0]):
        def forward(self, x):
            return Result(super().forward(x))

    model = inflated(nn.Sequential(Last(3)))
    message = r"`0` must give 3 channels, in .* gave \(6, 5, 7, 3\); leave it out by `where`"
    with pytest.raises(ValueError, match=message):
        model(video())
    assert model(image()).shape == (B, *SIZE, 3)
    model = inflated(nn.Sequential(Rows(3)))
    message = r"`0` must give a tensor, or a tuple that begins with one, .* gave a Result"
    with pytest.raises(TypeError, match=message):
        model(video())


def test_an_object_that_holds_no_tensor_is_given_as_it_is(net):
    model = inflated(net)
    thing = Noise(3)
    assert model.run(lambda x: thing, video()) is thing
    assert model.run(lambda x: net, video()) is net
    assert model.run(lambda x: Result, video()) is Result
