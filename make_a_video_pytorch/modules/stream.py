"""Video without end: a causal module that is given one chunk of frames after another.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from make_a_video_pytorch.ops.checks import must_be_floating, typechecked
from make_a_video_pytorch.ops.decision import Temporal
from make_a_video_pytorch.ops.past import AGAIN, Past
from make_a_video_pytorch.ops.torch_internals import is_in_backward

R = TypeVar("R")


class Stream(Generic[R]):
    """A causal module that takes a video in chunks, and gives what the whole video would.

    What later frames see of earlier ones is kept: the last frames before each convolution over
    frames and each token shift, and the keys and values of attention over frames (Vaswani et al.
    2017; a cache of these is common in language models). With a `temporal_window` that is as much
    after a hundred thousand frames as after a hundred, and so is the time that a frame takes.

    What is streamed is a video from its first frame on, so that a chunk of one frame is no image.
    Streams of one module know nothing of each other. `copy.copy` makes one that goes on from the
    same frames with the same module; `copy.deepcopy` and pickle take the module along.

    Chunks of one size are one graph for a compiler from the second on, if there is a window
    (`module.compile()`, in place). So that it can be written again, the last chunk that was
    committed is kept beside what the next one sees.

    `module.stream()` makes one of a SpaceTimeUnet, a ControlBranch, a PseudoConv3d, a ResnetBlock,
    a SpatioTemporalAttention or an InflatedModel, and `Stream(model)` of a model of your own that
    is built of such and hands its `enable_time` on to them. What it does besides must look at no
    other frame.

    Args:
        module: what computes a chunk.
        detach: whether gradients end where a chunk begins; else they flow through all that was
            committed, which memory then grows with.

    Attributes:
        frames: how many are committed.

    Raises:
        ValueError: if a frame depends on later ones.

    Example:
        >>> conv = PseudoConv3d(4, causal=True)
        >>> video, stream = torch.randn(1, 4, 7, 8, 8), conv.stream()
        >>> chunks = [stream(chunk) for chunk in video.split([2, 1, 4], dim=2)]
        >>> torch.allclose(torch.cat(chunks, dim=2), conv(video), atol=1e-6)
        True
    """

    @typechecked
    def __init__(self, module: nn.Module, *, detach: bool = True) -> None:
        must_be_causal(module)
        self.module = module
        self.detach = detach
        self.reset()

    def reset(self) -> None:
        """Begin a new video."""
        self.frames = 0
        self.seen: Tensor | None = None
        self.kept: tuple[Tensor, ...] = ()
        self.whole: tuple[Tensor, ...] = ()  # what the last chunk saw, with itself
        self.last = 0  # frames of the last chunk, until it is rewound
        self.like: tuple[tuple[int, ...], torch.device] | None = None

    def __call__(self, x: Tensor, /, *args: object, commit: bool = True, **kwargs: object) -> R:
        """Compute the next chunk.

        Args:
            x: the frames (b c f h w) that follow those that are committed, one or more.
            args, kwargs: further arguments of the module, of this chunk: its timestep, its
                conditions.
            commit: whether the chunks that follow come after this one; else all is as if it had
                not been computed, as for the steps of denoising it.

        Raises:
            ValueError: if `x` is no video, or of another batch, size or device than the chunks
                before it, if it has padding, if the module has changed since, or if a part of a
                model of your own is not handed its `enable_time`. What was committed stays as it
                is.
        """
        must_follow(x, self.like)
        for name in ("frame_mask", "enable_time"):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f"`{name}` must be left out of a stream, whose frames are all of one video"
                )
        if is_in_backward():
            raise ValueError(AGAIN)
        seen = x.new_zeros((), dtype=torch.long) if self.seen is None else self.seen
        past = Past(self.frames, seen, self.kept)
        out = self.compute(past, x, *args, **kwargs)
        left = past.take()
        if commit:
            self.whole = tuple(whole.detach() if self.detach else whole for whole, _ in left)
            self.kept = tuple(
                whole if most is None else cut(whole, whole.shape[1] - most, whole.shape[1])
                for whole, (_, most) in zip(self.whole, left, strict=True)
            )
            self.last, self.like = x.shape[2], appearance(x)
            self.frames, self.seen = self.frames + self.last, seen + self.last
        return out

    def compute(self, past: Past, x: Tensor, /, *args: object, **kwargs: object) -> R:
        """What the module makes of a chunk that follows the `past`."""
        module = cast("Streamable[R]", self.module)
        if isinstance(module, Streamable):
            return module.chunk(past, x, *args, **kwargs)
        first = not self.frames and not torch.compiler.is_compiling()
        with handed(self.module, past) if first else nullcontext():
            out: R = handed_on(module, past, x, *args, **kwargs)
        return out

    def rewind(self) -> None:
        """Take the last chunk that was committed back, to write it again.

        So it can be computed at the noise level that later ones are to see it at.

        Raises:
            ValueError: if none was committed since the last `rewind` or `reset`.
        """
        if not self.last:
            raise ValueError("`rewind` takes one chunk back, and none was committed since")
        assert self.seen is not None
        self.kept = tuple(cut(whole, 0, whole.shape[1] - self.last) for whole in self.whole)
        self.whole = ()
        self.frames -= self.last
        self.seen = self.seen - self.last
        self.last = 0
        if not self.frames:
            self.reset()


class Streamable(Generic[R]):
    """What a module of this library has that can be streamed where it is causal."""

    def stream(self, *, detach: bool = True) -> Stream[R]:
        """A `Stream` of this module, which computes a video chunk by chunk.

        Args:
            detach: whether gradients end where a chunk begins.

        Raises:
            ValueError: if a frame depends on later ones.
        """
        return Stream(cast("nn.Module", self), detach=detach)

    def chunk(self, past: Past, x: Tensor, /, *args: object, **kwargs: object) -> R:
        """What it makes of a chunk `x` (b c f h w) of a video that follows the `past`."""
        out: R = handed_on(cast("Callable[..., R]", self), past, x, *args, **kwargs)
        return out


def handed_on(
    model: Callable[..., R], past: Past, x: Tensor, /, *args: object, **kwargs: object
) -> R:
    """What a `model` makes of a chunk that hands its `enable_time` on to what sees the `past`."""
    return model(x, *args, **kwargs, enable_time=Temporal(True, past=past))


def cut(whole: Tensor, start: int, stop: int) -> Tensor:
    """The frames from `start` to `stop` of `whole` (b f ...), laid out as if there were no more."""
    return whole[:, start:stop].contiguous()


def must_be_causal(module: nn.Module) -> None:
    """Raise a ValueError that names what in `module` cannot be streamed."""
    for name, part in module.named_modules():
        if isinstance(part, nn.DataParallel):
            raise ValueError(
                f"`{name or 'module'}` (a DataParallel) must be left out of a stream: its threads "
                "would share one past"
            )
        if getattr(part, "looks_ahead", False) is True:
            raise ValueError(
                f"`{name or 'module'}` (a {type(part).__name__}) must be causal, to be streamed: "
                "its frames depend on later ones"
            )


@contextmanager
def handed(model: nn.Module, past: Past) -> Iterator[None]:
    """Raise a ValueError that names a part which is called and not given the `past` meanwhile."""

    def look(
        name: str, part: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        given = (*args, *kwargs.values())
        if not any(isinstance(value, Temporal) and value.past is past for value in given):
            raise ValueError(
                f"`{name}` (a {type(part).__name__}) must be handed the `enable_time` of the "
                "model, to be streamed"
            )

    hooks = [
        part.register_forward_pre_hook(partial(look, name), with_kwargs=True)
        for name, part in model.named_modules()
        if getattr(part, "looks_back", False) is True
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def appearance(x: Tensor) -> tuple[tuple[int, ...], torch.device]:
    """What all chunks of a video have in common: (b c h w), and where they are."""
    return (*x.shape[:2], *x.shape[3:]), x.device


def must_follow(x: Tensor, like: tuple[tuple[int, ...], torch.device] | None) -> None:
    """Raise a ValueError for a chunk that cannot follow those that are `like` this."""
    must_be_floating(x=x)
    if x.ndim != 5:
        raise ValueError(f"`x` (shape {tuple(x.shape)}) must be a video (b c f h w) in a stream")
    if like is None or like == appearance(x):
        return
    shape, device = like
    raise ValueError(
        f"`x` (shape {tuple(x.shape)}, on {x.device}) must be (b c f h w) with (b c h w) = {shape} "
        f"on {device}, as the chunks before it: `reset` begins a new video"
    )
