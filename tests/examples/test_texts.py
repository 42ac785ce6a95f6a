"""Tokens are those of the encoder, made once, and not those of another."""

import json
import multiprocessing
import pickle
import shutil
import sys

import pytest
import texts
import torch
from errors import DataError
from texts import TextEncoder
from transformers import BartModel, CLIPTextModel, T5EncoderModel

from tests.examples.models import pipeline, text_encoder, tokenizer

TEXTS = ["a red ball", "a cat", "a clip of a red ball of a dog"]
MODELS = {"clip": CLIPTextModel, "t5": T5EncoderModel, "bart": BartModel}


@pytest.fixture
def loads(monkeypatch):
    """How often an encoder was loaded."""
    seen, load = [], texts.load

    def counting(*args):
        seen.append(args)
        return load(*args)

    monkeypatch.setattr(texts, "load", counting)
    return seen


@pytest.mark.parametrize("kind", ["clip", "t5", "bart"])
def test_tokens_are_those_of_the_encoder(tmp_path, kind):
    encoder = TextEncoder(text_encoder(tmp_path / "encoder", kind), tmp_path / "cache")
    assert encoder.dim == 12
    encoder.prepare([*TEXTS, None])
    tokens, mask = encoder([TEXTS[1], None, TEXTS[0], TEXTS[2]])
    assert mask.sum(1).tolist() == [4, 0, 5, 8]  # with a beginning and an end, eight at most
    assert tokens.shape == (4, 8, 12)
    model, words = MODELS[kind].from_pretrained(tmp_path / "encoder").eval(), tokenizer()
    for row, text in ((0, TEXTS[1]), (2, TEXTS[0]), (3, TEXTS[2])):
        ids = words(text, truncation=True, max_length=8, return_tensors="pt").input_ids
        states = model(ids)
        own = states.encoder_last_hidden_state if kind == "bart" else states.last_hidden_state
        torch.testing.assert_close(tokens[row][mask[row]], own[0])
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


def test_of_a_pipeline_only_the_encoder_counts_though_it_is_a_link(tmp_path, loads):
    folder = pipeline(tmp_path / "pipeline")
    (folder / "text_encoder").rename(tmp_path / "elsewhere")
    (folder / "text_encoder").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    TextEncoder(folder, tmp_path / "cache").prepare(TEXTS)
    (folder / "unet" / "config.json").write_text("{}")
    TextEncoder(folder, tmp_path / "cache").prepare(TEXTS)
    assert len(loads) == 1
    text_encoder(tmp_path / "elsewhere", seed=1)
    TextEncoder(folder, tmp_path / "cache").prepare(TEXTS)
    assert len(loads) == 2
    words = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())
    words["model_max_length"] = 5
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(words))
    shorter = TextEncoder(folder, tmp_path / "cache")
    shorter.prepare(TEXTS)
    assert len(loads) == 3
    assert shorter(TEXTS)[1].sum(1).tolist() == [5, 4, 5]


def test_what_is_half_written_is_never_read(tmp_path, loads):
    encoder = TextEncoder(text_encoder(tmp_path / "encoder"), tmp_path / "cache")
    encoder.prepare(TEXTS)
    path, before = encoder.path(TEXTS[0]), encoder(TEXTS)[0]
    whole = path.read_bytes()
    path.unlink()
    path.with_name(f".{path.name}.1234").write_bytes(whole[:50])  # as a killed process leaves it
    with pytest.raises(DataError, match="no tokens of 'a red ball' in ") as raised:
        encoder(TEXTS)
    assert len(str(raised.value).splitlines()) == 1
    encoder.prepare(TEXTS)
    assert len(loads) == 2
    # to the last bits, which depend on where in memory the weights of each load lie
    torch.testing.assert_close(encoder(TEXTS)[0], before, rtol=1e-4, atol=1e-5)
    path.write_bytes(whole[:50])  # as a full disk leaves a copy of a cache
    with pytest.raises(DataError, match="no tokens of 'a red ball' in "):
        encoder(TEXTS)


def fill(encoder, ready):
    ready.wait(timeout=200)
    encoder.prepare(TEXTS)


def test_two_processes_may_fill_a_cache_at_once(tmp_path):
    encoder = TextEncoder(text_encoder(tmp_path / "encoder"), tmp_path / "cache")
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(2)
    other = context.Process(target=fill, args=(encoder, ready))
    other.start()
    fill(encoder, ready)
    other.join()
    assert other.exitcode == 0
    assert len(list((tmp_path / "cache").iterdir())) == len(TEXTS)
    alone = TextEncoder(tmp_path / "encoder", tmp_path / "alone")
    alone.prepare(TEXTS)
    assert torch.equal(encoder(TEXTS)[0], alone(TEXTS)[0])


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
    with pytest.raises(DataError, match=r"empty holds no text encoder of transformers: ") as raised:
        TextEncoder(tmp_path / "empty", tmp_path)
    assert len(str(raised.value).splitlines()) == 1
    folder = text_encoder(tmp_path / "encoder")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:50])
    with pytest.raises(
        DataError, match="encoder holds no text encoder of transformers: "
    ) as raised:
        TextEncoder(folder, tmp_path / "cache").prepare(TEXTS)
    assert len(str(raised.value).splitlines()) == 1
    (folder / "model.safetensors").write_bytes(whole)
    words = tokenizer()
    words.pad_token = None
    words.save_pretrained(folder)
    with pytest.raises(DataError, match=r"the tokenizer in .*encoder has no token for padding"):
        TextEncoder(folder, tmp_path / "cache").prepare(TEXTS)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(DataError, match="encoder holds no tokenizer of transformers: ") as raised:
        TextEncoder(folder, tmp_path / "cache").prepare(TEXTS)
    assert len(str(raised.value).splitlines()) == 1
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DataError, match="--text-encoder needs transformers: pip install"):
        TextEncoder(folder, tmp_path)
