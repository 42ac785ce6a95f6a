"""Modules and calls of them that Hypothesis draws, for the properties that hold for all.

Letters: b batch, c channels, f frames, h height, w width, n tokens, d features.
"""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import hypothesis.strategies as st
import torch
from hypothesis import assume
from torch import Tensor, nn

from make_a_video_pytorch import (
    Downsample,
    PseudoConv3d,
    ResnetBlock,
    SpaceTimeUnet,
    SpatioTemporalAttention,
    Upsample,
)
from make_a_video_pytorch.modules.feed_forward import FeedForward
from tests.zoo import randomize

Arguments = dict[str, object]

# A case: a module and a call of it


def with_last(t: Tensor, axis: int) -> Tensor:
    """`t` with this axis last in memory."""
    return t.movedim(axis, -1).contiguous().movedim(-1, axis)


STRIDES = {
    "contiguous": lambda t: t,
    "channels last": lambda t: with_last(t, min(1, t.ndim - 1)),
    "batch last": lambda t: with_last(t, 0),
    "sliced": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda t: t[:1].expand_as(t),
}

# Which arguments have frames, with how many dimensions and on which axis
FRAMES = {("x", 5): 2, ("cond_images", 5): 2, ("timestep", 2): 1, ("timestep_emb", 3): 1}


class Of(NamedTuple):
    """A tensor yet to be made."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None = None  # the module's if None
    strides: str = "contiguous"

    def make(self, dtype: torch.dtype) -> Tensor:
        dtype = self.dtype or dtype
        if dtype.is_floating_point:
            t = torch.randn(self.shape, dtype=torch.float64).to(dtype)
        else:
            t = torch.randint(2 if dtype == torch.bool else 100, self.shape).to(dtype)
        return STRIDES[self.strides](t) if self.shape else t


class Case(NamedTuple):
    kind: type[nn.Module]
    options: Arguments
    x: Of
    more: Arguments  # `enable_time` as bools, `frame_mask` as the lengths of the clips
    seed: int

    def make(self, dtype: torch.dtype = torch.float32, scale: float | None = None):
        """The module, `x` and the further arguments, with NaN where a mask hides them.

        The weights are those of a new module, or random ones of a `scale`.
        """
        torch.manual_seed(self.seed)
        module = self.kind(**self.options).to(dtype)
        if scale is not None:
            randomize(module, scale)
        more = {"x": self.x, **self.more}
        more = {k: v.make(dtype) if isinstance(v, Of) else v for k, v in more.items()}
        if "enable_time" in more:
            more["enable_time"] = torch.tensor(more["enable_time"])
        if "context_mask" in more:
            more["context"] = spoiled(more["context"], more["context_mask"])
        if "frame_mask" in more:
            real = torch.arange(self.x.shape[2]) < torch.tensor(more["frame_mask"])[:, None]
            padded = {k: v for k, v in more.items() if k != "timestep_emb"}
            more |= by_frames(padded, lambda t: spoiled(t, real)) | {"frame_mask": real}
        return module, more.pop("x"), more


def spoiled(t: Tensor, real: Tensor) -> Tensor:
    """`t` (b n ...) with NaN where `real` (b n) is False."""
    hidden = ~real.view(*real.shape, *[1] * (t.ndim - 2))
    return t.masked_fill(hidden, torch.nan) if t.is_floating_point() else t


def by_frames(more: Arguments, change: Callable[[Tensor], Tensor]) -> Arguments:
    """`more` with `change` made to what has several frames, as (b f ...)."""
    more = dict(more)
    for (name, ndim), axis in FRAMES.items():
        t = more.get(name)
        if isinstance(t, Tensor) and t.ndim == ndim and t.shape[axis] > 1:
            more[name] = change(t.movedim(axis, 1)).movedim(1, axis)
    return more


def of_sample(more: Arguments, i: int, batch: int) -> Arguments:
    """The arguments of one sample; what stands for all stays."""
    return {
        name: v[i : i + 1] if isinstance(v, Tensor) and v.shape[:1] == (batch,) else v
        for name, v in more.items()
    }


# How cases are drawn


def among(*entries: object) -> st.SearchStrategy:
    return st.sampled_from(entries)


DIM, FEW, FLAG = st.integers(2, 10), st.integers(1, 3), st.booleans()
ON, OFF = st.just(True), st.just(False)
SELDOM, OFTEN = among(False, True), among(True, False)
HEAD, MULT = among(4, 8, 1, 3), among(2, 2.5)
NUMBER = st.integers(0, 999) | st.floats(0, 999, width=32)
DTYPES = (None, torch.float32, torch.float64, torch.bfloat16, torch.int64)
NUMBERS = (*DTYPES, torch.float16, torch.int32, torch.uint8)


def tensor(*shapes: tuple[int, ...], dtypes: tuple = (None,)) -> st.SearchStrategy[Of]:
    return st.builds(Of, among(*shapes), among(*dtypes), among(*STRIDES))


def table(needed: dict, **optional: st.SearchStrategy) -> st.SearchStrategy[Arguments]:
    """What is needed, and each of the optional ones or not."""
    entries = needed | {name: st.none() | entry for name, entry in optional.items()}
    return st.fixed_dictionaries(entries).map(
        lambda table: {name: entry for name, entry in table.items() if entry is not None}
    )


def unets(stages: int) -> st.SearchStrategy[Arguments]:
    ints, flags = (st.tuples(*[entry] * stages) for entry in (FEW, FLAG))
    needed = dict(
        dim=DIM, dim_mult=ints, self_attns=flags, temporal_compression=flags,
        resnet_block_depths=ints, attn_dim_head=HEAD, attn_heads=FEW,
    )  # fmt: skip
    return table(
        needed, channels=FEW, condition_on_timestep=OFTEN, attn_pos_bias=OFF, flash_attn=OFF,
        causal_time_attn=SELDOM, attn_rotary=ON, causal=SELDOM, channels_out=FEW, cond_channels=FEW,
        cond_dim=DIM, context_dim=DIM, condition_on_fps=ON, temporal_window=FEW,
        gradient_checkpointing=ON, condition_on_noise_level=ON,
    )  # fmt: skip


ONE = dict(dim=DIM)
KINDS = {
    PseudoConv3d: table(
        ONE, dim_out=DIM, kernel_size=st.integers(1, 7), temporal_kernel_size=FEW, causal=SELDOM,
    ),
    FeedForward: table(ONE, mult=MULT),
    Downsample: table(ONE, downsample_space=OFF, downsample_time=ON, nonlin=ON),
    Upsample: table(ONE, upsample_space=OFF, upsample_time=ON, nonlin=ON),
    ResnetBlock: table(ONE | dict(dim_out=DIM), timestep_cond_dim=DIM, causal=SELDOM),
    SpatioTemporalAttention: table(
        ONE | dict(dim_head=HEAD, heads=FEW), add_feed_forward=OFF, ff_mult=MULT, pos_bias=OFF,
        flash=OFF, causal_time_attn=SELDOM, rotary=ON, temporal_window=FEW, context_dim=DIM,
    ),
    SpaceTimeUnet: st.integers(1, 2).flatmap(unets),
}  # fmt: skip


def halvings(options: Arguments) -> int:
    """How often frames are halved or doubled."""
    times = (options.get(f"{way}sample_time", False) for way in ("down", "up"))
    return sum((*times, *options.get("temporal_compression", ())))


def fitting(options: Arguments) -> Arguments:
    """`options` but for those that do not go together."""
    options = dict(options)
    if options.get("causal") and "temporal_compression" in options:
        options["temporal_compression"] = (False,) * len(options["dim_mult"])
    if options.keys() & {"rotary", "attn_rotary"}:
        name = "dim_head" if "dim_head" in options else "attn_dim_head"
        options[name] *= 4
    if not halvings(options):
        options = {k: v for k, v in options.items() if "sample_space" not in k}
    return options


@st.composite
def cases(draw, *kinds, least=0, most=6, where=lambda options: True, needs=(), **chosen):
    """Cases of these kinds, or of all, with so many frames (0: an image).

    Options are as `chosen` and such as `where` allows; the arguments that a test `needs` are given.
    """
    kind = draw(among(*(kinds or (*KINDS, *[SpaceTimeUnet] * 8))))
    options = draw(KINDS[kind].map(lambda options: fitting(options | chosen)).filter(where))
    multiple, unet, b = 2 ** halvings(options), kind is SpaceTimeUnet, draw(FEW)
    f = draw(among(*(f for f in range(least, most + 1) if f < 2 or f % multiple == 0)))
    halved = len(options["dim_mult"]) if unet else kind is Downsample
    h, w = (2**halved * draw(st.integers(1, 12 // 2**halved)) for _ in "hw")
    c = options.get("channels", 3) if unet else options["dim"]

    needed, offered = {}, {}
    if unet and options.get("condition_on_timestep", True):
        of_frames = tensor((b, f or 1), dtypes=NUMBERS)
        needed["timestep"] = NUMBER | tensor((), (1,), (b,), (b, 1), dtypes=NUMBERS) | of_frames
    if "timestep_cond_dim" in options:
        d = options["timestep_cond_dim"]
        needed["timestep_emb"] = tensor((b, d), (b, f or 1, d))
    if unet or multiple == 1:
        offered["enable_time"] = st.tuples(*[FLAG] * b)
    if "condition_on_fps" in options:
        offered["fps"] = st.integers(1, 60) | tensor((), (b,), dtypes=NUMBERS)
    if "condition_on_noise_level" in options:
        offered["noise_level"] = st.integers(0, 999) | tensor((), (b,), dtypes=NUMBERS)
    if "cond_dim" in options:
        offered["cond"] = tensor((b, options["cond_dim"]), dtypes=DTYPES)
    if "context_dim" in options:
        shapes = ((b, n, options["context_dim"]) for n in range(4))
        offered |= dict(context=tensor(*shapes, dtypes=DTYPES), context_mask=ON)
    if "cond_channels" in options:
        shapes = ((b, options["cond_channels"], *frames, h, w) for frames in ((), (1,), (f or 1,)))
        offered["cond_images"] = tensor(*shapes, dtypes=DTYPES)
    if f and "frame_mask" in inspect.signature(kind.forward).parameters:
        offered["frame_mask"] = st.tuples(*[st.integers(0, f)] * b)
    assume(offered.keys() >= set(needs))
    more = draw(table(needed | {name: offered.pop(name) for name in needs}, **offered))
    if more.pop("context_mask", False) and "context" in more:
        more["context_mask"] = Of(more["context"].shape[:2], torch.bool)
    if "frame_mask" in more and f > 1:  # a video's length is a multiple
        videos = more.get("enable_time", [True] * b)
        lengths = zip(more["frame_mask"], videos, strict=True)
        more["frame_mask"] = tuple(n - n % multiple if video else n for n, video in lengths)
    x = draw(tensor((b, c, f, h, w) if f else (b, c, h, w)))
    return Case(kind, options, x, more, draw(st.integers(0, 99)))
