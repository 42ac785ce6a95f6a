"""Small image models of the kinds that exist, for the tests of `inflate`."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from make_a_video_pytorch import InflatedModel, inflate, temporal_parameters


class PixelAttention(nn.Module):
    """(b c h w) -> (b c h w)"""

    def __init__(self, dim: int):
        super().__init__()
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.to_out = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.Dropout(0.0))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.to_qkv(x).reshape(b, 3, c, h * w).mT.unbind(1)
        return self.to_out(F.scaled_dot_product_attention(q, k, v).mT.reshape(b, c, h, w))


class TokenAttention(nn.Module):
    """(b n c) -> (b n c), and the scores, as nn.MultiheadAttention"""

    def __init__(self, dim: int):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.drop = nn.Linear(1, 1)  # registered last, and not what it gives

    def forward(self, scale: float, *, tokens: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        scores = (q @ k.mT * scale).softmax(-1)
        return self.proj(scores @ v), scores


ATTENTION = (PixelAttention, TokenAttention)


@dataclass
class Result:
    sample: Tensor
    note: str = "a dataclass"
    norm: Tensor | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Frozen:
    sample: Tensor
    rows: int = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "rows", self.sample.shape[0])


class Named(NamedTuple):
    sample: Tensor
    note: str


class Noise:
    """Not a container that is known, but it holds tensors."""

    def __init__(self, mean: Tensor):
        self.mean = mean
        self.name = "noise"

    def sample(self) -> Tensor:
        return self.mean + torch.zeros_like(self.mean)


FORMS = {
    "tensor": lambda x: x,
    "tuple": lambda x: (x, 3, x.mean((2, 3))),
    "list": lambda x: [x, None],
    "dict": lambda x: {"sample": x, "inner": {"pooled": x.mean((2, 3))}},
    "ordered": lambda x: OrderedDict(sample=x),
    "named": lambda x: Named(x, "of frames"),
    "dataclass": lambda x: Result(x, norm=x.mean((1, 2, 3))),
    "frozen": lambda x: Frozen(x),
    "object": lambda x: Noise(x),
}


def sample_of(result) -> Tensor:
    """The picture in what a model of any of the FORMS gives."""
    if isinstance(result, dict):
        return result["sample"]
    if isinstance(result, (tuple, list)):
        return result[0]
    if isinstance(result, Noise):
        return result.mean
    return result if isinstance(result, Tensor) else result.sample


class Net(nn.Module):
    """Convolutions of every kind, two kinds of attention, a skip, a timestep, a condition."""

    def __init__(self, form: str = "tensor", reentrant: bool | None = None):
        super().__init__()
        self.form = form
        self.reentrant = reentrant  # of the checkpoints; none if None
        self.conv_in = nn.Conv2d(3, 6, 3, padding=1)
        self.timestep = nn.Linear(1, 6)
        self.down = nn.Conv2d(6, 8, (1, 3), stride=(1, 2), padding=(0, 1), groups=2, bias=False)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.pixels = PixelAttention(8)
        self.tokens = TokenAttention(8)
        self.context = nn.Linear(4, 8)
        self.up = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 6, 3, padding=1))
        self.conv_out = nn.Conv2d(12, 5, 3, padding=1)

    def forward(self, x: Tensor, timestep, *, context=None, low_res=None, given=None):
        b, _, h, w = x.shape
        if low_res is not None:
            x = x + low_res
        if given is not None:
            x = x * given["gain"][0][:, :, None, None]
        x = skip = F.silu(self.conv_in(x))
        t = torch.as_tensor(timestep, dtype=x.dtype).expand(b)
        x = x + self.timestep(t[:, None])[:, :, None, None]
        if self.reentrant is None or not torch.is_grad_enabled():
            x = self.middle(x, context)
        else:
            x = checkpoint(self.middle, x, context, use_reentrant=self.reentrant)
        x = F.interpolate(x, (h, w))
        return FORMS[self.form](self.conv_out(torch.cat((x, skip), dim=1)))

    def middle(self, x: Tensor, context: Tensor | None) -> Tensor:
        x = self.pointwise(F.silu(self.down(x)))
        if context is not None:
            x = x + self.context(context).mean(1)[:, :, None, None]
        x = x + self.pixels(x)
        tokens = x.flatten(2).mT
        tokens = tokens + self.tokens(8**-0.5, tokens=tokens)[0]
        return F.silu(self.up(tokens.mT.reshape(x.shape)))

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Another entry point."""
        return {"low": self.conv_in(x), "pooled": self.conv_in(x).mean((2, 3))}


INFLATED = ["conv_in", "down", "pixels", "tokens", "up", "conv_out"]


def inflated(model: nn.Module, *, moved: bool = False, **kwargs) -> InflatedModel:
    """`model`, inflated; `moved`: with temporal parts that are no longer zero."""
    arguments = dict(attention=ATTENTION, heads=3, dim_head=2)
    video_model = inflate(model, **{**arguments, **kwargs})
    if moved:
        for parameter in temporal_parameters(video_model):
            nn.init.normal_(parameter, 0, 0.3)
    return video_model


class Around(nn.Module):
    """Only calls what it holds, times a factor if asked, and passes on none of its attributes."""

    def __init__(self, inner: nn.Module, factor: float = 1):
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, *args, **kwargs):
        out = self.inner(*args, **kwargs)
        return out if self.factor == 1 else self.factor * out


def plain_net() -> Net:
    """One whose weights lie in its layers alone."""
    net = Net()
    nn.utils.parametrize.remove_parametrizations(net.up, "weight")
    return net


def small_text_unet() -> nn.Module:
    """A UNet2DConditionModel of diffusers."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        in_channels=3, out_channels=3, block_out_channels=(6, 8), norm_num_groups=2,
        layers_per_block=1, cross_attention_dim=5, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip


def parts_of(video_model: InflatedModel) -> dict[str, nn.Module]:
    """The temporal parts, by the names of the modules that are inflated."""
    parts = video_model.temporal
    return {parts.names[key]: part for key, part in parts.items()}


def folded(video: Tensor) -> Tensor:
    """b c f h w -> (b f) c h w, in the plain way."""
    return torch.cat([sample.transpose(0, 1) for sample in video])


def unfolded(images: Tensor, b: int) -> Tensor:
    """(b f) ... -> b f ..., and of pictures b c f h w"""
    stacked = torch.stack(images.chunk(b))
    return stacked.transpose(1, 2) if images.ndim == 4 else stacked
