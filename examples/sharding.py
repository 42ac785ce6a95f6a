"""A model whose parameters, gradients and optimizer are spread over processes, by FSDP2."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from inflated import Inflated
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from make_a_video_pytorch import ResnetBlock, SpatioTemporalAttention


def units(model: nn.Module) -> Iterator[nn.Module]:
    """The blocks of `model` that are put together one at a time, the inner ones first."""
    kinds: tuple[str, ...] = ()
    parts: set[nn.Module] = set()
    if isinstance(model, Inflated):
        kinds = tuple(model.model.image_model._no_split_modules or ())
        parts = set(model.model.video_model.temporal.children())
    for module in reversed(list(model.modules())):
        known = isinstance(module, ResnetBlock | SpatioTemporalAttention) or module in parts
        if known or type(module).__name__ in kinds:
            yield module


def shard(model: nn.Module, device: torch.device) -> None:
    """Leave each process a share of every parameter of `model`, which all have alike."""
    # nothing is done in place on what a block gives, which is a view for the sake of its layout
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for unit in units(model):
        fully_shard(unit, mesh=mesh)
    # else the root's parameters stay whole after a forward without a backward, and no average of
    # shards can be taken of them
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def is_sharded(model: nn.Module) -> bool:
    """Whether a process has but a share of its parameters."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole(state: object, kept: bool = True) -> object:
    """A state dict with whole tensors, on the CPU. All processes must ask for it.

    What is not `kept` here is None, and takes no memory.
    """
    if isinstance(state, dict):
        return {key: whole(value, kept) for key, value in state.items()}
    if isinstance(state, list):
        return [whole(value, kept) for value in state]
    if isinstance(state, DTensor):
        state = state.full_tensor()
    if isinstance(state, Tensor):
        return state.cpu() if kept else None
    return state


def shard_state(optimizer: Optimizer) -> None:
    """Leave each process its share of what the optimizer has loaded for sharded parameters."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(parameter, DTensor) and value.shape == parameter.shape:
                placed = {"device_mesh": parameter.device_mesh, "placements": parameter.placements}
                state[name] = distribute_tensor(value, **placed, src_data_rank=None)
