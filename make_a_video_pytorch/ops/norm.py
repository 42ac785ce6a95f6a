"""Root mean square normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from make_a_video_pytorch.ops.checks import at_least, typechecked
from make_a_video_pytorch.ops.gradients.norm import rms_norm


class RMSNorm(nn.Module):
    """RMSNorm (Zhang and Sennrich 2019, Equation 4) over one dimension, with a learned gain.

    Statistics are taken in fp32 at least and the input's dtype is returned.

    Shapes: any shape with `chan` entries in dimension `dim`, returned unchanged.

    Args:
        chan: size of the normalised dimension.
        dim: which dimension that is.
    """

    @typechecked
    def __init__(self, chan: int, dim: int = 1) -> None:
        super().__init__()
        at_least(1, chan=chan)
        self.dim = dim
        self.gamma = nn.Parameter(torch.ones(chan))

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(self.dim, -1)
        return rms_norm(last, self.gamma.to(x.dtype), epsilon(x.dtype)).movedim(-1, self.dim)

    def then_silu(self, x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        """`silu(self(x) * (scale + 1) + shift)`; both or none of the two are given."""
        axis = self.dim % x.ndim - x.ndim  # from behind, where what broadcasts is aligned
        scale, shift = (
            t if t is None else t[(None,) * (x.ndim - t.ndim)].movedim(axis, -1)
            for t in (scale, shift)
        )
        last, gamma = x.movedim(axis, -1), self.gamma.to(x.dtype)
        out = rms_norm(last, gamma, epsilon(x.dtype), scale, shift, silu=True)
        return out.movedim(-1, axis)

    def extra_repr(self) -> str:
        return f"{self.gamma.shape[0]}, dim={self.dim}"


def epsilon(dtype: torch.dtype) -> float:
    """What is added to the mean square in `dtype`.

    Small enough to vanish beside any real activation, large enough that the gradient at an exact
    zero, 1 / sqrt(eps), is finite.
    """
    return 1e-6 if dtype == torch.float16 else 1e-12
