"""The prior from words to the embedding of a picture."""

import pytest
import torch
import words
from errors import DataError
from glyphs import COLOURS, DIGITS, Glyphs
from texts import TextEncoder
from torch import Generator
from words import LearnedWords, Tokens, Words

from tests.examples.models import text_encoder

VOCABULARY = (*COLOURS, *DIGITS)


class Colour:
    """An embedding that tells of the colour alone."""

    def of_clips(self, videos):
        light = (videos[:, :, 0] + 1).sum((-2, -1))
        return 4 * light / light.sum(1, keepdim=True)


@pytest.fixture(scope="module")
def learned():
    return words.learned(
        lambda: Words(LearnedWords(VOCABULARY), 3), Glyphs(16), Colour(), steps=150
    )


def test_each_caption_has_the_mean_embedding_of_its_pictures(learned):
    batch = Glyphs(16)(600, 1, Generator().manual_seed(5))
    real, made = Colour().of_clips(batch.videos), learned(batch.texts)
    for colour in COLOURS:
        theirs = torch.tensor([colour in text.split() for text in batch.texts])
        mean = real[theirs].mean(0).expand(int(theirs.sum()), 3)
        torch.testing.assert_close(made[theirs], mean, atol=0.15, rtol=0)


def test_it_is_learned_in_the_same_way_again_whatever_was_drawn_before(learned):
    torch.rand(3)
    few = [
        words.learned(lambda: Words(LearnedWords(VOCABULARY), 3), Glyphs(16), Colour(), steps=2)
        for _ in range(2)
    ]
    texts = ["a red seven", "a blue one"]
    assert torch.equal(few[0](texts), few[1](texts))
    assert not any(p.requires_grad for p in learned.parameters())


def test_words_that_are_not_known_are_left_out(learned):
    known = learned(["a red seven", "a white two"])
    assert torch.equal(learned(["A red seven moves up", "a white,two!"]), known)
    with pytest.raises(DataError, match="no word of 'eine rote Sieben' is known: red, green"):
        learned(["a red seven", "eine rote Sieben"])


def test_the_sum_of_vectors_is_that_of_each_text():
    reader = LearnedWords(("a", "b", "c"), dim=5)
    vectors = reader.vectors.weight
    expected = torch.stack((vectors[1] + vectors[1] + vectors[2], vectors[0]))
    torch.testing.assert_close(reader(["b c b d", "a"]), expected)


def test_the_tokens_of_a_text_encoder_are_read_in_their_place(tmp_path):
    encoder = TextEncoder(text_encoder(tmp_path / "encoder"), tmp_path / "cache")
    features = Tokens(encoder)(["a cat", "a red ball of a dog"])
    assert features.shape == (2, encoder.dim)
    for row, text in zip(features, ("a cat", "a red ball of a dog"), strict=True):
        torch.testing.assert_close(row, encoder.kept(text).mean(0))
    prior = Words(Tokens(encoder), 3)
    assert prior(["a cat"]).shape == (1, 3)
    assert not any("encoder" in name for name in prior.state_dict())
