"""All that the library uses of torch without a public name for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module


def is_transforming() -> bool:
    """Whether a transform of torch.func, such as vmap or grad, is computing."""
    return torch._C._are_functorch_transforms_active()


def is_in_forward_mode() -> bool:
    """Whether forward-mode differentiation is on, for whichever tensors."""
    return forward_ad._current_level >= 0


def is_in_backward() -> bool:
    """Whether a backward pass is computing in this thread."""
    return torch._C._current_graph_task_id() != -1


def after_backward(function: Callable[[], None]) -> None:
    """Call `function` at the end of the backward pass that is computing."""
    torch.autograd.Variable._execution_engine.queue_callback(function)


def is_hooked(module: nn.Module, hook: Callable[..., object]) -> bool:
    """Whether `hook` runs after the forward of `module`."""
    return hook in module._forward_hooks.values()


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of `module` is `kind.forward` and nothing else.

    Nothing is put in its place, wrapped around it or hooked to it, and its forward is not
    replaced: only then may what it computes be computed without a call of it.
    """
    return (
        type(module) is kind
        and "forward" not in vars(module)
        and module._compiled_call_impl is None
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (module._backward_hooks or module._backward_pre_hooks)
        and not (torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)
        and not (torch_module._global_backward_hooks or torch_module._global_backward_pre_hooks)
    )
