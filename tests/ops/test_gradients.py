"""What is differentiated by hand is what torch differentiates, in every mode of autograd."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from make_a_video_pytorch.ops import gradients
from make_a_video_pytorch.ops.gradients import attention_with_bias, conv_over_frames, rms_norm


def randn(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, requires_grad=True)


def conv(taps, padding, frames=4, batch=2):
    tensors = randn(batch, 3, frames, 5), randn(2, 3, taps, 1), randn(2)
    return lambda x, w, b: conv_over_frames(x, w, b, padding), tensors


def norm(scaled, frames=3, pixels=(2, 1), silu=True):
    tensors = [randn(2, 3, *pixels, 5), randn(5)]
    if scaled:
        tensors += [randn(2, frames, 1, 1, 5), randn(2, frames, 1, 1, 5)]
    return lambda x, g, *s: rms_norm(x, g, 1e-12, *s, silu=silu), tuple(tensors)


def attention(samples):
    tensors = randn(3, 2, 4, 3), randn(3, 2, 7, 3), randn(3, 2, 7, 3), randn(samples, 2, 4, 7)
    return attention_with_bias, tensors


def norm_of(x, scale):
    tensors = randn(*x), randn(x[-1]), randn(*scale), randn(*scale)
    return lambda x, g, *s: rms_norm(x, g, 1e-12, *s, silu=True), tensors


CASES = {
    "conv": conv(3, 1),
    "conv-even": conv(2, 1),
    "conv-padded-before": conv(4, 0, frames=7),
    "conv-of-fewer-frames": conv(5, 1),
    "conv-longer-than-the-clip": conv(9, 4, frames=2),
    "conv-mostly-padding": conv(9, 8, frames=1),
    "conv-one-tap": conv(1, 0),
    "conv-one-sample": conv(5, 2, batch=1),
    "norm": norm(False),
    "norm-alone": norm(False, silu=False),
    "norm-alone-scaled": norm(True, silu=False),
    "norm-scaled": norm(True),
    "norm-scaled-as-one": norm(True, frames=1),
    "norm-scaled-one-pixel": norm(True, pixels=(1, 1)),
    "norm-image": (
        lambda x, g: rms_norm(x, g, 1e-12, silu=True),
        (randn(2, 3, 4, 5), randn(5)),
    ),
    "norm-image-scaled": norm_of((2, 3, 4, 5), (2, 1, 1, 5)),
    "norm-image-scaled-as-one": norm_of((2, 3, 4, 5), (1, 1, 5)),
    "norm-scaled-everywhere": norm_of((2, 3, 4, 5), (2, 3, 4, 5)),
    "attention": attention(1),
    "attention-a-bias-each": attention(3),
}
cases = pytest.mark.parametrize(("function", "tensors"), CASES.values(), ids=CASES)


@pytest.fixture
def plain(monkeypatch):
    """Run a function as torch differentiates it."""

    def run(function, *tensors):
        with monkeypatch.context() as patch:
            patch.setattr(gradients, "by_hand", lambda *tensors: False)
            return function(*tensors)

    return run


def by_hand(out):
    return type(out.grad_fn).__name__ in {
        "ConvOverFramesBackward", "FusedRMSNormBackward", "AttentionWithBiasBackward"
    }  # fmt: skip


@cases
def test_it_is_what_torch_gives(function, tensors, plain):
    out, expected = function(*tensors), plain(function, *tensors)
    assert by_hand(out)
    assert not by_hand(expected)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(out)
    for ours, theirs in zip(
        torch.autograd.grad(out, tensors, grad),
        torch.autograd.grad(expected, tensors, grad),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@cases
def test_numeric_derivatives(function, tensors):
    assert gradcheck(function, tensors)
    assert gradgradcheck(function, tensors)


@cases
@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_run_once(function, tensors, create_graph):
    tensors = [t.detach().requires_grad_() for t in tensors]
    ran = []
    for index, tensor in enumerate(tensors):
        tensor.register_hook(lambda grad, index=index: ran.append(index))
    torch.autograd.grad(function(*tensors).sum(), tensors, create_graph=create_graph)
    assert sorted(ran) == list(range(len(tensors)))


@pytest.mark.parametrize("create_graph", [False, True])
def test_inputs_made_of_each_other(create_graph, plain):
    x, bias = randn(3, 2, 4, 3), randn(1, 2, 4, 4)
    row, gamma = randn(2, 3, 1, 1, 5), randn(5)
    functions = {
        x: lambda x: attention_with_bias(x, 2 * x, x, bias),
        row: lambda x: rms_norm(x, gamma, 1e-12, x, x.sin(), silu=True),
    }
    for tensor, function in functions.items():
        grad = torch.autograd.grad(function(tensor).sum(), tensor, create_graph=create_graph)[0]
        expected = torch.autograd.grad(plain(function, tensor).sum(), tensor)[0]
        torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-9)


def test_a_batch_of_none():
    tensors = randn(0, 2, 4, 3), randn(0, 2, 7, 3), randn(0, 2, 7, 3), randn(1, 2, 4, 7)
    attention_with_bias(*tensors).sum().backward()
    assert tensors[0].grad.shape == (0, 2, 4, 3)


@cases
def test_what_is_frozen_gets_no_gradient(function, tensors):
    for wanted in product((True, False), repeat=len(tensors)):
        if not any(wanted):
            continue
        given = [t.detach().requires_grad_(need) for t, need in zip(tensors, wanted, strict=True)]
        function(*given).square().sum().backward()
        assert [t.grad is not None for t in given] == list(wanted)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # torch's
@cases
def test_transforms(function, tensors, plain):
    """Per-sample gradients and tangents, which other ways through torch take."""

    def loss(*tensors):
        return function(*tensors).square().sum()

    tensors = tuple(t.detach() for t in tensors)
    stacked = tuple(torch.stack((t, t.flip(0))) for t in tensors)
    everywhere = tuple(range(len(tensors)))
    transforms = (
        lambda: torch.func.grad(loss, everywhere)(*tensors),
        lambda: torch.func.vmap(torch.func.grad(loss, everywhere))(*stacked),
        lambda: torch.func.vmap(torch.func.grad(loss), (0, *[None] * (len(tensors) - 1)))(
            stacked[0], *tensors[1:]
        ),
    )
    for transform in transforms:
        torch.testing.assert_close(transform(), plain(transform), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # it scripts its own decompositions
@pytest.mark.parametrize("name", ["conv", "norm", "norm-scaled"])
def test_tangents(name, plain):
    function, tensors = CASES[name]
    tensors = tuple(t.detach() for t in tensors)
    tangents = tuple(map(torch.randn_like, tensors))
    ours = torch.func.jvp(function, tensors, tangents)
    torch.testing.assert_close(ours, plain(torch.func.jvp, function, tensors, tangents))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # as above
@pytest.mark.parametrize("name", ["conv", "norm", "norm-scaled"])
def test_tangents_of_dual_numbers(name, plain):
    """Of one input, whichever it is, outside of torch.func."""
    function, tensors = CASES[name]
    for index, tensor in enumerate(tensors):
        tangents = []
        for call in (function, lambda *given: plain(function, *given)):
            with forward_ad.dual_level():
                given = [t.detach() for t in tensors]
                given[index] = forward_ad.make_dual(given[index], torch.ones_like(tensor))
                tangents.append(forward_ad.unpack_dual(call(*given)).tangent)
        torch.testing.assert_close(*tangents)


@pytest.mark.parametrize("name", ["conv", "norm-scaled", "attention"])
def test_autocast_and_low_precision_are_left_to_torch(name):
    function, tensors = CASES[name]
    low = [t.detach().bfloat16().requires_grad_() for t in tensors]
    assert not by_hand(function(*low))
    full = [t.detach().float().requires_grad_() for t in tensors]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = function(*full)
    assert not by_hand(out)
    out.float().square().sum().backward()
    assert all(t.grad is not None for t in full)


@pytest.mark.parametrize("name", ["conv", "norm", "norm-scaled", "attention"])
def test_autocast_around_backward_alone_lowers_no_precision(name):
    function, tensors = CASES[name]
    tensors = [t.detach().float().requires_grad_() for t in tensors]
    out = function(*tensors)
    grad = torch.randn_like(out)
    expected = torch.autograd.grad(out, tensors, grad, retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = torch.autograd.grad(out, tensors, grad)
    for under_autocast, exact in zip(ours, expected, strict=True):
        assert torch.equal(under_autocast, exact)


def test_an_input_made_in_inference_mode_can_be_learned_from():
    """Such as the embedding of a text, for which there is no gradient."""
    gamma = randn(5)
    with torch.inference_mode():
        x = torch.randn(2, 3, 5).double()
    rms_norm(x, gamma, 1e-12).square().sum().backward()
    expected = 2 * gamma * (x / x.square().mean(-1, keepdim=True).sqrt()).square().sum((0, 1))
    torch.testing.assert_close(gamma.grad, expected)


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [
        ((2, 3, 5), torch.float64),
        ((3, 1), torch.float64),
        ((), torch.float64),
        ((5,), torch.float32),
    ],
    ids=["larger", "one-for-all-channels", "one-for-all", "another-dtype"],
)
def test_other_scales_and_shifts_are_left_to_torch(scale, dtype, plain):
    tensors = randn(1, 3, 5, dtype=dtype), randn(5, dtype=dtype), randn(*scale), randn(*scale)
    out = CASES["norm-image-scaled"][0](*tensors)
    expected = plain(CASES["norm-image-scaled"][0], *tensors)
    torch.testing.assert_close(out, expected)
    grads = torch.autograd.grad(out.sum(), tensors), torch.autograd.grad(expected.sum(), tensors)
    torch.testing.assert_close(*grads)


def kept_by(function, *tensors):
    """The result of a call, and the addresses of what it keeps for backward."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = function(*tensors)
    return out, {t.data_ptr() for t in kept}


def test_attention_keeps_no_scores():
    """For 40 tokens of 8 features, those of a head alone are five times as large as `q`."""
    tensors = [torch.randn(2, 3, 40, 8, requires_grad=True) for _ in range(3)]
    tensors.append(torch.randn(1, 3, 40, 40, requires_grad=True))
    out, kept = kept_by(attention_with_bias, *tensors)
    assert kept == {t.data_ptr() for t in (*tensors, out)}


@pytest.mark.parametrize("name", ["norm", "norm-alone", "norm-scaled", "norm-alone-scaled"])
def test_a_norm_keeps_its_inputs_alone(name):
    function, tensors = CASES[name]
    assert kept_by(function, *tensors)[1] == {t.data_ptr() for t in tensors}


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # torch's
@cases
@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_of_several_results_at_once(function, tensors, create_graph):
    """As for a Jacobian: torch gives backward a batch of gradients in the place of one."""
    out = function(*tensors)
    grads = torch.randn(3, *out.shape, dtype=out.dtype)
    options = {"retain_graph": True, "create_graph": create_graph}
    several = torch.autograd.grad(out, tensors, grads, is_grads_batched=True, **options)
    for index, grad in enumerate(grads):
        one = torch.autograd.grad(out, tensors, grad, retain_graph=True)
        for ours, theirs in zip(several, one, strict=True):
            torch.testing.assert_close(ours[index], theirs, rtol=1e-9, atol=1e-9)


@cases
def test_without_gradients_it_gives_the_same(function, tensors):
    expected = function(*tensors)
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            assert torch.equal(function(*tensors), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch.jit is deprecated
@cases
def test_a_trace_holds_operations_of_torch(function, tensors):
    with torch.no_grad():
        traced = torch.jit.trace(function, tensors)
    assert not any("Python" in node.kind() for node in traced.inlined_graph.nodes())
    torch.testing.assert_close(traced(*tensors), function(*tensors))


def test_a_gain_of_another_length_is_an_error():
    with pytest.raises(RuntimeError, match="normalized_shape"):
        rms_norm(torch.randn(2, 5), torch.ones(1), 1e-12)


def test_a_bias_that_does_not_learn_is_left_to_torch():
    q, k, v, bias = (t.detach() for t in CASES["attention"][1])
    out = attention_with_bias(q.requires_grad_(), k, v, bias)
    assert not by_hand(out)
    torch.testing.assert_close(out, F.scaled_dot_product_attention(q, k, v, attn_mask=bias))
