"""When a gradient is computed by hand, and how such a gradient is differentiated again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from make_a_video_pytorch.ops.torch_internals import is_in_forward_mode, is_transforming


class Context(FunctionCtx):
    """What torch gives to the `forward` and `backward` of a Function, with the types of it."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


def by_hand(x: Tensor, *others: Tensor | None) -> bool:
    """Whether the functions here take their own way: on a CPU, in full precision, eagerly, without
    autocast, forward-mode differentiation or a transform of torch.func."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and all(t is None or (t.device == x.device and t.dtype == x.dtype) for t in others)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]  # not in torch's list
        and not is_transforming()
        and not is_in_forward_mode()
        # a tensor made in inference mode, such as a text's embedding, cannot be kept outside of it
        and (torch.is_inference_mode_enabled() or not x.is_inference())
    )


def by_torch(
    function: Callable[..., Tensor], inputs: tuple[Tensor | None, ...], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of `function(*inputs)` that can be differentiated again, where one is needed."""
    # views, so that no hook runs here and inputs made of each other stay apart
    inputs = tuple(t if t is None else t.view_as(t) for t in inputs)
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    grads = iter(torch.autograd.grad(function(*inputs), wanted, grad, create_graph=True))
    return tuple(next(grads) if t is not None and t.requires_grad else None for t in inputs)
