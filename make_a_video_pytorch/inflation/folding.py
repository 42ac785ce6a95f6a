"""Videos among the arguments and results of functions that know images only.

Letters: b batch, c channels, f frames, h height, w width. A clip is (b, f).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from make_a_video_pytorch.ops.checks import typechecked
from make_a_video_pytorch.ops.layout import memory_format_of
from make_a_video_pytorch.ops.trees import map_leaves


class PerFrame(NamedTuple):
    """A tensor with an entry for each frame: a tuple, so that DDP moves it to its device."""

    tensor: Tensor


@typechecked
def per_frame(tensor: Tensor) -> PerFrame:
    """Mark `tensor` (b f ...) as one with an entry for each frame of the video beside it.

    An `InflatedModel` gives all frames of a sample the same conditioning, except what is a video
    (b c f h w) itself or marked so: a pose for each frame, or its own timestep (Diffusion
    Forcing, Chen et al. 2024).

    Args:
        tensor: (b f ...), b samples of as many frames as the video has.

    Returns:
        What to give the model in the place of `tensor`.

    Raises:
        TypeError: if `tensor` is no tensor.
        ValueError: if it has fewer than 2 dimensions.

    Example:
        >>> class Denoiser(nn.Conv2d):
        ...     def forward(self, x, t):
        ...         return super().forward(x + t[:, None, None, None])
        >>> video_model = inflate(Denoiser(3, 3, 3))
        >>> video_model(torch.randn(2, 3, 4, 8, 8), per_frame(torch.rand(2, 4))).shape
        torch.Size([2, 3, 4, 6, 6])
    """
    if tensor.ndim < 2:
        raise ValueError(f"`tensor` (shape {tuple(tensor.shape)}) must be (b, f, ...)")
    return PerFrame(tensor)


def clip_of(args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[int, int] | None:
    """How many samples and frames the videos among the arguments have; None without a video.

    Raises:
        ValueError: if a video has no frames, if two disagree, or if an argument is marked by
            `per_frame` and is not of so many samples and frames.
    """
    videos: dict[str, Tensor] = {}
    marked: dict[str, Tensor] = {}

    def collect(leaf: object, name: str) -> object:
        if isinstance(leaf, PerFrame):
            marked[name] = leaf.tensor
        elif isinstance(leaf, Tensor) and leaf.ndim == 5:
            videos[name] = leaf
        return leaf

    map_arguments(collect, args, kwargs)
    if not videos:
        for name in marked:
            raise ValueError(f"`{name}` is marked `per_frame`, which needs a video (b c f h w)")
        return None
    name, video = next(iter(videos.items()))
    first = called(name, video)
    b, f = video.shape[0], video.shape[2]
    if f == 0:
        raise ValueError(f"{first} must have frames, as a video (b c f h w)")
    for name, other in videos.items():
        if other.shape[0] != b or other.shape[2] != f:
            raise ValueError(
                f"{called(name, other)} must be a video (b c f h w) with b = {b} and f = {f}, as "
                f"{first}, or (b f ...) and marked by `per_frame`"
            )
    for name, tensor in marked.items():
        if tensor.shape[0] != b or tensor.shape[1] != f:
            raise ValueError(
                f"{called(name, tensor)}, marked `per_frame`, must be (b, f, ...) with b = {b} and "
                f"f = {f}, as {first}, a video (b c f h w)"
            )
    return b, f


def called(name: str, tensor: Tensor) -> str:
    """What messages call an argument."""
    return f"`{name}` (shape {tuple(tensor.shape)})"


def fold(leaf: object, clip: tuple[int, int]) -> object:
    """An argument with the frames of the `clip` in the batch.

    A video (b c f h w) and what is marked `per_frame` (b f ...) are folded, a tensor (b ...) is
    repeated for each frame; anything else, a tensor (b*f ...) among it, is left as it is.
    """
    b, f = clip
    if isinstance(leaf, PerFrame):
        return leaf.tensor.flatten(0, 1)
    if not isinstance(leaf, Tensor):
        return leaf
    if leaf.ndim == 5:
        return leaf.transpose(1, 2).flatten(0, 1)
    if leaf.ndim == 0 or leaf.shape[0] != b or f == 1:
        return leaf
    repeated = leaf.unsqueeze(1).expand(-1, f, *leaf.shape[1:]).flatten(0, 1)
    if leaf.ndim == 4:
        return repeated.contiguous(memory_format=memory_format_of(leaf))
    return repeated


def unfold(leaf: object, clip: tuple[int, int]) -> object:
    """A result with the frames of the `clip` beside the batch.

    (b*f c h w) becomes (b c f h w), in its memory format, and any other (b*f ...) becomes
    (b f ...). A plain object that holds tensors, such as a distribution, is copied, with its
    tensors unfolded.
    """
    b, f = clip
    if isinstance(leaf, Tensor):
        if leaf.ndim == 0 or leaf.shape[0] != b * f:
            return leaf
        unfolded = leaf.unflatten(0, (b, f))
        if leaf.ndim != 4:
            return unfolded
        channels_last = memory_format_of(leaf) == torch.channels_last
        return unfolded.transpose(1, 2).contiguous(
            memory_format=torch.channels_last_3d if channels_last else torch.contiguous_format
        )
    held = tensors_of(leaf)
    if held:
        leaf = copy.copy(leaf)
        vars(leaf).update({name: unfold(tensor, clip) for name, tensor in held.items()})
    return leaf


def tensors_of(leaf: object) -> dict[str, Tensor]:
    """The tensors that a plain object holds, by attribute."""
    if isinstance(leaf, (Tensor, nn.Module, type)) or not hasattr(leaf, "__dict__"):
        return {}
    return {name: value for name, value in vars(leaf).items() if isinstance(value, Tensor)}


def map_arguments(
    function: Callable[[object, str], object], args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """`map_leaves` over the arguments of a call."""

    def mapped(value: object, name: str) -> object:
        return map_leaves(function, value, name, leaves=PerFrame)

    new = [mapped(value, f"args[{index}]") for index, value in enumerate(args)]
    return tuple(new), {name: mapped(value, name) for name, value in kwargs.items()}
