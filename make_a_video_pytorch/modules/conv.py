"""The pseudo-3D convolution: one over space, then one over frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from make_a_video_pytorch.modules.stream import Streamable
from make_a_video_pytorch.ops.checks import at_least, typechecked
from make_a_video_pytorch.ops.decision import Temporal, decide, video_of
from make_a_video_pytorch.ops.gradients.convolution import conv_over_frames
from make_a_video_pytorch.ops.layout import (
    as_given,
    fold_frames,
    fold_pixels,
    is_planar,
    unfold_frames,
    unfold_pixels,
)
from make_a_video_pytorch.ops.parameters import acts_across_frames, zero_init
from make_a_video_pytorch.ops.past import Past


class TemporalConv(nn.Conv2d):
    """A Conv2d for kernels of (k, 1): over frames, at every pixel.

    It differs from a Conv2d in how the gradient is computed on a CPU, and in that weights without
    values are an error: torch gives a result without values.

    Shapes: (b c f n) -> (b c' f' n).
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if weight.is_meta and not input.is_meta:
            raise ValueError("`weight` (on meta) must be moved or loaded to where `input` is")
        over_frames = (
            input.ndim == 4
            and weight.shape[3] == self.groups == 1
            and self.stride == self.dilation == (1, 1)
            and self.padding_mode == "zeros"
            and self.padding in [(padding, 0) for padding in range(weight.shape[2])]
        )
        if over_frames:
            return conv_over_frames(input, weight, bias, int(self.padding[0]))
        out: Tensor = super()._conv_forward(input, weight, bias)
        return out


def frames_around(kernel_size: int, causal: bool = False) -> tuple[int, int]:
    """How many frames a convolution sees before and after one, and so needs around a video.

    The extra tap of an even kernel looks back. A causal convolution looks back only, so weights
    trained in one kind are shifted in time in the other.
    """
    before = kernel_size - 1 if causal else kernel_size // 2
    return before, kernel_size - 1 - before


def temporal_conv(dim: int, around: tuple[int, int], groups: int = 1) -> TemporalConv:
    """A convolution over so many frames, to be called by `convolve`."""
    before, after = around
    padding = before if before == after else 0
    return TemporalConv(dim, dim, (before + 1 + after, 1), padding=(padding, 0), groups=groups)


def convolve(
    conv: nn.Module, video: Tensor, around: tuple[int, int], past: Past | None = None
) -> Tensor:
    """`conv`, made by `temporal_conv`, on a video (b c f h w), whose frames it keeps.

    In a stream `conv` is causal, and the frames before are of the `past`.
    """
    pixels, (before, after) = fold_pixels(video), around
    assert past is None or after == 0
    if before != after and past is not None:
        pixels = past.extend(pixels.movedim(1, -1), before).movedim(-1, 1)
    elif before != after:
        pixels = F.pad(pixels, (0, 0, before, after))
    return unfold_pixels(conv(pixels), *video.shape[3:])


def with_pixels(state_dict: dict[str, Tensor], name: str) -> None:
    """Give the weight `name` in `state_dict`, that of a Conv1d in 1.0.0, its axis of pixels."""
    weight = state_dict.get(name)
    if weight is not None and weight.ndim == 3:
        state_dict[name] = weight.unsqueeze(-1)


class PseudoConv3d(nn.Module, Streamable[Tensor]):
    """A 2D convolution in every frame, then a 1D convolution over frames at every pixel.

    Make-A-Video (Singer et al. 2022, section 3.2.1). The convolution over frames is skipped on
    images and starts as the identity, so that a video is at first K independent images. Height,
    width and frames are kept, also by even kernels. With `kernel_size` and
    `temporal_kernel_size` both 1 there is no convolution over frames.

    Weight decay pulls the identity towards zero: leave `temporal_parameters` out of it.

    Shapes: image (b dim h w) -> (b dim_out h w); video (b dim f h w) -> (b dim_out f h w).

    Args:
        dim: channels in.
        dim_out: channels out; as many as in if None.
        kernel_size: in height and width.
        temporal_kernel_size: over frames; `kernel_size` if None.
        causal: a frame sees only itself and earlier ones.

    Example:
        >>> conv = PseudoConv3d(dim=16, dim_out=32)
        >>> conv(torch.randn(2, 16, 8, 8)).shape
        torch.Size([2, 32, 8, 8])
        >>> conv(torch.randn(2, 16, 5, 8, 8)).shape
        torch.Size([2, 32, 5, 8, 8])
    """

    @typechecked
    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        kernel_size: int = 3,
        *,
        temporal_kernel_size: int | None = None,
        causal: bool = False,
    ) -> None:
        super().__init__()
        dim_out = dim if dim_out is None else dim_out
        if temporal_kernel_size is None:
            temporal_kernel_size = kernel_size
        at_least(
            1,
            dim=dim,
            dim_out=dim_out,
            kernel_size=kernel_size,
            temporal_kernel_size=temporal_kernel_size,
        )
        self.dim = dim
        self.causal = causal
        self.around = frames_around(temporal_kernel_size, causal)
        self.spatial_conv = nn.Conv2d(dim, dim_out, kernel_size, padding=kernel_size // 2)
        self.temporal_conv: TemporalConv | None = None
        if kernel_size > 1 or temporal_kernel_size > 1:
            self.temporal_conv = zero_init(temporal_conv(dim_out, self.around))
            nn.init.eye_(self.temporal_conv.weight.detach()[:, :, self.around[0], 0])
        acts_across_frames(self, "temporal_conv")

    def forward(
        self,
        x: Tensor,
        enable_time: bool | Tensor | Temporal = True,
        *,
        frame_mask: Tensor | None = None,
    ) -> Tensor:
        """Convolve an image or a video.

        Args:
            x: image (b dim h w) or video (b dim f h w).
            enable_time: convolve over frames: one bool, or one for each sample (b).
            frame_mask: False (b f) for frames that are padding at the end of a shorter clip.

        Raises:
            ValueError: if `x` is neither an image nor a video, or not of `dim` channels, or if
                `enable_time` or `frame_mask` is a tensor of another shape or not of bools.
        """
        temporal = decide(x, self.dim, enable_time, frame_mask)
        image = x.squeeze(2) if x.ndim == 5 else x
        if image.ndim == 4 and not temporal.runs and frame_mask is None and is_planar(image):
            # to convert the layout for one convolution would not pay
            out = self.in_space(image, torch.contiguous_format)
            return out.unsqueeze(2) if x.ndim == 5 else out
        video = video_of(x, frame_mask)
        out = self.in_space(fold_frames(video), torch.channels_last)
        out = unfold_frames(out, video.shape[2])
        if temporal.runs and self.temporal_conv is not None:
            seen = temporal.without_padding(out)
            run = convolve(self.temporal_conv, seen, self.around, temporal.past)
            out = temporal.choose(run, out)
        return as_given(out, x)

    if TYPE_CHECKING:
        __call__ = forward

    @property
    def looks_ahead(self) -> bool:
        """Whether frames depend on later ones."""
        return self.temporal_conv is not None and self.around[1] > 0

    @property
    def looks_back(self) -> bool:
        """Whether frames depend on earlier ones."""
        return self.temporal_conv is not None and self.around[0] > 0

    def in_space(self, images: Tensor, memory_format: torch.memory_format) -> Tensor:
        """The convolution in every frame; an even kernel would add a row and a column."""
        height, width = images.shape[2:]
        out: Tensor = self.spatial_conv(images)[..., :height, :width]
        return out.contiguous(memory_format=memory_format)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        with_pixels(state_dict, prefix + "temporal_conv.weight")
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return "causal=True" if self.causal else ""
