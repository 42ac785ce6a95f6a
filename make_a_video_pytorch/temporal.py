"""What an inflated module does after its own forward: a convolution, or attention, over frames.

(Floor 2.) Letters: b batch, c channels, f frames, h height, w width, n tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from make_a_video_pytorch.conv import TemporalConv
from make_a_video_pytorch.multihead import Attention
from make_a_video_pytorch.parameters import acts_across_frames, zero_init
from make_a_video_pytorch.positions import RotaryPositions

NAME = "temporal"  # of the child


class Clip(nn.Module):
    """Which video is going through the model: its samples and frames, or None.

    A module, without parameters, that all temporal parts hold: so each replica of a model has
    one of its own, copies and pickles hold together, and compilers read it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: tuple[int, int] | None = None
        self.in_backward = False

    def current(self) -> tuple[int, int] | None:
        """The sizes (b, f), or None where no video is going through."""
        if (
            self.in_backward
            and not torch.compiler.is_compiling()
            and torch._C._current_graph_task_id() == -1
        ):
            self.clear()  # what a backward pass left that raised
        return self.sizes

    def clear(self) -> None:
        """Forget the video of a backward pass."""
        self.sizes, self.in_backward = None, False

    def remember(self, result: Tensor) -> None:
        """Bring the sizes back for the backward pass of `result`.

        Activation checkpointing computes modules again, after the forward pass has left. The
        node that made `result` is where their backward pass begins.
        """
        if result.grad_fn is None:
            return
        sizes = self.sizes

        def restore(grads: tuple[Tensor, ...]) -> None:
            self.sizes, self.in_backward = sizes, True
            torch.autograd.Variable._execution_engine.queue_callback(self.clear)

        result.grad_fn.register_prehook(restore)


class TemporalPart(nn.Module):
    """What is added over frames to the output of a module, at first zero.

    Shapes: (b*f c h w), or (b*f n c), returned unchanged, in its memory format. Images, and
    videos of one frame, are returned as they are.
    """

    def __init__(
        self,
        name: str,   # of the module in its model
        dim: int,    # channels of its output
        clip: Clip,
    ) -> None:
        super().__init__()
        self.name = name
        self.dim = dim
        self.clip = clip

    def forward(self, out: object, inputs: tuple[object, ...]) -> object:
        """Add to what a module made of its `inputs`; of a tuple, to the first.

        Raises:
            TypeError: if `out` is neither a tensor nor a tuple that begins with one.
            ValueError: if its rows are not those of the video, or its channels not `dim`.
        """
        clip = self.clip.current()
        if clip is None or clip[1] == 1:
            return out
        if isinstance(out, tuple) and len(out) > 0:
            return (self(out[0], inputs), *out[1:])
        if not isinstance(out, Tensor):
            raise TypeError(
                f"`{self.name}` must give a tensor, or a tuple that begins with one, to be "
                f"inflated, and gave a {type(out).__name__}; leave it out by `where`"
            )
        self.must_fit(out, clip)
        x = out.unflatten(0, clip)
        # First `out`, whose memory format the sum then has.
        return (x + self.delta(x, inputs).to(x.dtype)).flatten(0, 1)

    def must_fit(self, out: Tensor, clip: tuple[int, int]) -> None:
        """Raise a ValueError for an output that cannot be unfolded."""
        b, f = clip
        if out.ndim not in (3, 4) or out.shape[0] != b * f:
            raise ValueError(
                f"`{self.name}` must give (b*f c h w) or (b*f n c) with b*f = {b * f} to be "
                f"inflated, and gave {tuple(out.shape)}; leave it out by `where`"
            )
        if out.shape[1 if out.ndim == 4 else -1] != self.dim:
            raise ValueError(
                f"`{self.name}` must give {self.dim} channels, in (b*f c h w) or (b*f n c), and "
                f"gave {tuple(out.shape)}; leave it out by `where`"
            )


class InflatedConv(TemporalPart):
    """A convolution over frames of the output of a convolution, in as many groups."""

    def __init__(self, name: str, spatial: nn.Conv2d, clip: Clip, kernel_size: int) -> None:
        super().__init__(name, spatial.out_channels, clip)
        self.conv = zero_init(TemporalConv(self.dim, kernel_size, groups=spatial.groups))
        acts_across_frames(self)

    def delta(self, x: Tensor, inputs: tuple[object, ...]) -> Tensor:
        """b f c h w -> b f c h w"""
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


class InflatedAttention(TemporalPart):
    """Attention over frames, at each pixel or token, of the output of attention.

    It reads the sum of the input and the output, where these have one shape: what the model
    itself goes on with, but for a norm. Its positions are rotary, without a maximum.
    """

    def __init__(self, name: str, dim: int, clip: Clip, heads: int, dim_head: int) -> None:
        super().__init__(name, dim, clip)
        self.attn = Attention(dim, dim_head, heads)
        self.positions = RotaryPositions(dim_head)
        acts_across_frames(self)

    def delta(self, x: Tensor, inputs: tuple[object, ...]) -> Tensor:
        """b f c h w -> b f c h w, or b f n c -> b f n c"""
        seen = x
        given = [t for t in inputs if isinstance(t, Tensor)]
        if given and given[0].shape == (x.shape[0] * x.shape[1], *x.shape[2:]):
            seen = x + given[0].unflatten(0, x.shape[:2]).to(x.dtype)
        channels = 2 if x.ndim == 5 else -1
        angles = self.positions(x.shape[1], device=x.device)
        return self.attn(seen.movedim(channels, -1), angles=angles).movedim(-1, channels)


def attach(module: nn.Module, part: TemporalPart) -> None:
    """Make `part` the child of `module` that runs after its forward."""
    module.add_module(NAME, part)
    part.hook = module.register_forward_hook(run_temporal_part, with_kwargs=True)


def detach(module: nn.Module) -> None:
    """Undo `attach`."""
    getattr(module, NAME).hook.remove()
    delattr(module, NAME)


def run_temporal_part(
    module: nn.Module, args: tuple, kwargs: dict[str, object], out: object
) -> object:
    """The forward hook; it finds the child by `module`, so that a replica runs its own."""
    return getattr(module, NAME)(out, (*args, *kwargs.values()))


def temporal_parts(model: nn.Module) -> dict[str, tuple[nn.Module, TemporalPart]]:
    """The inflated modules of `model`, by name, and their temporal parts."""
    return {
        name: (module, module._modules[NAME])
        for name, module in model.named_modules()
        if isinstance(module._modules.get(NAME), TemporalPart)
    }
