"""The first stage of a cascade.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from make_a_video_pytorch.cascade.frames import Window, resized
from make_a_video_pytorch.cascade.stage import Example, Stage
from make_a_video_pytorch.ops.checks import at_least, typechecked
from make_a_video_pytorch.recipes.denoising import Scheduler


class Decoder(Stage):
    """The first stage: from an embedding, or from tokens, a clip of few and small frames.

    Make-A-Video, section 3.2: 16 frames of 64x64.

    Args:
        model: a SpaceTimeUnet with `cond_dim` or `context_dim` and `condition_on_fps`, as a rule.
        scheduler: of diffusers, or one like it.
        size: height and width.
        frames: of a clip.
        channels: of a frame.
        steps: of denoising.
        guidance: how strongly to follow the conditions; 1 is no guidance.
        takes: names of the conditions that it is given; those that it is built for if None.
        alpha: how much noise frames share, see `mixed_noise`.

    Raises:
        TypeError: if an argument is of a wrong type.
        ValueError: if a value is out of range.

    Example:
        >>> from diffusers import DDIMScheduler
        >>> unet = SpaceTimeUnet(dim=8, attn_dim_head=8, attn_heads=2, cond_dim=6)
        >>> decoder = Decoder(unet, DDIMScheduler(), size=(16, 16), frames=8, steps=2)
        >>> decoder(batch=2, cond=torch.randn(2, 6)).shape
        torch.Size([2, 3, 8, 16, 16])
    """

    @typechecked
    def __init__(
        self,
        model: Callable[..., object],
        scheduler: Scheduler,
        *,
        size: Sequence[int],
        frames: int = 16,
        channels: int = 3,
        steps: int = 50,
        guidance: float | int = 1,
        takes: Sequence[str] | None = None,
        alpha: float | int = 0,
    ) -> None:
        super().__init__(model, scheduler, size, frames, 0, steps, guidance, takes, alpha)
        self.channels = channels
        self.must_be_valid()

    @property
    def frames(self) -> int:
        """Those of a clip, which are computed at once."""
        return self.window

    @frames.setter
    def frames(self, value: int) -> None:
        self.window = value

    @property
    def size_taken(self) -> None:
        return None

    def must_be_valid(self) -> None:
        super().must_be_valid()
        at_least(1, channels=self.channels)

    def must_take(self, before: Tensor | None) -> None:
        if before is not None:
            raise ValueError(
                f"`video` (shape {tuple(before.shape)}) must be left out: a Decoder is the first"
            )

    def frames_of(self, frames: int) -> int:
        return self.window

    def before(self, clips: Tensor) -> None:
        return None

    def example(self, clips: Tensor, generator: Generator | None = None) -> Example:
        return Example(resized(clips, self.size), {})

    def given(
        self, before: Tensor | None, clean: Tensor, window: Window, seed: int
    ) -> tuple[Tensor, dict[str, object]]:
        return torch.zeros(window.frames, dtype=torch.bool), {}
