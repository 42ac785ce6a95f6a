"""Positions: sinusoids of the timestep, a continuous relative bias, rotary."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from make_a_video_pytorch.ops.checks import at_least, typechecked


class SinusoidalPosEmb(nn.Module):
    """Sines and cosines of a number at geometrically spaced frequencies.

    The code of positions of Vaswani et al. 2017 (section 3.5), as used for diffusion timesteps
    by Ho et al. 2020. Computed in fp32 at least, whatever the input's dtype.

    Shapes: (n) -> (n dim). An odd `dim` ends in a zero.

    Args:
        dim: width of the embedding, at least 2.
        theta: ratio of the longest period to the shortest.
    """

    @typechecked
    def __init__(self, dim: int, theta: float | int = 10_000) -> None:
        super().__init__()
        at_least(2, dim=dim)
        self.dim = dim
        self.theta = theta

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        half = self.dim // 2
        steps = torch.arange(half, device=x.device, dtype=x.dtype)
        angles = x[:, None] * torch.exp(steps * -(math.log(self.theta) / max(half - 1, 1)))
        odd = x.new_zeros(x.shape[0], self.dim % 2)
        return torch.cat((angles.sin(), angles.cos(), odd), dim=-1)


class ContinuousPositionBias(nn.Module):
    """A bias on attention scores: a small MLP of the offset between two positions.

    Swin Transformer V2 (Liu et al. 2022, section 3.3, Equation 3). It has no maximum size; in
    bfloat16, which holds whole numbers up to 256, larger offsets share their neighbours' bias.

    Shapes: sizes (s_1, ..., s_num_dims) -> (heads n n), n their product; entry (i, j) belongs to
    the offset from j to i. `device` and `dtype` are those of what attends, torch's default ones if
    left out. Of one dimension the rows may be those of the `last` positions only: (heads last n).

    Args:
        dim: hidden width of the MLP.
        heads: attention heads, each with a bias of its own.
        num_dims: 1 for frames, 2 for height and width.
        layers: hidden layers.
    """

    @typechecked
    def __init__(self, *, dim: int, heads: int, num_dims: int = 1, layers: int = 2) -> None:
        super().__init__()
        at_least(1, dim=dim, heads=heads, num_dims=num_dims, layers=layers)
        self.num_dims = num_dims
        widths = [num_dims, *[dim] * layers]
        self.net = nn.ModuleList(
            nn.Sequential(nn.Linear(width, dim), nn.SiLU()) for width in widths[:-1]
        )
        self.net.append(nn.Linear(dim, heads))

    def forward(
        self,
        *dimensions: int,
        last: int | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        if len(dimensions) != self.num_dims:
            raise ValueError(
                f"`dimensions` (={dimensions}) must be {self.num_dims} sizes, as `num_dims` says"
            )
        dtype = torch.get_default_dtype() if dtype is None else dtype
        offsets = [
            torch.arange(1 - size, size, device=device, dtype=dtype) for size in dimensions
        ]
        table = torch.stack(torch.meshgrid(*offsets, indexing="ij"), dim=-1)
        for layer in self.net:
            table = layer(table)
        index = self.offset_index(*dimensions, last=last, device=table.device)
        bias = table.flatten(0, -2).t().index_select(1, index.flatten())
        return bias.view(-1, *index.shape)

    def start_as_identity(self) -> None:
        """Make the bias zero."""
        for parameter in self.net[-1].parameters():
            nn.init.zeros_(parameter)

    def offset_index(
        self, *dimensions: int, last: int | None, device: torch.device
    ) -> Tensor:
        """Where the offset from token j to token i (n n) stands in the flattened table."""
        if last is not None:
            (size,) = dimensions
            position = torch.arange(size, device=device)
            return position[size - last :, None] - position + size - 1
        index = torch.zeros((), dtype=torch.long, device=device)
        for axis, size in enumerate(dimensions):
            position = torch.arange(size, device=device)
            offset = position[:, None] - position + size - 1
            shape = [size if d % self.num_dims == axis else 1 for d in range(2 * self.num_dims)]
            index = index * (2 * size - 1) + offset.view(shape)
        tokens = math.prod(dimensions)
        return index.reshape(tokens, tokens)


class RotaryPositions(nn.Module):
    """Rotary positions (RoFormer, Su et al. 2021, section 3.2), axial over several dimensions.

    Each axis rotates an equal share of the pairs of features, by angles in proportion to the
    position on it. Attention then depends on offsets only; there is no maximum size and no
    parameter, and the scores need no bias, so that the pure flash kernel applies.

    Shapes: sizes (s_1, ..., s_num_dims) -> angles (n, dim_head / 2) in fp32, or in the wider
    `dtype` of what attends, n their product. Of each dimension the first position is `first`.

    Args:
        dim_head: width of a head, divisible by twice `num_dims`.
        num_dims: 1 for frames, 2 for height and width.
        theta: ratio of the longest period to the shortest.
    """

    @typechecked
    def __init__(self, dim_head: int, *, num_dims: int = 1, theta: float | int = 10_000) -> None:
        super().__init__()
        at_least(1, dim_head=dim_head, num_dims=num_dims)
        if dim_head % (2 * num_dims):
            raise ValueError(
                f"`dim_head` (={dim_head}) must be divisible by {2 * num_dims} for rotary "
                f"positions over {num_dims} dimension(s)"
            )
        self.dim_head = dim_head
        self.num_dims = num_dims
        self.theta = theta

    def forward(
        self,
        *dimensions: int,
        first: int = 0,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        pairs = self.dim_head // (2 * self.num_dims)
        dtype = torch.promote_types(dtype, torch.float32)
        steps = torch.arange(pairs, device=device, dtype=dtype)
        frequencies = self.theta ** -(steps / pairs)
        axes = [
            torch.arange(first, first + size, device=device, dtype=dtype) for size in dimensions
        ]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        return (grid[..., None] * frequencies).reshape(-1, self.dim_head // 2)

    def extra_repr(self) -> str:
        return f"{self.dim_head}, num_dims={self.num_dims}, theta={self.theta:g}"


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate the pairs (k, k + d/2) of the features of `x` by `angles`.

    Shapes: `x` (b n g d), `angles` (n, d / 2); returns the shape and dtype of `x`.
    """
    angles = angles[:, None, :]
    first, second = x.to(torch.promote_types(x.dtype, angles.dtype)).chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def positions(
    rel_pos_bias: ContinuousPositionBias | None,
    rotary: RotaryPositions | None,
    sizes: tuple[int, ...],
    *,
    like: Tensor,
    span: tuple[int, ...] | None = None,
    last: int | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """The bias over a `span` and the rotary angles over the grid of `sizes`, where there are such.

    The bias depends on offsets only; windowed attention needs it for fewer of them. Where only
    the `last` tokens attend, it has their rows, and angles are zero at the first of these: their
    own distances, which matter most, are then exact however long a stream is.
    """
    bias = angles = None
    if rel_pos_bias is not None:
        rows = {} if last is None else {"last": last}
        bias = rel_pos_bias(*(span or sizes), **rows, device=like.device, dtype=like.dtype)
    if rotary is not None:
        first = {} if last is None else {"first": last - sizes[0]}
        angles = rotary(*sizes, **first, device=like.device, dtype=like.dtype)
    return bias, angles
