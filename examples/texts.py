"""Texts as a U-Net attends to them, by a text encoder of transformers, kept on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from cache import fingerprint, key_of, write
from errors import DataError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

AT_ONCE = 32


class TextEncoder:
    """The tokens of texts, each encoded once.

    Encoders of T5's kind are loaded without their decoder. Padding is not kept: of CLIP, whose
    tokens see those before them only, nothing changes by that.

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
        self.made_by = [fingerprint(folder), whole]
        self.cache, self.device, self.whole = cache, device, whole
        nested = (folder / "text_encoder").is_dir()
        self.encoder = folder / "text_encoder" if nested else folder
        self.tokenizer = folder / "tokenizer" if (folder / "tokenizer").is_dir() else self.encoder
        self.dim = width_of(self.encoder)

    def path(self, text: str) -> Path:
        """Where the tokens of a text are kept."""
        return self.cache / f"{key_of([self.made_by, text])}.safetensors"

    @torch.no_grad()
    def prepare(self, texts: Iterable[str | None]) -> None:
        """Encode what is not kept yet. Only then is the encoder loaded, and let go afterwards."""
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
        """
        none = torch.zeros(0, self.dim)
        read = [text or "" if self.whole else text for text in texts]
        tokens = [
            none if not (t or self.whole) else load_file(self.path(t))["tokens"] for t in read
        ]
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
    except (OSError, ValueError, AttributeError) as error:
        raise no_encoder(folder, error) from error


def load(folder: Path, tokenizer: Path) -> tuple[nn.Module, object]:
    """A text encoder, and its tokenizer."""
    transformers = imported()
    try:
        kind = transformers.AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        of_kind = {
            "t5": transformers.T5EncoderModel,
            "mt5": transformers.MT5EncoderModel,
            "umt5": transformers.UMT5EncoderModel,
            "clip": transformers.CLIPTextModel,
        }
        model = of_kind.get(kind, transformers.AutoModel).from_pretrained(
            folder, local_files_only=True
        )
        found = transformers.AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    except (OSError, ValueError) as error:
        raise no_encoder(folder, error) from error
    return model.eval().requires_grad_(False), found


def no_encoder(folder: Path, error: Exception) -> DataError:
    """What to raise for a folder that holds no text encoder."""
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return DataError(f"{folder} holds no text encoder and tokenizer of transformers: {reason}")


def imported() -> object:
    """The library, which is needed for texts alone."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise DataError("--text-encoder needs transformers: pip install transformers") from error
    return transformers
