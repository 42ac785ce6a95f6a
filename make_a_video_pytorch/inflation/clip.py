"""Which video is going through an inflated model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from make_a_video_pytorch.ops.past import Past
from make_a_video_pytorch.ops.torch_internals import after_backward, is_in_backward


class Clip(nn.Module):
    """Which video is going through the model: its samples and frames, or None.

    A module, without parameters, that the model holds and each inflated module knows: so each
    replica of a model has one of its own, copies and pickles hold together, and compilers read it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: tuple[int, int] | None = None
        self.past: Past | None = None  # in a stream
        self.in_backward = False

    def current(self) -> tuple[int, int] | None:
        """The sizes (b, f), or None where no video is going through."""
        if self.in_backward and not torch.compiler.is_compiling() and not is_in_backward():
            self.clear()  # what a backward pass left that raised
        return self.sizes

    @contextmanager
    def after(self, past: Past) -> Iterator[None]:
        """Let the video that goes through meanwhile follow the `past`."""
        self.current()  # which clears what a backward pass left
        before, self.past = self.past, past
        try:
            yield
        finally:
            self.past = before

    def clear(self) -> None:
        """Forget the video of a backward pass."""
        self.sizes, self.past, self.in_backward = None, None, False

    def remember(self, result: Tensor) -> None:
        """Bring the sizes back for the backward pass of `result`.

        Activation checkpointing computes modules again, after the forward pass has left. The
        node that made `result` is where their backward pass begins.
        """
        if result.grad_fn is None:
            return
        sizes, past = self.sizes, self.past

        def restore(grads: tuple[Tensor, ...]) -> None:
            self.sizes, self.past, self.in_backward = sizes, past, True
            after_backward(self.clear)

        result.grad_fn.register_prehook(restore)
