"""What is differentiated by hand is what torch differentiates, in every mode of autograd."""

from itertools import product

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from make_a_video_pytorch.ops.gradients.attention import attention_with_bias
from make_a_video_pytorch.ops.gradients.norm import rms_norm
from tests.ops.gradients.cases import CASES, is_by_hand, plain, randn

cases = pytest.mark.parametrize(("function", "tensors"), CASES.values(), ids=CASES)


@cases
def test_it_is_what_torch_gives(function, tensors):
    out, expected = function(*tensors), plain(function, *tensors)
    assert is_by_hand(out)
    assert not is_by_hand(expected)
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
def test_inputs_made_of_each_other(create_graph):
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
def test_transforms(function, tensors):
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
def test_tangents(name):
    function, tensors = CASES[name]
    tensors = tuple(t.detach() for t in tensors)
    tangents = tuple(map(torch.randn_like, tensors))
    ours = torch.func.jvp(function, tensors, tangents)
    torch.testing.assert_close(ours, plain(torch.func.jvp, function, tensors, tangents))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # as above
@pytest.mark.parametrize("name", ["conv", "norm", "norm-scaled"])
def test_tangents_of_dual_numbers(name):
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
    assert not is_by_hand(function(*low))
    full = [t.detach().float().requires_grad_() for t in tensors]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = function(*full)
    assert not is_by_hand(out)
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
