"""Texts as a U-Net attends to them, by a text encoder of transformers, kept on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from cache import UNREADABLE, fingerprint, reason_of, write
from errors import DataError
from keys import key_of
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

AT_ONCE = 32


class TextEncoder:
    """The tokens of texts, each encoded once.

    Of models with a decoder, such as T5, the encoder alone is used. Padding is not kept: of CLIP,
    whose tokens see those before them only, nothing changes by that. A text has a file of its own,
    so that two trainings may add to one cache at once, and none is written anew for a new text.

    Args:
        folder: the encoder with its tokenizer, or a pipeline of diffusers that holds both.
        cache: where the tokens are kept, under names that follow from text and encoder.
        device: where they are encoded.
        whole: keep padding, as image models of diffusers are trained to see it. No text is then
            the tokens of an empty one.

    Attributes:
        dim: the width of a token.

    Raises:
        DataError: if transformers is missing, or the folder holds no text encoder.
    """

    def __init__(self, folder: Path, cache: Path, device: str = "cpu", whole: bool = False) -> None:
        self.cache, self.device, self.whole = cache, device, whole
        nested = (folder / "text_encoder").is_dir()
        self.encoder = folder / "text_encoder" if nested else folder
        self.tokenizer = folder / "tokenizer" if (folder / "tokenizer").is_dir() else self.encoder
        # of a pipeline only these parts: the rest of it may change
        parts = dict.fromkeys((self.encoder, self.tokenizer))
        self.made_by = [[fingerprint(part) for part in parts], whole]
        self.dim = width_of(self.encoder)

    def path(self, text: str) -> Path:
        """Where the tokens of a text are kept."""
        return self.cache / f"{key_of([self.made_by, text])}.safetensors"

    @torch.no_grad()
    def prepare(self, texts: Iterable[str | None]) -> None:
        """Encode what is not kept yet. Only then is the encoder loaded, and let go afterwards.

        Raises:
            DataError: if the encoder or its tokenizer cannot be loaded, or the cache not written.
        """
        wanted = {text or "" for text in texts} if self.whole else set(filter(None, texts))
        new = sorted(text for text in wanted if not self.path(text).exists())
        if not new:
            return
        model, tokenizer = load(self.encoder, self.tokenizer)
        model.to(self.device)
        for first in tqdm(range(0, len(new), AT_ONCE), desc="texts", unit="batch", delay=2):
            few = new[first : first + AT_ONCE]
            padding = "max_length" if self.whole else True
            tokens = tokenizer(
                few, padding=padding, truncation=True, max_length=longest(tokenizer),
                return_tensors="pt",
            ).to(self.device)  # fmt: skip
            # CLIP sees what comes before a token only, and image models read it without a mask
            mask = None if model.config.model_type == "clip_text_model" else tokens.attention_mask
            states = model(tokens.input_ids, attention_mask=mask)[0].float().cpu()
            for text, state, own in zip(few, states, tokens.attention_mask.cpu(), strict=True):
                kept = state if self.whole else state[own.bool()]
                write(self.path(text), {"tokens": kept})

    def kept(self, text: str) -> Tensor:
        """The tokens (n dim) of a text that is prepared."""
        path = self.path(text)
        try:
            return load_file(path)["tokens"]
        except UNREADABLE as error:
            raise DataError(f"no tokens of {text!r} in {path}: {reason_of(error)}") from error

    def conditions(self, texts: Sequence[str | None]) -> dict[str, Tensor]:
        """The same as a U-Net takes it; of whole texts nothing is hidden."""
        tokens, mask = self(texts)
        return {"context": tokens} if self.whole else {"context": tokens, "context_mask": mask}

    def nothing(self) -> dict[str, Tensor] | None:
        """What stands in the place of a text that is left out, if it is not no token at all."""
        return {"context": self([""])[0][0]} if self.whole else None

    def __call__(self, texts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """The tokens (b n dim) of texts that are prepared, and which are theirs, bool (b n).

        None has no token.

        Raises:
            DataError: if a text is not prepared, or its file is damaged.
        """
        none = torch.zeros(0, self.dim)
        read = [text or "" if self.whole else text for text in texts]
        tokens = [self.kept(text) if text or self.whole else none for text in read]
        padded = pad_sequence([*tokens, torch.zeros(1, self.dim)], batch_first=True)[:-1]
        lengths = torch.tensor([len(own) for own in tokens])
        return padded, torch.arange(padded.shape[1]) < lengths[:, None]


def longest(tokenizer: object) -> int:
    """Most tokens of a text; some tokenizers say a number without a meaning."""
    return min(tokenizer.model_max_length, 512)


def width_of(folder: Path) -> int:
    """The width of a text encoder's tokens."""
    transformers = imported()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        config = getattr(config, "text_config", config)
        return int(getattr(config, "hidden_size", None) or config.d_model)
    except UNREADABLE as error:
        raise holds_no("text encoder", folder, error) from error


def load(folder: Path, tokenizer: Path) -> tuple[nn.Module, object]:
    """A text encoder, and its tokenizer.

    Raises:
        DataError: if one of them cannot be loaded, or the tokenizer cannot pad.
    """
    transformers = imported()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        of_kind = {  # those that can be loaded without what else is in their files
            "t5": transformers.T5EncoderModel,
            "mt5": transformers.MT5EncoderModel,
            "umt5": transformers.UMT5EncoderModel,
            "clip": transformers.CLIPTextModel,
        }
        model = of_kind.get(config.model_type, transformers.AutoModel).from_pretrained(
            folder, local_files_only=True
        )
        if config.is_encoder_decoder:  # else the states would be those of the decoder
            model = model.get_encoder()
    except UNREADABLE as error:
        raise holds_no("text encoder", folder, error) from error
    try:
        found = transformers.AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    except UNREADABLE as error:
        raise holds_no("tokenizer", tokenizer, error) from error
    if found.pad_token is None:
        raise DataError(f"the tokenizer in {tokenizer} has no token for padding")
    return model.eval().requires_grad_(False), found


def holds_no(part: str, folder: Path, error: Exception) -> DataError:
    """What to raise for a folder without a text encoder, or a tokenizer."""
    return DataError(f"{folder} holds no {part} of transformers: {reason_of(error)}")


def imported() -> object:
    """The library, which is needed for texts alone."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise DataError("--text-encoder needs transformers: pip install transformers") from error
    return transformers
