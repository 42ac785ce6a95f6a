"""What earlier chunks of a stream leave to temporal parts.

Letters: b batch, f frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

CHANGED = (
    "the temporal parts of a stream must be those of its chunk before, and see as many pixels at "
    "once: `reset` it after a change"
)


@dataclass
class Past:
    """The frames that a chunk of a stream sees of the chunks before it.

    Each use of a temporal part has some of its own, found by the order of the uses, which is the
    same in every chunk. A use leaves what it saw for the chunk that follows; it changes nothing
    that earlier ones left, so that the same past may be seen again.

    Attributes:
        frames: how many there were before this chunk.
        seen: the same number, as a tensor, so that no graph is made for each.
        kept: of each use, the frames (b f ...) that it saw of the chunk before this one; none for
            the first chunk.
        left: the same of this chunk.
        uses: how many there were so far.
        over: whether all that was seen of it is gone.
    """

    frames: int
    seen: Tensor
    kept: tuple[Tensor, ...] = ()
    left: list[Tensor] = field(default_factory=list)
    uses: int = 0
    over: bool = False

    def before(self, most: int | None) -> int:
        """How many frames `extend` puts before those of this chunk."""
        return self.frames if most is None else most

    def extend(self, x: Tensor, most: int | None) -> Tensor:
        """`x` (b f ...) of this chunk behind the last `most` frames before it, or behind all.

        Where there were fewer than `most`, zeros come first.

        Raises:
            ValueError: if this use is not that of the chunk before, or in a backward pass of
                which it is not known.
        """
        if self.over:
            raise ValueError(
                "a chunk of a stream cannot be computed again in a backward pass: `model` must not "
                "checkpoint activations"
            )
        use = self.uses
        self.uses = use + 1
        if not self.kept:
            before = x.new_zeros(x.shape[0], most or 0, *x.shape[2:])
        elif use >= len(self.kept) or changed(self.kept[use], x):
            raise ValueError(CHANGED)
        else:
            before = self.kept[use]
            before = before if most is None else before[:, before.shape[1] - most :]
        whole = torch.cat((before.to(x.dtype), x), dim=1)
        if use < len(self.left):  # computed again, for a backward pass
            self.left[use] = whole
        else:
            self.left.append(whole)
        return whole

    def from_here(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """`function`, which may be computed again later, when its uses are those of now."""
        first = self.uses

        def again(x: Tensor) -> Tensor:
            self.uses = first
            return function(x)

        return again

    def gone(self) -> Past:
        """What stands in its place where uses are no more in their order."""
        return Past(self.frames, self.seen, over=True)

    def must_be_whole(self) -> None:
        """Raise a ValueError if there were fewer uses than in the chunk before."""
        if len(self.left) < len(self.kept):
            raise ValueError(CHANGED)

    def real(self, x: Tensor, whole: Tensor) -> Tensor:
        """Which frames of `whole` = `extend(x, most)` are frames, and not zeros: bool (b f)."""
        first = whole.shape[1] - x.shape[1] - self.seen
        real = torch.arange(whole.shape[1], device=x.device) >= first
        return real.expand(whole.shape[0], -1)


def changed(kept: Tensor, x: Tensor) -> bool:
    """Whether `x` (b f ...) cannot follow what was `kept`."""
    return kept.shape[:1] + kept.shape[2:] != x.shape[:1] + x.shape[2:]
