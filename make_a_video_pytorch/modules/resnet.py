"""Residual blocks of pseudo-3D convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from make_a_video_pytorch.modules.conv import PseudoConv3d
from make_a_video_pytorch.ops.checks import at_least, is_one_of, must_be_floating, typechecked
from make_a_video_pytorch.ops.decision import Temporal, as_video
from make_a_video_pytorch.ops.gradients.by_hand import by_hand
from make_a_video_pytorch.ops.layout import as_given
from make_a_video_pytorch.ops.norm import RMSNorm
from make_a_video_pytorch.ops.torch_internals import is_plain


class Block(nn.Module):
    """Pseudo-3D convolution, RMSNorm, optionally a scale and a shift, SiLU.

    Shapes: image (b dim h w) -> (b dim_out h w); video (b dim f h w) -> (b dim_out f h w).
    """

    @typechecked
    def __init__(
        self,
        dim: int,                                # channels in
        dim_out: int,                            # channels out
        kernel_size: int = 3,                    # in height and width
        temporal_kernel_size: int | None = None,  # over frames; `kernel_size` if None
        *,
        causal: bool = False,                    # a frame sees only itself and earlier ones
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
        return self.act(out if scale is None else out * (scale + 1) + shift)


class ResnetBlock(nn.Module):
    """Two blocks and a skip connection; the first is scaled and shifted by the timestep.

    The residual block of Ho et al. 2020 with the scale and shift of Dhariwal and Nichol 2021
    (section 3, adaptive group normalisation; here on RMSNorm).

    Shapes: image (b dim h w) -> (b dim_out h w); video (b dim f h w) -> (b dim_out f h w);
    `timestep_emb` (b timestep_cond_dim), or a frame its own (b f timestep_cond_dim).
    """

    @typechecked
    def __init__(
        self,
        dim: int,                             # channels in
        dim_out: int,                         # channels out
        *,
        timestep_cond_dim: int | None = None,  # width of the timestep embedding, if there is one
        causal: bool = False,                 # a frame sees only itself and earlier ones
    ) -> None:
        super().__init__()
        self.dim = dim
        self.timestep_cond_dim = timestep_cond_dim
        self.timestep_mlp = None
        if timestep_cond_dim is not None:
            at_least(1, timestep_cond_dim=timestep_cond_dim)
            self.timestep_mlp = nn.Sequential(
                nn.SiLU(), nn.Linear(timestep_cond_dim, dim_out * 2)
            )
            nn.init.zeros_(self.timestep_mlp[1].bias)  # no condition, no change
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
            ValueError: if `x` is neither an image nor a video, or not of `dim` channels, if
                `timestep_emb` is missing, not taken, or of another shape, or if `enable_time` or
                `frame_mask` is a tensor of another shape or not of bools.
        """
        if (timestep_emb is None) != (self.timestep_mlp is None):
            needed = "given, as" if timestep_emb is None else "left out, since no"
            raise ValueError(f"`timestep_emb` must be {needed} `timestep_cond_dim` was given")
        must_be_floating(timestep_emb=timestep_emb)
        video, temporal = as_video(x, self.dim, enable_time, frame_mask)

        scale_shift = None
        if timestep_emb is not None:
            batch, frames, width = video.shape[0], video.shape[2], self.timestep_cond_dim
            if not is_one_of(timestep_emb.shape, (batch, width), (batch, frames, width)):
                raise ValueError(
                    f"`timestep_emb` (shape {tuple(timestep_emb.shape)}) must be "
                    f"(b, timestep_cond_dim) = {(batch, width)} or (b, f, timestep_cond_dim) = "
                    f"{(batch, frames, width)}"
                )
            emb = timestep_emb if timestep_emb.ndim == 3 else timestep_emb[:, None]
            scale_shift = self.timestep_mlp(emb).movedim(-1, 1)[..., None, None].chunk(2, dim=1)
        out = self.block1(video, scale_shift, temporal)
        out = self.block2(out, enable_time=temporal)
        return as_given(out + self.res_conv(video), x)

    def start_as_identity(self) -> None:
        """Make a block of `dim` = `dim_out` give what it is given."""
        nn.init.zeros_(self.block2.norm.gamma)
