"""Down- and upsampling by two, in space by pixel shuffle and over frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from make_a_video_pytorch.ops.checks import at_least, must_be_multiple, typechecked
from make_a_video_pytorch.ops.decision import Temporal, as_video
from make_a_video_pytorch.ops.layout import as_given
from make_a_video_pytorch.ops.parameters import acts_across_frames

# Inside, tensors are b f h w c. A neighbourhood is folded into channels as (neighbour c), so
# that whole rows of channels move in memory.


class Downsample(nn.Module):
    """Halve height and width, and the number of frames where asked.

    Each 2x2 patch (pixel unshuffle, Shi et al. 2016, section 2.2) or pair of frames is
    concatenated and projected back to `dim`. Over frames it starts as the mean of the pair, so
    that a still clip stays as it is; on images it is skipped. With `nonlin` a SiLU follows
    each projection, which a still clip does not survive unchanged.

    Shapes: image (b dim h w) -> (b dim h/2 w/2); video (b dim f h w) -> (b dim f' h/2 w/2),
    with f' = f / 2 under `downsample_time`. In a batch of videos and images (`enable_time` a
    tensor) f' = f: a halved clip fills the first half of the frames, and zeros the second.

    Args:
        dim: channels in and out.
        downsample_space: halve height and width.
        downsample_time: halve the frames.
        nonlin: a SiLU after each projection.

    Example:
        >>> down = Downsample(16, downsample_time=True)
        >>> down(torch.randn(2, 16, 8, 8)).shape
        torch.Size([2, 16, 4, 4])
        >>> down(torch.randn(2, 16, 6, 8, 8)).shape
        torch.Size([2, 16, 3, 4, 4])
    """

    @typechecked
    def __init__(
        self,
        dim: int,
        downsample_space: bool = True,
        downsample_time: bool = False,
        nonlin: bool = False,
    ) -> None:
        super().__init__()
        at_least(1, dim=dim)
        if not (downsample_space or downsample_time):
            raise ValueError(
                f"`downsample_space` (={downsample_space}) or `downsample_time` "
                f"(={downsample_time}) must be True"
            )
        self.dim = dim
        self.down_space: nn.Sequential | None = None
        self.down_time: nn.Sequential | None = None
        if downsample_space:
            self.down_space = nn.Sequential(
                Rearrange("b f (h p) (w q) c -> b f h w (p q c)", p=2, q=2),
                nn.Linear(dim * 4, dim, bias=False),
                nn.SiLU() if nonlin else nn.Identity(),
            )
        if downsample_time:
            mean_of_two = nn.Linear(dim * 2, dim, bias=False)
            with torch.no_grad():
                mean_of_two.weight.copy_(torch.eye(dim).repeat(1, 2) / 2)
            self.down_time = nn.Sequential(
                Rearrange("b (f p) h w c -> b f h w (p c)", p=2),
                mean_of_two,
                nn.SiLU() if nonlin else nn.Identity(),
            )
        acts_across_frames(self, "down_time")

    def forward(self, x: Tensor, enable_time: bool | Tensor | Temporal = True) -> Tensor:
        """Downsample an image or a video; with `enable_time=False`, in space only.

        Raises:
            ValueError: if `x` is neither an image nor a video, not of `dim` channels, or has a
                size that is to be halved and is odd, or if `enable_time` is a tensor but not
                (b) of bools.
        """
        video, temporal = as_video(x, self.dim, enable_time)
        frames, height, width = video.shape[2:]
        down_time = self.down_time if temporal.runs else None
        if self.down_space is not None:
            must_be_multiple(2, "to be halved", height=height, width=width)
        if down_time is not None:
            must_be_multiple(2, "to be halved", frames=frames)

        tokens = video.movedim(1, -1)
        if self.down_space is not None:
            tokens = self.down_space(tokens)
        if down_time is not None:
            tokens = temporal.halve(tokens, down_time(tokens))
        return as_given(tokens.movedim(-1, 1), x)

    if TYPE_CHECKING:
        __call__ = forward

    @property
    def looks_ahead(self) -> bool:
        """Whether frames depend on later ones."""
        return self.down_time is not None

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        # 0.4.0 has 1x1 convolutions and folds as (c neighbour)
        for name, neighbours in (("down_space.1.weight", 4), ("down_time.1.weight", 2)):
            weight = state_dict.get(prefix + name)
            if weight is not None and weight.ndim > 2:
                state_dict[prefix + name] = rearrange(
                    weight.flatten(1), "o (c p) -> o (p c)", p=neighbours
                )
        super()._load_from_state_dict(state_dict, prefix, *args)


class Upsample(nn.Module):
    """Double height and width, and the number of frames where asked.

    A projection to four times (twice) the channels, shuffled into a 2x2 patch (a pair of
    frames): Shi et al. 2016, section 2.2, with the initialisation of Aitken et al. 2017, under
    which the pixels of a patch start equal. Over frames it starts as repetition; on images it is
    skipped.

    Shapes: image (b dim h w) -> (b dim 2h 2w); video (b dim f h w) -> (b dim f' 2h 2w), with
    f' = 2f under `upsample_time`. In a batch of videos and images (`enable_time` a tensor)
    f' = f: a clip is the first half of the frames, as `Downsample` leaves it.

    Args:
        dim: channels in and out.
        upsample_space: double height and width.
        upsample_time: double the frames.
        nonlin: a SiLU after each projection.

    Example:
        >>> up = Upsample(16, upsample_time=True)
        >>> up(torch.randn(2, 16, 4, 4)).shape
        torch.Size([2, 16, 8, 8])
        >>> up(torch.randn(2, 16, 3, 4, 4)).shape
        torch.Size([2, 16, 6, 8, 8])
    """

    @typechecked
    def __init__(
        self,
        dim: int,
        upsample_space: bool = True,
        upsample_time: bool = False,
        nonlin: bool = False,
    ) -> None:
        super().__init__()
        at_least(1, dim=dim)
        if not (upsample_space or upsample_time):
            raise ValueError(
                f"`upsample_space` (={upsample_space}) or `upsample_time` (={upsample_time}) "
                "must be True"
            )
        self.dim = dim
        self.up_space: nn.Sequential | None = None
        self.up_time: nn.Sequential | None = None
        if upsample_space:
            first_pixel = torch.empty(dim, dim)
            nn.init.kaiming_uniform_(first_pixel)
            self.up_space = nn.Sequential(
                copies_of(first_pixel, 4),
                nn.SiLU() if nonlin else nn.Identity(),
                Rearrange("b f h w (p q c) -> b f (h p) (w q) c", p=2, q=2),
            )
        if upsample_time:
            self.up_time = nn.Sequential(
                copies_of(torch.eye(dim), 2),
                nn.SiLU() if nonlin else nn.Identity(),
                Rearrange("b f h w (p c) -> b (f p) h w c", p=2),
            )
        acts_across_frames(self, "up_time")

    def forward(self, x: Tensor, enable_time: bool | Tensor | Temporal = True) -> Tensor:
        """Upsample an image or a video; with `enable_time=False`, in space only.

        Raises:
            ValueError: if `x` is neither an image nor a video, or not of `dim` channels, or if
                `enable_time` is a tensor but not (b) of bools.
        """
        video, temporal = as_video(x, self.dim, enable_time)
        tokens = video.movedim(1, -1)
        if self.up_space is not None:
            tokens = self.up_space(tokens)
        if temporal.runs and self.up_time is not None:
            clips = tokens
            if temporal.videos is not None:
                must_be_multiple(2, "as half of them are clips", frames=tokens.shape[1])
                clips = tokens[:, : tokens.shape[1] // 2]
            tokens = temporal.choose(self.up_time(clips), tokens)
        return as_given(tokens.movedim(-1, 1), x)

    if TYPE_CHECKING:
        __call__ = forward

    @property
    def looks_ahead(self) -> bool:
        """Whether frames depend on later ones."""
        return self.up_time is not None

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        # 0.4.0 has 1x1 convolutions and folds as (c neighbour)
        for name, neighbours in (("up_space.0", 4), ("up_time.0", 2)):
            weight = state_dict.get(f"{prefix}{name}.weight")
            if weight is not None and weight.ndim > 2:
                bias = state_dict[f"{prefix}{name}.bias"]
                for key, tensor in (("weight", weight.flatten(1)), ("bias", bias)):
                    state_dict[f"{prefix}{name}.{key}"] = rearrange(
                        tensor, "(c p) ... -> (p c) ...", p=neighbours
                    )
        super()._load_from_state_dict(state_dict, prefix, *args)


def copies_of(weight: Tensor, times: int) -> nn.Linear:
    """A projection whose output is at first `times` copies of that by `weight` (o i)."""
    projection = nn.Linear(weight.shape[1], weight.shape[0] * times)
    with torch.no_grad():
        projection.weight.copy_(weight.repeat(times, 1))
    nn.init.zeros_(projection.bias)
    return projection
