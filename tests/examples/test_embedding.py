"""An embedding of pictures, and the prior from names to it."""

import pytest
import torch
from clips import MovingDigits
from embedding import LENGTH, Embedding, learned
from torch import Generator


@pytest.fixture(scope="module")
def embedding():
    return learned(MovingDigits(12), 1, 10, dim=6, steps=150)


def test_embeddings_are_as_long_as_names(embedding):
    batch = MovingDigits(12)(500, 1, Generator().manual_seed(0))
    embedded = embedding(batch.videos[:, :, 0])
    assert embedded.shape == (500, 6)
    assert embedded.norm(dim=-1).square().mean().sqrt().item() == pytest.approx(LENGTH, rel=0.1)


def test_a_clip_is_told_of_by_its_middle_frame(embedding):
    videos = torch.randn(3, 1, 5, 12, 12)
    assert torch.equal(embedding.of_clips(videos), embedding(videos[:, :, 2]))


def test_the_prior_has_the_moments_of_each_name(embedding):
    batch = MovingDigits(12)(4000, 1, Generator().manual_seed(1))
    names = batch.names.argmax(-1)
    embedded = embedding(batch.videos[:, :, 0])[names == 7]
    drawn = embedding.likely(torch.full((4000,), 7), Generator().manual_seed(2))
    torch.testing.assert_close(drawn.mean(0), embedded.mean(0), atol=0.5, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(embedded.T), atol=1.5, rtol=0.3)


def test_a_smaller_spread_is_nearer_to_the_mean(embedding):
    names = torch.tensor([4, 9])
    means = embedding.means[names]
    drawn = embedding.likely(names, Generator().manual_seed(5))
    half = embedding.likely(names, Generator().manual_seed(5), spread=0.5)
    torch.testing.assert_close(half, (drawn + means) / 2)
    assert torch.equal(embedding.likely(names, Generator(), spread=0), means)


def test_what_is_drawn_for_a_name_is_seen_as_that_name(embedding):
    names = torch.arange(10).repeat(30)
    drawn = embedding.likely(names, Generator().manual_seed(3))
    features = drawn / embedding.scale + embedding.mean
    seen = embedding.classifier.name(features).argmax(-1)
    assert (seen == names).double().mean() > 0.6


def test_it_is_kept_whole(embedding):
    other = Embedding(1, 10, dim=6)
    other.load_state_dict(embedding.state_dict())
    pictures = torch.randn(4, 1, 12, 12)
    assert torch.equal(other(pictures), embedding(pictures))
    assert torch.equal(
        *(e.likely(torch.arange(10), Generator().manual_seed(4)) for e in (other, embedding))
    )
