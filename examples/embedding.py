"""An image embedding, by which a decoder is told what to show, and the prior from names to it.

As Make-A-Video has it (Singer et al. 2022, sections 3.1 and 3.4): the decoder is conditioned on
the image embedding of a frame, so that clips need no names; names reach it through a prior, which
learns from named images. There the embedding is CLIP's and the prior a diffusion model; here the
embedding is that of a small classifier of the named images, and the prior a normal distribution of
embeddings for each name.
"""

from __future__ import annotations

from pathlib import Path

import torch
from cache import UNREADABLE, reason_of, write
from classifiers import Classifier, taught
from clips import MovingDigits
from errors import DataError
from loading import Source
from safetensors.torch import load_file
from torch import Generator, Tensor, nn

LENGTH = 8  # that of a name's vector, see clips.named
STEPS = 800  # in which digits are learned: ten seconds
MEASURED = 2000  # pictures, for the moments of embeddings


class Embedding(nn.Module):
    """Pictures (b c h w) -> embeddings (b dim), and from names to embeddings that are likely.

    Args:
        channels: of the pictures.
        names: how many there are.
        dim: width of an embedding.
    """

    def __init__(self, channels: int, names: int, dim: int = 16) -> None:
        super().__init__()
        self.dim = dim
        self.classifier = Classifier(channels, names, dim)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("means", torch.zeros(names, dim))
        self.register_buffer("roots", torch.zeros(names, dim, dim))  # of the covariances

    @torch.no_grad()
    @torch.autocast("cpu", enabled=False)  # whatever the training computes in
    def forward(self, pictures: Tensor) -> Tensor:
        return (self.classifier.features(pictures) - self.mean) * self.scale

    def of_clips(self, videos: Tensor) -> Tensor:
        """The embeddings (b dim) of the middle frames of videos (b c f h w)."""
        return self(videos[:, :, videos.shape[2] // 2])

    @torch.no_grad()
    def likely(self, names: Tensor, generator: Generator, spread: float = 1.0) -> Tensor:
        """An embedding (b dim) for each of the `names` (b), drawn from those that it may have.

        They deviate from the mean of the name `spread` times as far as those of pictures do. Less
        than 1 gives clearer samples of less variety (the truncation of Brock et al. 2019, section
        3.1).
        """
        drawn = torch.randn(len(names), self.dim, 1, generator=generator)
        return self.means[names] + spread * (self.roots[names] @ drawn).squeeze(-1)


def learned(
    source: Source, channels: int, names: int, dim: int = 16, steps: int = STEPS
) -> Embedding:
    """An embedding and its prior, learned from named images of `source`, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(2_000)
        embedding = Embedding(channels, names, dim)
    taught(embedding.classifier, source, 1, steps, seed=2_001)
    batch = source(MEASURED, 1, Generator().manual_seed(2_002))
    shown = batch.names.argmax(-1)
    features = embedding(batch.videos[:, :, 0])
    embedding.mean.copy_(features.mean(0))
    embedding.scale.copy_(LENGTH / dim**0.5 / features.std(0))
    embedded = embedding(batch.videos[:, :, 0])
    for name in range(names):
        of_name = embedded[shown == name]
        embedding.means[name] = of_name.mean(0)
        covariance = torch.cov(of_name.T) + 1e-6 * torch.eye(dim)
        embedding.roots[name] = torch.linalg.cholesky(covariance)
    return embedding.eval()


def saved(path: Path) -> Embedding:
    """The embedding whose weights are in a file.

    Raises:
        DataError: if there are none.
    """
    try:
        weights = load_file(path)
        names, dim = weights["means"].shape
        embedding = Embedding(weights["classifier.features.0.weight"].shape[1], names, dim)
        embedding.load_state_dict(weights)
    except UNREADABLE as error:
        raise DataError(f"{path} is not of an embedding: {reason_of(error)}") from error
    return embedding.eval().requires_grad_(False)


def embedding_of_digits(size: int, folder: Path) -> Embedding:
    """That of moving digits, which is kept in a folder.

    Raises:
        DataError: if it cannot be.
    """
    digits = MovingDigits(size)
    path = folder / f"embedding-{size}-{STEPS}.safetensors"
    if not path.exists():
        print("learning the embedding of digits, for ten seconds or more")
        found = learned(digits, digits.channels, digits.cond_dim, steps=STEPS)
        write(path, found.state_dict())
    return saved(path)
