"""What an inflated module does after its own forward: a convolution, or attention, over frames.

Letters: b batch, c channels, f frames, h height, w width, n tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from make_a_video_pytorch.inflation.clip import Clip
from make_a_video_pytorch.modules.conv import convolve, frames_around, temporal_conv, with_pixels
from make_a_video_pytorch.modules.multihead import Attention
from make_a_video_pytorch.ops.parameters import acts_across_frames, zero_init
from make_a_video_pytorch.ops.past import Past
from make_a_video_pytorch.ops.positions import RotaryPositions, positions
from make_a_video_pytorch.ops.torch_internals import is_hooked

# Attributes of an inflated module: what runs after it, for which video, and the handle of the hook.
# The part is no child of it: tools that take a Conv2d for a leaf would take it for theirs.
PART, CLIP, HOOK = "_temporal_part", "_temporal_clip", "_temporal_hook"


class TemporalPart(nn.Module):
    """What is added over frames to the output of a module, at first zero.

    Shapes: (b*f c h w), or (b*f n c), returned unchanged, in its memory format. Images, and
    videos of one frame, are returned as they are.

    Args:
        name: that of the module in its model, empty for the model itself.
        dim: channels of its output.
        causal: a frame sees only itself and earlier ones.
    """

    def __init__(self, name: str, dim: int, causal: bool = False) -> None:
        super().__init__()
        self.name = name
        self.dim = dim
        self.causal = causal
        self.looks_back = True

    @property
    def looks_ahead(self) -> bool:
        """Whether frames depend on later ones."""
        return not self.causal

    def forward(
        self,
        out: object,
        inputs: tuple[object, ...],
        clip: tuple[int, int] | None,
        past: Past | None = None,
    ) -> object:
        """Add to what a module made of its `inputs` for a `clip` (b, f); of a tuple, to the first.

        In a stream the clip follows the `past`.

        Raises:
            TypeError: if `out` is neither a tensor nor a tuple that begins with one.
            ValueError: if its rows are not those of the video, or its channels not `dim`.
        """
        if clip is None or (clip[1] == 1 and past is None):
            return out
        if isinstance(out, tuple) and len(out) > 0:
            return (self(out[0], inputs, clip, past), *out[1:])
        if not isinstance(out, Tensor):
            raise TypeError(
                f"{self.called} must give a tensor, or a tuple that begins with one, to be "
                f"inflated, and gave a {type(out).__name__}; leave it out by `where`"
            )
        self.must_fit(out, clip)
        x = out.unflatten(0, clip)
        # First `out`, whose memory format the sum then has.
        return (x + self.delta(x, inputs, past).to(x.dtype)).flatten(0, 1)

    if TYPE_CHECKING:
        __call__ = forward

    def delta(self, x: Tensor, inputs: tuple[object, ...], past: Past | None) -> Tensor:
        """What is added to `x`, (b f c h w) or (b f n c), that a module made of its `inputs`."""
        raise NotImplementedError

    @property
    def called(self) -> str:
        """What messages call the module."""
        return f"`{self.name or 'model'}`"

    def must_fit(self, out: Tensor, clip: tuple[int, int]) -> None:
        """Raise a ValueError for an output that cannot be unfolded."""
        b, f = clip
        if out.ndim not in (3, 4) or out.shape[0] != b * f:
            raise ValueError(
                f"{self.called} must give (b*f c h w) or (b*f n c) with b*f = {b * f} to be "
                f"inflated, and gave {tuple(out.shape)}; leave it out by `where`"
            )
        if out.shape[1 if out.ndim == 4 else -1] != self.dim:
            raise ValueError(
                f"{self.called} must give {self.dim} channels, in (b*f c h w) or (b*f n c), and "
                f"gave {tuple(out.shape)}; leave it out by `where`"
            )


class InflatedConv(TemporalPart):
    """A convolution over frames of the output of a convolution, in as many groups.

    Args:
        name: that of the convolution in its model.
        spatial: the convolution.
        kernel_size: frames that the one over frames sees.
        causal: a frame sees only itself and earlier ones.
    """

    def __init__(
        self, name: str, spatial: nn.Conv2d, kernel_size: int, causal: bool = False
    ) -> None:
        super().__init__(name, spatial.out_channels, causal)
        self.around = frames_around(kernel_size, causal)
        self.conv = zero_init(temporal_conv(self.dim, self.around, spatial.groups))
        acts_across_frames(self, "conv")

    def delta(self, x: Tensor, inputs: tuple[object, ...], past: Past | None) -> Tensor:
        """b f c h w -> b f c h w"""
        return convolve(self.conv, x.transpose(1, 2), self.around, past).transpose(1, 2)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        with_pixels(state_dict, prefix + "conv.weight")
        super()._load_from_state_dict(state_dict, prefix, *args)


class InflatedAttention(TemporalPart):
    """Attention over frames, at each pixel or token, of the output of attention.

    It reads the sum of the input and the output, where these have one shape: what the model
    itself goes on with, but for a norm. Its positions are rotary, without a maximum.

    Args:
        name: that of the module in its model.
        dim: channels of its output.
        heads: number of heads.
        dim_head: width of a head.
        causal: a frame sees only itself and earlier ones.
        window: frames seen on either side; all if None.
    """

    def __init__(
        self,
        name: str,
        dim: int,
        heads: int,
        dim_head: int,
        causal: bool = False,
        window: int | None = None,
    ) -> None:
        super().__init__(name, dim, causal)
        self.attn = Attention(dim, dim_head, heads, causal=causal, window=window)
        self.window = window
        self.positions = RotaryPositions(dim_head)
        acts_across_frames(self, "attn")

    def delta(self, x: Tensor, inputs: tuple[object, ...], past: Past | None) -> Tensor:
        """b f c h w -> b f c h w, or b f n c -> b f n c"""
        seen = x
        given = [t for t in inputs if isinstance(t, Tensor)]
        if given and given[0].shape == (x.shape[0] * x.shape[1], *x.shape[2:]):
            seen = x + given[0].unflatten(0, x.shape[:2]).to(x.dtype)
        channels = 2 if x.ndim == 5 else -1
        frames, last = x.shape[1], None
        if past is not None:
            frames, last = past.before(self.window) + frames, frames
        _, angles = positions(None, self.positions, (frames,), like=x, last=last)
        beside = {} if past is None else {"past": past}
        attended: Tensor = self.attn(seen.movedim(channels, -1), angles=angles, **beside)
        return attended.movedim(-1, channels)


def attach(module: nn.Module, part: nn.Module, clip: Clip) -> None:
    """Let `part` run after the forward of `module`, for the video in `clip`."""
    vars(module)[PART], vars(module)[CLIP] = part, clip  # not as children
    if not is_hooked(module, run_temporal_part):
        vars(module)[HOOK] = module.register_forward_hook(run_temporal_part, with_kwargs=True)


def detach(module: nn.Module) -> None:
    """Undo `attach`."""
    del vars(module)[PART], vars(module)[CLIP]
    handle = vars(module).pop(HOOK, None)
    if handle is not None:
        handle.remove()


def run_temporal_part(module: nn.Module, args: tuple[object, ...], *rest: object) -> object:
    """The forward hook; it finds the part by `module`, so that a replica runs its own.

    Replicas share their hooks with the module that they are made of, but not what runs then.
    What is swapped for another, as in quantisation, calls it without the `kwargs`.
    """
    *kwargs, out = rest
    part = part_of(module)
    if part is None:
        return out
    inputs = args
    for named in kwargs:
        inputs += tuple(named.values()) if isinstance(named, dict) else ()
    clip: Clip = module.__dict__[CLIP]
    sizes = clip.current()
    beside = () if clip.past is None else (clip.past,)
    return part(out, inputs, sizes, *beside)


def is_attached(module: nn.Module | None, part: nn.Module, clip: Clip) -> bool:
    """Whether `part` runs after `module`, for the video in `clip`."""
    if module is None or part_of(module) is None:
        return False
    if torch.compiler.is_dynamo_compiling():
        return part_of(module) is part
    # an export has stand-ins for modules, of the same attributes
    same = vars(part_of(module)) is vars(part) and vars(vars(module)[CLIP]) is vars(clip)
    return same and is_hooked(module, run_temporal_part)


def part_of(module: nn.Module) -> nn.Module | None:
    """What runs after `module`, if it is inflated."""
    # not what it passes on of another module; and torch 2.6 cannot compile `vars`
    part: nn.Module | None = module.__dict__.get(PART)
    return part
