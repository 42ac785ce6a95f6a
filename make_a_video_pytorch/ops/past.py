"""What earlier chunks of a stream leave to temporal parts.

Letters: b batch, f frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from make_a_video_pytorch.ops.torch_internals import is_in_backward

CHANGED = (
    "the temporal parts of a stream must be those of its chunk before, and see as many pixels at "
    "once: `reset` it after a change"
)
AGAIN = (
    "a chunk of a stream cannot be computed again in a backward pass: only the "
    "`gradient_checkpointing` of a SpaceTimeUnet can"
)


class Left(NamedTuple):
    """What a use leaves: the frames (b f ...) that it saw, and how many later ones see at most."""

    whole: Tensor
    most: int | None


class Past:
    """The frames that a chunk of a stream sees of the chunks before it.

    Each use of a temporal part has some of its own, found by the order of the uses, which is the
    same in every chunk. A use leaves what it saw for the chunk that follows; it changes nothing
    that earlier ones left, so that the same past may be seen again.

    (No dataclass: FSDP and DDP copy those where they cast, and what is left would be lost.)

    Args:
        frames: how many there were before this chunk.
        seen: the same number, as a tensor, so that no graph is made for each.
        kept: of each use, the frames (b f ...) that it sees of them; none for the first chunk.
    """

    def __init__(self, frames: int, seen: Tensor, kept: tuple[Tensor, ...] = ()) -> None:
        self.frames, self.seen, self.kept = frames, seen, kept
        self.uses = 0
        self.left: list[Left] = []
        self.over = False  # all is taken that was left
        self.again = False

    def before(self, most: int | None) -> int:
        """How many frames `extend` puts before those of this chunk."""
        return self.frames if most is None else most

    def extend(self, x: Tensor, most: int | None) -> Tensor:
        """`x` (b f ...) of this chunk behind the last `most` frames before it, or behind all.

        Where there were fewer than `most`, zeros come first.

        Raises:
            ValueError: if this use is not that of the chunk before, or in a backward pass, where
                it is not known which one it is.
        """
        in_order = self.again or torch.compiler.is_compiling() or not is_in_backward()
        if not in_order:
            raise ValueError(AGAIN)
        use = self.uses
        self.uses = use + 1
        if not self.kept:
            before = x.new_zeros(x.shape[0], most or 0, *x.shape[2:])
        elif use >= len(self.kept) or changed(self.kept[use], x):
            raise ValueError(CHANGED)
        else:
            before = self.kept[use].to(x.dtype)
        whole = torch.cat((before, x), dim=1)
        if not self.over:
            self.left.append(Left(whole, most))
        return whole

    def from_here(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """`function`, which may be computed again later, when its uses are those of now."""
        first = self.uses

        def again(x: Tensor) -> Tensor:
            self.uses, self.again = first, True
            try:
                return function(x)
            finally:
                self.again = False

        return again

    def take(self) -> list[Left]:
        """What this chunk leaves.

        Raises:
            ValueError: if there were fewer uses than in the chunk before, or more.
        """
        left, self.left, self.over = self.left, [], True
        if self.frames and len(left) != len(self.kept):
            raise ValueError(CHANGED)
        return left

    def real(self, x: Tensor, whole: Tensor) -> Tensor:
        """Which frames of `whole` = `extend(x, most)` are frames, and not zeros: bool (1 f)."""
        first = whole.shape[1] - x.shape[1] - self.seen.to(x.device)
        return (torch.arange(whole.shape[1], device=x.device) >= first)[None]


def changed(kept: Tensor, x: Tensor) -> bool:
    """Whether `x` (b f ...) cannot follow what was `kept`."""
    return kept.shape[:1] + kept.shape[2:] != x.shape[:1] + x.shape[2:]
