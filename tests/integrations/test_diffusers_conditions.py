"""Texts that a pipeline encodes itself, by the text encoders of transformers."""

import json

import pytest
import torch

from tests.integrations.small import close, missing
from tests.integrations.test_diffusers_pipeline import SIZE, TEXT, UNETS, pipeline
from tests.zoo import randomize

pytest.importorskip("diffusers", reason=missing("diffusers"))
pytest.importorskip("transformers", reason=missing("transformers"))

import transformers

from make_a_video_pytorch.integrations.diffusers import TextToVideoPipeline
from make_a_video_pytorch.integrations.diffusers_conditions import (
    Text,
    Tokens,
    padded_to,
    tokens_of,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
NAMES = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
WIDTH, LENGTH = TEXT.shape[2], 7


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(NAMES)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    files = str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")
    return transformers.CLIPTokenizer(*files, model_max_length=LENGTH)


def clip():
    config = transformers.CLIPTextConfig(
        vocab_size=len(NAMES), hidden_size=WIDTH, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, max_position_embeddings=LENGTH, eos_token_id=len(NAMES) - 1,
    )  # fmt: skip
    return randomize(transformers.CLIPTextModel(config), 0.5).eval()


def t5():
    config = transformers.T5Config(
        vocab_size=len(NAMES), d_model=WIDTH, d_kv=4, d_ff=8, num_layers=1, num_heads=1
    )
    return randomize(transformers.T5EncoderModel(config), 0.5).eval()


def test_clip_reads_a_text_whole_and_others_read_it_masked(tokenizer):
    ids = tokenizer(["ab c", "d"], padding="max_length", max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        encoder = clip()
        made = pipeline(UNETS["own"](), text_encoder=encoder, tokenizer=tokenizer)
        embeds, mask = tokens_of(made, Text(["ab c", "d"], None, None))
        close(embeds, encoder(ids.input_ids)[0])
        assert mask is None
        encoder = t5()
        made = pipeline(UNETS["own"](), text_encoder=encoder, tokenizer=tokenizer)
        embeds, mask = tokens_of(made, Text(["ab c", "d"], None, None))
        close(embeds, encoder(ids.input_ids, attention_mask=ids.attention_mask)[0])
        assert torch.equal(mask, ids.attention_mask.bool())


@pytest.mark.parametrize("build", UNETS.values(), ids=UNETS)
@pytest.mark.parametrize("encoder", [clip, t5])
def test_an_empty_text_stands_for_a_negative_one_that_is_not_given(build, encoder, tokenizer):
    made = pipeline(build(), text_encoder=encoder(), tokenizer=tokenizer)
    given = {"num_inference_steps": 2, "output_type": "latent", **SIZE}

    def sampled(**kwargs):
        return made(**given, **kwargs, generator=torch.Generator().manual_seed(0)).frames

    out = sampled(prompt=["ab", "c"])
    assert torch.equal(out, sampled(prompt=["ab", "c"], negative_prompt=["", ""]))
    assert not torch.equal(out, sampled(prompt=["ab", "c"], negative_prompt=["d", "d"]))
    assert sampled(prompt="ab").shape[0] == 1


def test_the_whole_is_saved_and_loaded_with_its_text_encoder(tokenizer, tmp_path):
    made = pipeline(UNETS["own"](), text_encoder=clip(), tokenizer=tokenizer)
    made.save_pretrained(tmp_path / "whole")
    loaded = TextToVideoPipeline.from_pretrained(tmp_path / "whole")
    loaded.set_progress_bar_config(disable=True)
    assert loaded.tokenizer.model_max_length == LENGTH
    given = {"prompt": "ab", "num_inference_steps": 2, "output_type": "latent", **SIZE}
    out = [m(**given, generator=torch.Generator().manual_seed(0)).frames for m in (made, loaded)]
    close(*out)


def test_padding_is_not_seen():
    embeds, mask = padded_to(4, Tokens(torch.ones(2, 3, 5), None))
    assert mask.tolist() == [[True] * 3 + [False]] * 2
    assert embeds[:, 3].abs().sum() == 0
