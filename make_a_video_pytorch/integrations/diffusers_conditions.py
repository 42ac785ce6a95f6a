"""What a pipeline conditions a U-Net on, texts above all, and how strongly.

Letters: b batch, n tokens, d features, f frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from torch import Tensor

from make_a_video_pytorch.integrations.diffusers_unet import SpaceTimeUnetModel
from make_a_video_pytorch.ops.decision import as_bools


class Text(NamedTuple):
    """Texts as a pipeline is given them."""

    prompt: str | list[str] | None
    embeds: Tensor | None  # (b n d)
    mask: Tensor | None    # (b n)


class Tokens(NamedTuple):
    """Texts as a U-Net attends to them."""

    embeds: Tensor       # (b n d)
    mask: Tensor | None  # (b n), False for tokens that are not to be seen


def conditions_of(
    pipeline: DiffusionPipeline,
    positive: Text,
    negative: Text,
    others: dict[str, Tensor | float | None],
    *,
    guided: bool,
    batch: int,
) -> tuple[dict[str, Tensor | float], int, bool]:
    """The U-Net's arguments, how many videos they are for, and whether they are for guidance.

    For guidance they hold twice as many samples, those without a condition first. Without any
    condition there is no guidance, and the videos are a `batch`.
    """
    tokens = tokens_of(pipeline, positive)
    cond = others.get("cond")
    for condition in (cond, None if tokens is None else tokens.embeds):
        batch = len(condition) if isinstance(condition, Tensor) else batch
    guided = guided and (tokens is not None or cond is not None)
    device, dtype = pipeline._execution_device, pipeline.unet.dtype
    conditions: dict[str, Tensor | float] = {}
    for name, value in others.items():
        if isinstance(value, Tensor):
            value = value.to(device, dtype)
            value = twice(name, value) if guided and value.ndim else value
        if value is not None:
            conditions[name] = value
    if tokens is not None:
        if guided:
            theirs = tokens_of(pipeline, negative, "negative_prompt")
            tokens = against(pipeline, tokens, theirs, prompted=positive.prompt is not None)
        conditions["encoder_hidden_states"] = tokens.embeds
        if tokens.mask is not None:
            conditions["encoder_attention_mask"] = tokens.mask
    return conditions, batch, guided


def twice(name: str, value: Tensor) -> Tensor:
    """A condition (b ...) for both predictions of guidance; of `cond` zeros are none."""
    return torch.cat((torch.zeros_like(value) if name == "cond" else value, value))


def tokens_of(pipeline: DiffusionPipeline, text: Text, name: str = "prompt") -> Tokens | None:
    """`text` by the text encoder of the pipeline, or as it is embedded already; None without one.

    Raises:
        ValueError: if a text is given twice, or cannot be encoded.
    """
    prompt, embeds, mask = text
    device, dtype = pipeline._execution_device, pipeline.unet.dtype
    if embeds is not None:
        if prompt is not None:
            raise ValueError(f"`{name}` and `{name}_embeds` cannot both be given")
        if embeds.ndim != 3:
            raise ValueError(f"`{name}_embeds` (shape {tuple(embeds.shape)}) must be (b, n, d)")
        if mask is not None:
            mask = as_bools(**{f"{name}_attention_mask": mask}).to(device)
        return Tokens(embeds.to(device, dtype), mask)
    if prompt is None:
        return None
    encoder, tokenizer = pipeline.text_encoder, pipeline.tokenizer
    if encoder is None or tokenizer is None:
        raise ValueError(
            f"`{name}` must be given as `{name}_embeds`: the pipeline has no `text_encoder` and "
            "`tokenizer`"
        )
    tokens = tokenizer(
        [prompt] if isinstance(prompt, str) else list(prompt),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).to(device)
    # CLIP is trained, and read by image models, without a mask; text encoders like T5 are not
    masked = getattr(encoder.config, "model_type", "") != "clip_text_model"
    mask = tokens.attention_mask if masked else None
    embeds = encoder(tokens.input_ids, attention_mask=mask)[0].to(dtype)
    return Tokens(embeds, None if mask is None else mask.bool())


def against(
    pipeline: DiffusionPipeline, positive: Tokens, negative: Tokens | None, prompted: bool
) -> Tokens:
    """The tokens of `negative` and then of `positive` in one batch, for guidance.

    Where no negative text is given it is an empty one, if the positive one was `prompted`, or
    else no token at all.

    Raises:
        ValueError: if a negative text is needed and not given, or of another shape.
    """
    batch, length, width = positive.embeds.shape
    masks = isinstance(pipeline.unet, SpaceTimeUnetModel)
    if negative is None and prompted:
        negative = tokens_of(pipeline, Text([""] * batch, None, None))
    if negative is None:
        if not masks:
            raise ValueError("`negative_prompt_embeds` must be given, for a `guidance_scale` not 1")
        null = torch.zeros_like(positive.embeds)
        negative = Tokens(null, null.new_zeros(batch, length, dtype=torch.bool))
    theirs = negative.embeds
    if theirs.shape[2] != width or len(theirs) not in (1, batch):
        raise ValueError(
            f"`negative_prompt_embeds` (shape {tuple(theirs.shape)}) must be (b, n, d) with b = "
            f"{batch} and d = {width}, as the prompt's"
        )
    mask = None if negative.mask is None else negative.mask.expand(batch, -1)
    negative = Tokens(theirs.expand(batch, -1, -1), mask)
    alike = theirs.shape[1] == length and positive.mask is None and negative.mask is None
    if alike:
        return Tokens(torch.cat((negative.embeds, positive.embeds)), None)
    if not masks and theirs.shape[1] != length:
        raise ValueError(
            f"`negative_prompt_embeds` (shape {tuple(theirs.shape)}) must have {length} tokens, as "
            "the prompt's"
        )
    longest = max(length, theirs.shape[1])
    padded = [padded_to(longest, tokens) for tokens in (negative, positive)]
    return Tokens(*(torch.cat(pair) for pair in zip(*padded, strict=True)))


def padded_to(length: int, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """`tokens` with as many more as `length` asks for, none of which is to be seen."""
    embeds, mask = tokens
    if mask is None:
        mask = embeds.new_ones(embeds.shape[:2], dtype=torch.bool)
    more = length - embeds.shape[1]
    return F.pad(embeds, (0, 0, 0, more)), F.pad(mask, (0, more))


def scale_per_frame(scale: float | Sequence[float] | Tensor, frames: int) -> Tensor:
    """A guidance scale, of all frames or of each, as (1 1 1|f 1 1)."""
    scale = torch.as_tensor(scale, dtype=torch.float32)
    if scale.shape not in ((), (1,), (frames,)):
        raise ValueError(
            f"`guidance_scale` (shape {tuple(scale.shape)}) must be one number or (f) = {(frames,)}"
        )
    return scale.reshape(1, 1, -1, 1, 1)
