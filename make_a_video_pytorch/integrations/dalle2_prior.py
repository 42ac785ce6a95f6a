"""The prior of dalle2-pytorch as that of a cascade, which `dalle2` exports."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from dalle2_pytorch import DiffusionPrior
from dalle2_pytorch.tokenizer import tokenizer
from torch import Tensor

from make_a_video_pytorch.ops.checks import at_least, typechecked


@typechecked
def text_prior(
    prior: DiffusionPrior,
    *,
    tokenize: Callable[..., Tensor] = tokenizer.tokenize,
    samples: int = 2,
    cond_scale: float | int = 1,
    timesteps: int | None = None,
) -> Callable[[Sequence[str]], Tensor]:
    """From texts to image embeddings (b d), the `prior` of a `Cascade`.

    That of Make-A-Video (Singer et al. 2022, section 3.1), which is DALL-E 2's (Ramesh et al.
    2022, section 2.2): of some embeddings the one that is most like the text's is taken.

    Args:
        prior: trained, with the CLIP that it was trained by.
        tokenize: from texts to tokens (b n), as the CLIP takes them.
        samples: how many embeddings to choose from, for each text.
        cond_scale: guidance, 1 for none.
        timesteps: of denoising; as `prior` has it if None.

    Raises:
        TypeError: if an argument is of a wrong type.
        ValueError: if `prior` has no CLIP, or `samples` is below 1.
    """
    at_least(1, samples=samples)
    if prior.clip is None:
        raise ValueError("`prior` must have a `clip`, which embeds the texts")

    def embed(texts: Sequence[str]) -> Tensor:
        tokens = tokenize(list(texts)).to(next(prior.parameters()).device)
        embeddings: Tensor = prior.sample(
            tokens, num_samples_per_batch=samples, cond_scale=cond_scale, timesteps=timesteps
        )
        return embeddings.to(torch.float32)

    return embed
