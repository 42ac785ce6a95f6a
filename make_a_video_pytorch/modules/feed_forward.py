"""The feed-forward: GEGLU, token shift over frames, a norm on the hidden layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from make_a_video_pytorch.ops.checks import at_least, typechecked
from make_a_video_pytorch.ops.decision import Temporal, as_video
from make_a_video_pytorch.ops.layout import as_given
from make_a_video_pytorch.ops.norm import RMSNorm
from make_a_video_pytorch.ops.parameters import acts_across_frames
from make_a_video_pytorch.ops.past import Past


class GEGLU(nn.Module):
    """GEGLU (Shazeer 2020, Equation 5) on the last dimension: (... 2d) -> (... d).

    Of fp16 it makes fp32, in which the product of two large features stays finite.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float16:
            x = x.float()
        x, gate = x.chunk(2, dim=-1)
        return x * F.gelu(gate)


class TokenShift(nn.Module):
    """Mix each feature with the same feature one frame earlier; before the first frame is zero.

    Token shift (BlinkDL 2021, RWKV-LM) over frames, with a learned mix per channel that starts
    at zero, the identity. A mix of 1 shifts a channel entirely.

    Shapes: (b f h w dim) -> (b f h w dim).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        shifted = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]
        return torch.lerp(x, shifted, self.mix.to(x.dtype))


class NormedProjection(nn.Sequential):
    """A norm and a projection, (... inner_dim) -> (... dim); `dtype` is that of the latter."""

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        norm, project = self
        x = norm(x)
        out: Tensor = project(x if dtype is None else x.to(dtype))
        return out


class FeedForward(nn.Module):
    """GEGLU, token shift over frames, and a norm on the hidden layer, as in NormFormer.

    Shazeer 2020 (Equation 6) at two thirds of the width, so that the parameters are those of a
    plain feed-forward of `mult`; NormFormer (Shleifer et al. 2021) for the norm.

    Shapes: image (b dim h w) or video (b dim f h w), returned unchanged.

    Args:
        dim: channels in and out.
        mult: hidden width of the equivalent plain feed-forward, as a multiple of `dim`.
    """

    @typechecked
    def __init__(self, dim: int, mult: int | float = 4) -> None:
        super().__init__()
        at_least(1, dim=dim)
        inner_dim = int(dim * mult * 2 / 3)
        if inner_dim < 1:
            raise ValueError(f"`mult` (={mult}) with `dim` (={dim}) leaves no hidden features")
        self.dim = dim
        self.proj_in = nn.Sequential(nn.Linear(dim, inner_dim * 2, bias=False), GEGLU())
        self.token_shift = TokenShift(inner_dim)
        self.proj_out = NormedProjection(
            RMSNorm(inner_dim, dim=-1), nn.Linear(inner_dim, dim, bias=False)
        )
        acts_across_frames(self, "token_shift")

    def forward(self, x: Tensor, enable_time: bool | Tensor | Temporal = True) -> Tensor:
        """Apply to an image or a video; with `enable_time=False`, without the token shift.

        Raises:
            ValueError: if `x` is neither an image nor a video, or not of `dim` channels, or if
                `enable_time` is a tensor but not (b) of bools.
        """
        video, temporal = as_video(x, self.dim, enable_time)
        tokens = self.proj_in(video.movedim(1, -1))
        if temporal.runs:  # looks back only, and so never at padding
            tokens = temporal.choose(self.shifted(tokens, temporal.past), tokens)
        dtype = torch.float16 if video.dtype == torch.float16 else None
        return as_given(self.proj_out(tokens, dtype).movedim(-1, 1), x)

    def shifted(self, tokens: Tensor, past: Past | None) -> Tensor:
        """The token shift of `tokens` (b f h w d), which follow those of the `past`."""
        out: Tensor = self.token_shift(tokens if past is None else past.extend(tokens, 1))
        return out if past is None else out[:, 1:]

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        # 0.4.0 has 1x1x1 convolutions, and shifts the second half of the hidden layer outright
        weight = state_dict.get(prefix + "proj_in.0.weight")
        if weight is not None and weight.ndim == 5:
            for name in ("proj_in.0.weight", "proj_out.1.weight"):
                state_dict[prefix + name] = state_dict[prefix + name].flatten(1)
            mix = weight.new_zeros(weight.shape[0] // 2)
            mix[(mix.shape[0] + 1) // 2 :] = 1
            state_dict[prefix + "token_shift.mix"] = mix
        super()._load_from_state_dict(state_dict, prefix, *args)
