"""The stages of a small cascade from words to videos of glyphs, and how each is trained.

Two grow from the decoder; the last one is small, and sees no other frame.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from accelerate import Accelerator
from batch import Batch
from building import SMALL
from clips import resized
from diffusion import averaged, high_timesteps, optimizer_for, sampler
from draws import Draws
from embedding import Embedding
from fitting import fit
from glyphs import SIZE, Glyphs
from loading import Source, made
from torch import Generator, Tensor, nn

from make_a_video_pytorch import SpaceTimeUnet, temporal_parameters
from make_a_video_pytorch.cascade import Decoder, Interpolation, Stage, SuperResolution
from make_a_video_pytorch.guidance import drop_conditions

FRAMES, FACTOR = 6, 3  # of the decoder's clips, and frames made of one of them
SMALLEST, MIDDLE = (16, 16), (32, 32)
FPS = (4.0, 8.0)  # that clips of the decoder are drawn at
FASTER = (FPS[0] * FACTOR, FPS[1] * FACTOR)


class Part(NamedTuple):
    """A part of each batch; all parts weigh the same."""

    source: Source
    count: int
    frames: int = 1


class Phase(NamedTuple):
    """Some steps of the training of a stage."""

    steps: int
    lr: float
    parts: tuple[Part, ...]


class Plan(NamedTuple):
    """A stage, how it is trained, and as what."""

    stage: Stage
    phases: tuple[Phase, ...]
    as_what: Stage  # of the same model


def decoder(dim: int) -> Plan:
    """From an embedding (dim), 6 frames of 16x16: first pictures, then clips among them."""
    unet = SpaceTimeUnet(
        dim=32,
        dim_mult=(1, 2, 3),
        self_attns=(False, True, True),
        cond_dim=dim,
        condition_on_fps=True,
        temporal_compression=(False, False, False),
        resnet_block_depths=(1, 1, 1),
        attn_dim_head=32,
        attn_heads=4,
    )
    stage = Decoder(unet, sampler(), size=SMALLEST, frames=FRAMES, steps=10, guidance=1.5, alpha=2)
    source = Glyphs(fps=FPS)
    still = Phase(1500, 2e-3, (Part(source, 64),))
    moving = Phase(1000, 5e-4, (Part(source, 8, FRAMES), Part(source, 48)))
    return Plan(stage, (still, moving), stage)


def interpolation(unet: SpaceTimeUnet) -> Plan:
    """Of each frame three. A window begins and ends with a frame that is kept."""
    window = 3 * FACTOR + 1
    stage = Interpolation(
        unet.grow(cond_channels=4), sampler(), size=SMALLEST, factor=FACTOR, window=window,
        overlap=1, steps=2, alpha=2,
    )  # fmt: skip
    return Plan(stage, (Phase(1500, 2e-3, (Part(Glyphs(fps=FASTER), 8, window),)),), stage)


def larger(unet: SpaceTimeUnet) -> Plan:
    """32x32, with temporal parts."""
    stage = SuperResolution(
        unet.grow(cond_channels=7, condition_on_noise_level=True), sampler(), size=MIDDLE,
        size_before=SMALLEST, window=FRAMES, overlap=1, noise_level=50, most_noise_level=300,
        steps=4, alpha=2,
    )  # fmt: skip
    source = Glyphs(fps=FASTER)
    still = Phase(700, 2e-3, (Part(source, 16),))
    moving = Phase(350, 5e-4, (Part(source, 3, FRAMES), Part(source, 12)))
    return Plan(stage, (still, moving), stage)


def largest() -> Plan:
    """64x64, frame by frame, of one noise. It learns from crops, as it sees no more at once.

    So do the upsamplers of DALL-E 2, without attention too (Ramesh et al. 2022, section 2.1).
    """
    unet = SpaceTimeUnet(dim=16, cond_channels=3, **{**SMALL, "self_attns": (False, False)})
    options = {"window": FRAMES, "enable_time": False, "steps": 10, "alpha": math.inf}
    stage = SuperResolution(
        unet, sampler(), size=(SIZE, SIZE), size_before=MIDDLE, **options
    )  # fmt: skip
    crops = SuperResolution(unet, sampler(), size=MIDDLE, size_before=SMALLEST, **options)
    return Plan(stage, (Phase(2000, 2e-3, (Part(cropped(Glyphs()), 32),)),), crops)


def cropped(source: Source) -> Source:
    """Pictures of `source`, of each of which a quarter is left, at a place of its own.

    The places are even, so that a crop made smaller is a crop of what is made smaller.
    """

    def crops(count: int, frames: int, generator: Generator) -> Batch:
        batch = source(count, frames, generator)
        height, width = MIDDLE
        places = 2 * torch.randint((SIZE - height) // 2 + 1, (count, 2), generator=generator)
        videos = [
            video[..., y : y + height, x : x + width]
            for video, (y, x) in zip(batch.videos, places.tolist(), strict=True)
        ]
        return batch._replace(videos=torch.stack(videos))

    return crops


def train(
    plan: Plan,
    embedding: Embedding,
    accelerator: Accelerator,
    *,
    name: str,
    seed: int,
    share: float,
) -> None:
    """Train the model of a stage in a `share` of its steps, and leave it the averaged weights."""
    unet = plan.stage.model
    unet.to(accelerator.device)
    ema, optimizer = averaged(unet), optimizer_for(unet)
    start = 0
    for number, phase in enumerate(plan.phases):
        steps = range(start, start + max(round(phase.steps * share), 1))
        start = steps.stop
        title = name if len(plan.phases) == 1 else f"{name}, {number + 1} of {len(plan.phases)}"
        still = all(part.frames == 1 for part in phase.parts)
        fit(
            accelerator, unet, ema, optimizer, partial(loss_of, plan.as_what, embedding, phase),
            phase=title, steps=steps, lr=phase.lr, seed=seed, batch=phase.parts[0].count,
            unused=temporal_parameters(unet) if still else (),
        )  # fmt: skip
    unet.load_state_dict(ema.module.state_dict())
    unet.eval()


def embedded(embedding: Embedding, videos: Tensor) -> Tensor:
    """The embeddings (b dim) of videos (b c f h w) of any size."""
    middle = videos.shape[2] // 2
    return embedding.of_clips(resized(videos[:, :, middle : middle + 1], SMALLEST))


def loss_of(
    stage: Stage, embedding: Embedding, phase: Phase, model: nn.Module, draws: Draws
) -> Tensor:
    """The mean loss of the parts of a batch; a tenth of the embeddings are dropped."""
    device = next(stage.model.parameters()).device
    losses = []
    for part in phase.parts:
        batch = made(part.source, part.count, part.frames, draws)
        told: dict[str, Tensor] = {}
        if "cond" in stage.taken:
            dropped = draws.uniform(part.count) < 0.1
            told |= drop_conditions(dropped, cond=embedded(embedding, batch.videos))
        if "fps" in stage.taken:
            told["fps"] = batch.fps
        told = {key: value.to(device) for key, value in told.items()}
        timesteps = None  # where there are pictures to tell of, they tell most where noise is high
        if not isinstance(stage, Decoder):
            timesteps = high_timesteps(stage.scheduler, part.count, draws)
        clips, given = batch.samples.to(device), {"model": model, "timesteps": timesteps}
        losses.append(stage.loss(clips, generator=draws.generator, **given, **told))
    return torch.stack(losses).mean()
