"""What a training step learns from."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Clips of one size, and what is known of each."""

    videos: Tensor  # (b c f h w) in [-1, 1]
    names: Tensor | None = None  # (b d): what it shows, as a vector
    texts: list[str | None] | None = None
    fps: Tensor | None = None  # (b): frames per second

    @property
    def samples(self) -> Tensor:
        """The clips (b c f h w), or images (b c h w) if they are of one frame."""
        return self.videos.squeeze(2) if self.videos.shape[2] == 1 else self.videos

    def rows(self, places: slice) -> Batch:
        """Some of the clips."""
        return Batch(*(None if part is None else part[places] for part in self))
