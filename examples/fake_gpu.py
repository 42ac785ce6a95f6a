"""A GPU that is not there: a count of its memory, and kernels that take as much as its own.

All is for torch's FakeTensorMode, whose tensors have no data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from unittest.mock import patch
from weakref import finalize

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from make_a_video_pytorch.ops.gradients import by_hand


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that are made under it, those of now and the most of them.

    So does torch.distributed's MemTracker, but it takes ten times as long.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> object:  # noqa: ANN001
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.sizes:
                    self.count(storage._cdata, storage.nbytes())
                    finalize(storage, self.forget, storage._cdata)
        return out

    def count(self, storage: int, size: int) -> None:
        """Let a storage have `size` bytes from here on."""
        self.now += size - self.sizes.get(storage, 0)
        self.peak = max(self.peak, self.now)
        self.sizes[storage] = size

    def forget(self, storage: int) -> None:
        """Let a storage be gone."""
        self.now -= self.sizes.pop(storage)

    def shard(self, tensors: Iterable[Tensor], shards: int) -> int:
        """Count one of so many shards of each of `tensors` from here on; return their bytes."""
        total = 0
        for tensor in tensors:
            size = -(-tensor.nbytes // shards)
            self.count(tensor.untyped_storage()._cdata, size)
            total += size
        return total


@contextmanager
def on_a_gpu() -> Iterator[None]:
    """Take a GPU's ways on tensors of a CPU: those that keep other things for the gradient.

    torch has no tensors of a GPU without data where it is built without CUDA.
    """
    with (
        patch.object(F, "rms_norm", rms_norm),
        patch.object(F, "scaled_dot_product_attention", scaled_dot_product_attention),
        # of what `by_hand` asks, this one has no other effect
        patch.object(by_hand, "is_transforming", lambda: True),
    ):
        yield


class FusedRMSNorm(Function):
    """What the kernel of CUDA keeps and makes: see `rms_norm`."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, gamma: Tensor) -> Tensor:
        rate = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
        ctx.save_for_backward(x, gamma, rate)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, gamma, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(gamma)


def rms_norm(x: Tensor, shape: tuple[int, ...], gamma: Tensor, eps: float) -> Tensor:
    """As on CUDA: one kernel, in full precision under autocast."""
    if torch.is_autocast_enabled("cpu"):
        x, gamma = x.float(), gamma.float()
    return FusedRMSNorm.apply(x, gamma)


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """As on CUDA: the memory-efficient kernel, which takes a bias; no scores are kept for it."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
        attn_mask = None if attn_mask is None else attn_mask.to(dtype)
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*q.shape[:-1], k.shape[-2])
    out, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, attn_mask, compute_log_sumexp=True, is_causal=is_causal
    )
    return out
