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

    def rows(self, places: slice) -> Batch:
        """Some of the clips."""
        return Batch(*(None if part is None else part[places] for part in self))
