"""Numbers, such as a diffusion timestep, as vectors that residual blocks are conditioned on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from make_a_video_pytorch.ops.checks import at_least, must_be_tensor, typechecked
from make_a_video_pytorch.ops.parameters import zero_init
from make_a_video_pytorch.ops.positions import SinusoidalPosEmb


class NumberEmbedding(nn.Sequential):
    """Sinusoids of numbers, a projection of them, and what may follow.

    Shapes: numbers of any shape (...) and dtype -> (... emb_dim) in `dtype`, fp32 if None, which
    the projection's weights must have.
    """

    def forward(self, numbers: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        sinusoid, *layers = self
        emb: Tensor = sinusoid(numbers.flatten())
        emb = emb.to(torch.float32 if dtype is None else dtype)
        for layer in layers:
            emb = layer(emb)
        return emb.view(*numbers.shape, emb.shape[-1])

    if TYPE_CHECKING:
        __call__ = forward

    def start_as_identity(self) -> None:
        """Make the embedding zero."""
        zero_init(self[1])


class TimestepEmbedding(nn.Module):
    """The embedding of a diffusion timestep that a `ResnetBlock` takes, as `SpaceTimeUnet` has it.

    Sinusoids (Ho et al. 2020, appendix B), a projection and a SiLU. Sinusoids are taken in fp32,
    whatever the dtype of the timestep; a block of another dtype takes the embedding in that one.

    Shapes: timesteps (b), or a frame its own (b f), of any dtype -> (b [f] emb_dim) in `dtype`,
    which is that of the weights.

    Args:
        dim: width of the sinusoids, at least 2.
        emb_dim: width of the embedding, the block's `timestep_cond_dim`; four times `dim` if
            None.

    Example:
        >>> embed = TimestepEmbedding(16)
        >>> block = ResnetBlock(8, 8, timestep_cond_dim=64)
        >>> emb = embed(torch.tensor([250, 999]))
        >>> block(torch.randn(2, 8, 5, 16, 16), emb).shape
        torch.Size([2, 8, 5, 16, 16])
    """

    @typechecked
    def __init__(self, dim: int, emb_dim: int | None = None) -> None:
        super().__init__()
        at_least(2, dim=dim)
        emb_dim = dim * 4 if emb_dim is None else emb_dim
        at_least(1, emb_dim=emb_dim)
        self.net = NumberEmbedding(SinusoidalPosEmb(dim), nn.Linear(dim, emb_dim), nn.SiLU())

    def forward(self, timestep: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Embed timesteps.

        Args:
            timestep: timesteps (b) or (b f), of any dtype.
            dtype: that of the projection's weights, and of the embedding; fp32 if None.

        Raises:
            TypeError: if `timestep` is no tensor.
        """
        must_be_tensor(timestep=timestep)
        return self.net(timestep, dtype)

    if TYPE_CHECKING:
        __call__ = forward
