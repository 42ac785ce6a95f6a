"""What torch has no public name for is still there, and means what it did.

A failure here, with a newer torch, says what was taken away.
"""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from make_a_video_pytorch.ops.torch_internals import (
    after_backward,
    is_hooked,
    is_in_backward,
    is_in_forward_mode,
    is_plain,
    is_transforming,
)

# torch scripts its own decompositions
scripted = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


@scripted
def test_the_transforms_of_torch_func_are_noticed():
    seen = []

    def function(x):
        seen.append(is_transforming())
        return x.sin().sum()

    x = torch.randn(3)
    function(x)
    torch.func.grad(function)(x)
    torch.func.vmap(function)(x[None])
    torch.func.jvp(function, (x,), (x,))
    function(x)
    assert seen == [False, True, True, True, False]


@scripted
def test_forward_mode_is_noticed_for_whichever_tensors():
    assert not is_in_forward_mode()
    with forward_ad.dual_level():
        assert is_in_forward_mode()
    assert not is_in_forward_mode()
    seen = []
    torch.func.jvp(lambda x: seen.append(is_in_forward_mode()) or x, *2 * ((torch.ones(2),),))
    assert seen == [True]


def test_a_backward_pass_is_noticed_and_followed():
    seen = []

    def look(grad):
        seen.append(is_in_backward())
        after_backward(lambda: seen.append("after"))

    x = torch.randn(3, requires_grad=True)
    middle = x.sin()
    middle.register_hook(look)
    middle.square().sum().backward()
    assert seen == [True, "after"]
    assert not is_in_backward()


def hooked(name, *args, **kwargs):
    return lambda module: getattr(module, name)(*args, **kwargs)


def replaced(module):
    module.forward = lambda x: x


def of_a_subclass(module):
    module.__class__ = type("Mine", (nn.SiLU,), {})


def parametrised(module):
    module.weight = nn.Parameter(torch.ones(2))
    nn.utils.parametrize.register_parametrization(module, "weight", nn.Identity())


CHANGES = {
    "hook": hooked("register_forward_hook", lambda *args: None),
    "pre-hook": hooked("register_forward_pre_hook", lambda *args: None),
    "backward-hook": hooked("register_full_backward_hook", lambda *args: None),
    "backward-pre-hook": hooked("register_full_backward_pre_hook", lambda *args: None),
    "compiled": hooked("compile", backend="eager"),
    "forward": replaced,
    "subclass": of_a_subclass,
    "parametrised": parametrised,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_around_a_module_is_noticed(change):
    module = nn.SiLU()
    assert is_plain(module, nn.SiLU)
    assert not is_plain(module, nn.Module)
    change(module)
    assert not is_plain(module, nn.SiLU)


def test_a_hook_is_found_among_others():
    def first(*args):
        return None

    module = nn.SiLU()
    handle = module.register_forward_hook(first, with_kwargs=True)
    module.register_forward_hook(lambda *args: None)
    module.register_forward_pre_hook(is_plain)
    assert is_hooked(module, first)
    assert not is_hooked(module, is_plain)
    handle.remove()
    assert not is_hooked(module, first)


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_hooks_of_all_modules_are_noticed(kind):
    handle = getattr(nn.modules.module, f"register_module_{kind}_hook")(lambda *args: None)
    assert not is_plain(nn.SiLU(), nn.SiLU)
    handle.remove()
    assert is_plain(nn.SiLU(), nn.SiLU)
