"""Residual blocks of pseudo-3D convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from make_a_video_pytorch.modules.conv import PseudoConv3d
from make_a_video_pytorch.modules.stream import Streamable
from make_a_video_pytorch.ops.checks import at_least, is_one_of, must_be_floating, typechecked
from make_a_video_pytorch.ops.decision import Temporal, as_video
from make_a_video_pytorch.ops.gradients.by_hand import by_hand
from make_a_video_pytorch.ops.layout import as_given
from make_a_video_pytorch.ops.norm import RMSNorm
from make_a_video_pytorch.ops.torch_internals import is_plain


class Block(nn.Module):
    """Pseudo-3D convolution, RMSNorm, optionally a scale and a shift, SiLU.

    Shapes: image (b dim h w) -> (b dim_out h w); video (b dim f h w) -> (b dim_out f h w).

    Args:
        dim: channels in.
        dim_out: channels out.
        kernel_size: in height and width.
        temporal_kernel_size: over frames; `kernel_size` if None.
        causal: a frame sees only itself and earlier ones.
    """

    @typechecked
    def __init__(
        self,
        dim: int,
        dim_out: int,
        kernel_size: int = 3,
        temporal_kernel_size: int | None = None,
        *,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.project = PseudoConv3d(
            dim, dim_out, kernel_size, temporal_kernel_size=temporal_kernel_size, causal=causal
        )
        self.norm = RMSNorm(dim_out)
        self.act = nn.SiLU()

    def forward(
        self,
        x: Tensor,
        scale_shift: tuple[Tensor, Tensor] | None = None,
        enable_time: bool | Tensor | Temporal = True,
    ) -> Tensor:
        """Apply to an image or a video; `scale_shift` are two tensors that broadcast to it.

        On a CPU norm and activation are computed in one, unless something is wrapped around one of
        them, hooked to it or put in its place.
        """
        out = self.project(x, enable_time)
        scale, shift = (None, None) if scale_shift is None else scale_shift
        if by_hand(out) and is_plain(self.norm, RMSNorm) and is_plain(self.act, nn.SiLU):
            return self.norm.then_silu(out, scale, shift)
        out = self.norm(out)
        if scale is not None and shift is not None:
            out = out * (scale + 1) + shift
        activated: Tensor = self.act(out)
        return activated


class ResnetBlock(nn.Module, Streamable[Tensor]):
    """Two blocks and a skip connection; the first is scaled and shifted by the timestep.

    The residual block of Ho et al. 2020 with the scale and shift of Dhariwal and Nichol 2021
    (section 3, adaptive group normalisation; here on RMSNorm).

    Shapes: image (b dim h w) -> (b dim_out h w); video (b dim f h w) -> (b dim_out f h w);
    `timestep_emb` (b timestep_cond_dim), or a frame its own (b f timestep_cond_dim).

    Args:
        dim: channels in.
        dim_out: channels out.
        timestep_cond_dim: width of the timestep's embedding, which a `TimestepEmbedding` makes;
            none is taken if None.
        causal: a frame sees only itself and earlier ones.

    Example:
        >>> block = ResnetBlock(16, 32)
        >>> block(torch.randn(2, 16, 5, 8, 8)).shape
        torch.Size([2, 32, 5, 8, 8])
        >>> block(torch.randn(2, 16, 5, 8, 8), enable_time=False).shape
        torch.Size([2, 32, 5, 8, 8])
    """

    @typechecked
    def __init__(
        self,
        dim: int,
        dim_out: int,
        *,
        timestep_cond_dim: int | None = None,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.timestep_cond_dim = timestep_cond_dim
        self.timestep_mlp: nn.Sequential | None = None
        if timestep_cond_dim is not None:
            at_least(1, timestep_cond_dim=timestep_cond_dim)
            project = nn.Linear(timestep_cond_dim, dim_out * 2)
            nn.init.zeros_(project.bias)  # no condition, no change
            self.timestep_mlp = nn.Sequential(nn.SiLU(), project)
        self.block1 = Block(dim, dim_out, causal=causal)
        self.block2 = Block(dim_out, dim_out, causal=causal)
        self.res_conv = PseudoConv3d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

    def forward(
        self,
        x: Tensor,
        timestep_emb: Tensor | None = None,
        enable_time: bool | Tensor | Temporal = True,
        *,
        frame_mask: Tensor | None = None,
    ) -> Tensor:
        """Apply to an image or a video.

        Args:
            x: image (b dim h w) or video (b dim f h w).
            timestep_emb: given if and only if the block was built with `timestep_cond_dim`.
            enable_time: convolve over frames: one bool, or one for each sample (b).
            frame_mask: False (b f) for frames that are padding at the end of a shorter clip.

        Raises:
            TypeError: if `timestep_emb` is no tensor; `enable_time` comes after it.
            ValueError: if `x` is neither an image nor a video, or not of `dim` channels, if
                `timestep_emb` is missing, not taken, or of another shape, or if `enable_time` or
                `frame_mask` is a tensor of another shape or not of bools.
        """
        if isinstance(timestep_emb, bool):
            raise TypeError(
                f"`timestep_emb` (={timestep_emb}) must be a tensor: give `enable_time`, which "
                "comes after it, by its name"
            )
        if (timestep_emb is None) != (self.timestep_mlp is None):
            needed = "given, as" if timestep_emb is None else "left out, since no"
            raise ValueError(f"`timestep_emb` must be {needed} `timestep_cond_dim` was given")
        must_be_floating(timestep_emb=timestep_emb)
        video, temporal = as_video(x, self.dim, enable_time, frame_mask)

        scale_shift = None if timestep_emb is None else self.scale_and_shift(timestep_emb, video)
        out = self.block1(video, scale_shift, temporal)
        out = self.block2(out, enable_time=temporal)
        return as_given(out + self.res_conv(video), x)

    if TYPE_CHECKING:
        __call__ = forward

    def scale_and_shift(self, timestep_emb: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """What a `timestep_emb` makes of itself for a video (b dim f h w): (b dim_out f|1 1 1)."""
        assert self.timestep_cond_dim is not None
        assert self.timestep_mlp is not None
        batch, frames, width = video.shape[0], video.shape[2], self.timestep_cond_dim
        if not is_one_of(timestep_emb.shape, (batch, width), (batch, frames, width)):
            raise ValueError(
                f"`timestep_emb` (shape {tuple(timestep_emb.shape)}) must be "
                f"(b, timestep_cond_dim) = {(batch, width)} or (b, f, timestep_cond_dim) = "
                f"{(batch, frames, width)}"
            )
        emb = timestep_emb if timestep_emb.ndim == 3 else timestep_emb[:, None]
        scale, shift = self.timestep_mlp(emb).movedim(-1, 1)[..., None, None].chunk(2, dim=1)
        return scale, shift

    def start_as_identity(self) -> None:
        """Make a block of `dim` = `dim_out` give what it is given."""
        nn.init.zeros_(self.block2.norm.gamma)
