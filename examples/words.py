"""The prior of a cascade: from words to the image embedding of a picture that they tell of.

In Make-A-Video (section 3.1) it is a diffusion model over CLIP's embeddings, learned from pictures
with texts. Here it is a network of two layers, which gives the mean embedding of such pictures; it
reads words that it has learned, or the tokens of a text encoder.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import torch
from embedding import Embedding
from errors import DataError
from loading import Source
from texts import TextEncoder
from torch import Generator, Tensor, nn
from torch.optim import AdamW

STEPS = 600  # in which fifty captions are learned: ten seconds
WIDTH = 128


class LearnedWords(nn.Module):
    """Texts -> features (b dim): the sum of the vectors of their words; those unknown are left out.

    Args:
        vocabulary: the words that there are to learn.
        dim: of the features.
    """

    def __init__(self, vocabulary: Sequence[str], dim: int = 64) -> None:
        super().__init__()
        self.places = {word: place for place, word in enumerate(vocabulary)}
        self.dim = dim
        self.vectors = nn.EmbeddingBag(len(vocabulary), dim, mode="sum")

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Raises a DataError for a text without a word that is known."""
        found = [
            [self.places[word] for word in re.findall(r"\w+", text.lower()) if word in self.places]
            for text in texts
        ]
        for text, known in zip(texts, found, strict=True):
            if not known:
                raise DataError(f"no word of {text!r} is known: {', '.join(self.places)} are")
        starts = torch.tensor([0, *map(len, found)]).cumsum(0)[:-1]
        return self.vectors(torch.tensor([place for known in found for place in known]), starts)


class Tokens(nn.Module):
    """Texts -> features (b dim): the mean of the tokens that a text encoder makes of them."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder, self.dim = encoder, encoder.dim

    def forward(self, texts: Sequence[str]) -> Tensor:
        self.encoder.prepare(texts)
        tokens, theirs = self.encoder(texts)
        return (tokens * theirs[..., None]).sum(1) / theirs.sum(1, keepdim=True).clamp(min=1)


class Words(nn.Module):
    """Texts -> image embeddings (b dim).

    Args:
        reader: from texts to features of its `dim`.
        dim: of an embedding.
    """

    def __init__(self, reader: LearnedWords | Tokens, dim: int) -> None:
        super().__init__()
        self.reader = reader
        self.layers = nn.Sequential(nn.Linear(reader.dim, WIDTH), nn.SiLU(), nn.Linear(WIDTH, dim))

    def forward(self, texts: Sequence[str]) -> Tensor:
        return self.layers(self.reader(texts))


def learned(
    build: Callable[[], Words], source: Source, embedding: Embedding, steps: int = STEPS
) -> Words:
    """Such a prior, learned from pictures of `source` with texts, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(3_000)
        words = build()
    generator = Generator().manual_seed(3_001)
    optimizer = AdamW(words.parameters(), weight_decay=0.0)
    for step in range(steps):
        batch = source(64, 1, generator)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * math.cos(math.pi / 2 * step / steps)
        optimizer.zero_grad()
        error = words(batch.texts) - embedding.of_clips(batch.videos)
        error.square().mean().backward()
        optimizer.step()
    return words.eval().requires_grad_(False)
