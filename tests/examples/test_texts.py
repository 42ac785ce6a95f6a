"""Tokens are those of the encoder, made once, and not those of another."""

import pickle
import shutil
import sys

import pytest
import texts
import torch
from errors import DataError
from texts import TextEncoder

from tests.examples.models import text_encoder, tokenizer

TEXTS = ["a red ball", "a cat", "a clip of a red ball of a dog"]


@pytest.fixture
def loads(monkeypatch):
    """How often an encoder was loaded."""
    seen, load = [], texts.load

    def counting(*args):
        seen.append(args)
        return load(*args)

    monkeypatch.setattr(texts, "load", counting)
    return seen


@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_tokens_are_those_of_the_encoder(tmp_path, kind):
    encoder = TextEncoder(text_encoder(tmp_path / "encoder", kind), tmp_path / "cache")
    assert encoder.dim == 12
    encoder.prepare([*TEXTS, None])
    tokens, mask = encoder([TEXTS[1], None, TEXTS[0], TEXTS[2]])
    assert mask.sum(1).tolist() == [4, 0, 5, 8]  # with a beginning and an end, eight at most
    assert tokens.shape == (4, 8, 12)
    model, words = texts.load(tmp_path / "encoder", tmp_path / "encoder")
    for row, text in ((0, TEXTS[1]), (2, TEXTS[0]), (3, TEXTS[2])):
        ids = words(text, truncation=True, max_length=8, return_tensors="pt").input_ids
        torch.testing.assert_close(tokens[row][mask[row]], model(ids)[0][0])
    assert not tokens[~mask].any()


def test_each_text_is_encoded_once(tmp_path, loads):
    encoder = TextEncoder(text_encoder(tmp_path / "encoder"), tmp_path / "cache")
    encoder.prepare(TEXTS + TEXTS)
    encoder.prepare(TEXTS)
    again = TextEncoder(tmp_path / "encoder", tmp_path / "cache")
    again.prepare([*TEXTS[:2], None, ""])
    assert len(loads) == 1
    assert torch.equal(again(TEXTS)[0], encoder(TEXTS)[0])
    assert len(list((tmp_path / "cache").iterdir())) == 3
    again.prepare(["a dog"])
    assert len(loads) == 2


def test_another_encoder_is_not_served_from_it(tmp_path, loads):
    first = TextEncoder(text_encoder(tmp_path / "encoder"), tmp_path / "cache")
    first.prepare(TEXTS)
    text_encoder(tmp_path / "encoder", seed=1)
    other = TextEncoder(tmp_path / "encoder", tmp_path / "cache")
    other.prepare(TEXTS)
    assert len(loads) == 2
    assert not torch.allclose(first(TEXTS)[0], other(TEXTS)[0])
    words = tokenizer()
    words.add_tokens(["zebra"])
    words.save_pretrained(tmp_path / "encoder")
    TextEncoder(tmp_path / "encoder", tmp_path / "cache").prepare(TEXTS)
    assert len(loads) == 3


def test_none_beside_none_has_no_token(tmp_path):
    encoder = TextEncoder(text_encoder(tmp_path / "encoder"), tmp_path / "cache")
    tokens, mask = encoder([None, None])
    assert tokens.shape == (2, 1, 12)
    assert not mask.any()


def test_it_goes_to_other_processes_without_a_model(tmp_path):
    encoder = TextEncoder(text_encoder(tmp_path / "encoder"), tmp_path / "cache")
    encoder.prepare(TEXTS)
    there = pickle.loads(pickle.dumps(encoder))
    assert torch.equal(there(TEXTS)[0], encoder(TEXTS)[0])
    assert len(pickle.dumps(encoder)) < 2000


def test_a_pipeline_holds_one(tmp_path):
    text_encoder(tmp_path / "made")
    pipeline = tmp_path / "pipeline"
    shutil.copytree(tmp_path / "made", pipeline / "text_encoder")
    (pipeline / "tokenizer").mkdir()
    for path in (pipeline / "text_encoder").glob("tokenizer*"):
        path.rename(pipeline / "tokenizer" / path.name)
    encoder = TextEncoder(pipeline, tmp_path / "cache")
    encoder.prepare(TEXTS)
    assert encoder(TEXTS)[1].sum() == 17


def test_what_is_no_encoder_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"no such folder: .*none"):
        TextEncoder(tmp_path / "none", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no text encoder and tokenizer") as raised:
        TextEncoder(tmp_path / "empty", tmp_path)
    assert len(str(raised.value).splitlines()) == 1
    folder = text_encoder(tmp_path / "encoder")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(DataError, match="encoder holds no text encoder and tokenizer"):
        TextEncoder(folder, tmp_path / "cache").prepare(TEXTS)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DataError, match="--text-encoder needs transformers: pip install"):
        TextEncoder(folder, tmp_path)
