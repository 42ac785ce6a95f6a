"""Small networks that learn to tell what pictures show."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from loading import Source
from torch import Generator, Tensor, nn
from torch.optim import AdamW

Pupil = TypeVar("Pupil", bound=nn.Module)  # with a loss(videos, names) of its own


def encoder(channels: int, dim: int) -> nn.Sequential:
    """Pictures (b c h w) -> features (b dim), of what is there and where."""
    return nn.Sequential(
        nn.Conv2d(channels, 24, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(24, 48, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(48, 48, 3, padding=1),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(48 * 16, dim),
    )


class Classifier(nn.Module):
    """What a picture shows: (b c h w) -> logits (b names), by way of `features` (b dim)."""

    def __init__(self, channels: int, names: int, dim: int) -> None:
        super().__init__()
        self.features = encoder(channels, dim)
        self.name = nn.Sequential(nn.SiLU(), nn.Linear(dim, names))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.name(self.features(pictures))

    def loss(self, videos: Tensor, names: Tensor) -> Tensor:
        """Of the first frames."""
        return F.cross_entropy(self(videos[:, :, 0]), names, label_smoothing=0.05)

    @torch.no_grad()
    def seen(self, videos: Tensor) -> Tensor:
        """The name that is seen in each frame of videos (b c f h w): (b f)."""
        frames = videos.movedim(2, 1).flatten(0, 1)
        return self(frames).argmax(-1).unflatten(0, (len(videos), -1))


def taught(pupil: Pupil, source: Source, frames: int, steps: int, *, seed: int) -> Pupil:
    """`pupil`, trained on clips of `source`, 64 in a step, whose names are vectors, one high.

    A little noise on the pictures keeps it from looking at what no eye sees.
    """
    generator = Generator().manual_seed(seed)
    optimizer = AdamW(pupil.parameters(), weight_decay=0.01)
    for step in range(steps):
        batch = source(64, frames, generator)
        noise = torch.randn(batch.videos.shape, generator=generator) * 0.1
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * math.cos(math.pi / 2 * step / steps)
        optimizer.zero_grad()
        pupil.loss(batch.videos + noise, batch.names.argmax(-1)).backward()
        optimizer.step()
    return pupil.eval().requires_grad_(False)
