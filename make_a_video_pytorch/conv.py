"""The pseudo-3D convolution: one over space, then one over frames (floor 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from make_a_video_pytorch.checks import at_least, typechecked
from make_a_video_pytorch.gradients import conv_over_frames
from make_a_video_pytorch.layout import (
    Temporal,
    as_given,
    as_video,
    fold_frames,
    fold_pixels,
    unfold_frames,
    unfold_pixels,
)
from make_a_video_pytorch.parameters import acts_across_frames


class TemporalConv(nn.Conv1d):
    """A 1D convolution over the frames at every pixel, at first the identity.

    It keeps the number of frames, also for an even kernel: the extra tap looks back. A causal
    one looks back only, and its identity is the last tap, so weights trained in one kind are
    shifted in time in the other. Its parameters are those of a Conv1d.

    Shapes: (b c f h w) -> (b c f h w).
    """

    def __init__(
        self, dim: int, kernel_size: int, *, causal: bool = False, groups: int = 1
    ) -> None:
        super().__init__(dim, dim, kernel_size, groups=groups)
        self.before = kernel_size - 1 if causal else kernel_size // 2
        self.after = kernel_size - 1 - self.before
        nn.init.zeros_(self.weight)
        for group in self.weight.detach()[..., self.before].chunk(groups):
            nn.init.eye_(group)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        out = conv_over_frames(
            fold_pixels(x), self.weight, self.bias, self.before, self.after, self.groups
        )
        return unfold_pixels(out, *x.shape[3:])

    def extra_repr(self) -> str:
        causal = ", causal=True" if self.after == 0 < self.before else ""
        groups = f", groups={self.groups}" if self.groups > 1 else ""
        return f"{self.in_channels}, kernel_size={self.kernel_size[0]}{causal}{groups}"


class PseudoConv3d(nn.Module):
    """A 2D convolution in every frame, then a 1D convolution over frames at every pixel.

    Make-A-Video (Singer et al. 2022, section 3.2.1). The convolution over frames is skipped on
    images and starts as the identity, so that a video is at first K independent images. Height,
    width and frames are kept, also by even kernels. With `kernel_size` and
    `temporal_kernel_size` both 1 there is no convolution over frames.

    Weight decay pulls the identity towards zero: leave `temporal_parameters` out of it.

    Shapes: image (b dim h w) -> (b dim_out h w); video (b dim f h w) -> (b dim_out f h w).
    """

    @typechecked
    def __init__(
        self,
        dim: int,                                # channels in
        dim_out: int | None = None,              # channels out; as many as in if None
        kernel_size: int = 3,                    # in height and width
        *,
        temporal_kernel_size: int | None = None,  # over frames; `kernel_size` if None
        causal: bool = False,                    # a frame sees only itself and earlier ones
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
        self.spatial_conv = nn.Conv2d(dim, dim_out, kernel_size, padding=kernel_size // 2)
        self.temporal_conv = None
        if kernel_size > 1 or temporal_kernel_size > 1:
            self.temporal_conv = acts_across_frames(
                TemporalConv(dim_out, temporal_kernel_size, causal=causal)
            )

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
        video, temporal = as_video(x, self.spatial_conv.in_channels, enable_time, frame_mask)
        frames, height, width = video.shape[2:]
        out = self.spatial_conv(fold_frames(video))
        # an even kernel adds a row and a column
        out = out[..., :height, :width].contiguous(memory_format=torch.channels_last)
        out = unfold_frames(out, frames)
        if temporal.runs and self.temporal_conv is not None:
            out = temporal.choose(self.temporal_conv(temporal.without_padding(out)), out)
        return as_given(out, x)
