"""An embedding of pictures, and the prior from names to it."""

import embedding as embeddings
import pytest
import torch
from clips import MovingDigits
from embedding import LENGTH, Embedding, embedding_of_digits, learned
from errors import DataError
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


def test_that_of_digits_is_learned_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "STEPS", 2)
    first = embedding_of_digits(12, tmp_path)
    (kept,) = tmp_path.iterdir()
    monkeypatch.setattr(embeddings, "learned", None)
    pictures, names = torch.randn(4, 1, 12, 12), torch.arange(10)
    for again in (embedding_of_digits(12, tmp_path), embeddings.saved(kept)):
        assert torch.equal(again(pictures), first(pictures))
        assert torch.equal(*(e.likely(names, Generator().manual_seed(4)) for e in (first, again)))
        assert not any(p.requires_grad for p in again.parameters())
    kept.write_bytes(b"half of one")
    with pytest.raises(DataError, match="is not of an embedding"):
        embeddings.saved(kept)


def test_autocast_changes_nothing(embedding):
    """What a training computes in is not what it is told by."""
    pictures = torch.randn(4, 1, 12, 12)
    with torch.autocast("cpu", torch.bfloat16):
        within = embedding(pictures)
    assert within.dtype == torch.float32
    assert torch.equal(within, embedding(pictures))
