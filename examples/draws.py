"""What is random in a training step, the same however many processes share the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

from make_a_video_pytorch.recipes import mixed_noise


def noise_of(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard normal noise, of which the frames of a video share four fifths of the variance.

    What a noisy frame is denoised to then agrees with its neighbours from the start.
    """
    if len(shape) == 4:
        return torch.randn(shape, generator=generator)
    return mixed_noise(shape, alpha=2, generator=generator)


class Draws:
    """The random numbers of one of the equal shares of a training step.

    They follow from the seed, the number of the step and the place of a sample in its batch, so
    that a resumed run is the run that was interrupted, and the shares of many processes together
    are the batch of one.

    Args:
        seed: of the training.
        step: its number.
        share: which of the `shares` is computed here.
        shares: in how many shares the batch is computed.
    """

    def __init__(self, seed: int, step: int, share: int = 0, shares: int = 1) -> None:
        self.share, self.shares = share, shares
        self.generator = Generator().manual_seed(seed * 1_000_003 + step)

    def places(self, count: int) -> slice:
        """Which samples of the batch are those of this share, if it has `count`."""
        return slice(self.share * count, (self.share + 1) * count)

    def rows(self, count: int, draw: Callable[[int], Tensor]) -> Tensor:
        """The `count` rows of this share, of what is drawn for the whole batch."""
        return draw(count * self.shares)[self.places(count)]

    def uniform(self, count: int) -> Tensor:
        """Numbers in [0, 1)."""
        return self.rows(count, lambda total: torch.rand(total, generator=self.generator))

    def integers(self, below: int, count: int) -> Tensor:
        """Whole numbers from 0 on."""
        return self.rows(
            count, lambda total: torch.randint(below, (total,), generator=self.generator)
        )

    def generators(self, count: int) -> Iterator[Generator]:
        """One for each sample of this share, where drawing for all would be waste."""
        return (Generator().manual_seed(seed) for seed in self.integers(2**31, count).tolist())

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        """Noise of this shape, each sample's from a generator of its own."""
        return torch.cat([noise_of((1, *shape[1:]), g) for g in self.generators(shape[0])])
