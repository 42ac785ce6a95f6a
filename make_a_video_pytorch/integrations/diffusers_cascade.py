"""A cascade as a folder of models and schedulers of diffusers, which `diffusers` exports."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import diffusers
import torch
from diffusers import ModelMixin, SchedulerMixin

from make_a_video_pytorch.cascade import (
    Cascade,
    Decoder,
    Interpolation,
    Stage,
    SuperResolution,
)
from make_a_video_pytorch.cascade.cascade import Prior
from make_a_video_pytorch.integrations.diffusers_inflated import InflatedDiffusersModel
from make_a_video_pytorch.integrations.diffusers_unet import SpaceTimeUnetModel
from make_a_video_pytorch.ops.checks import typechecked
from make_a_video_pytorch.unet.unet import SpaceTimeUnet

STAGES = {kind.__name__: kind for kind in (Decoder, Interpolation, SuperResolution)}
MODELS = {kind.__name__: kind for kind in (SpaceTimeUnetModel, InflatedDiffusersModel)}
INDEX = "cascade.json"


@typechecked
def save_cascade(cascade: Cascade, folder: str | os.PathLike[str]) -> None:
    """Save the stages of a cascade as one folder, a subfolder a stage.

    In it lie the stage's model, in `unet`, as diffusers would save it, and its scheduler. The
    prior is another library's, which saves it.

    Args:
        cascade: its models are SpaceTimeUnets, SpaceTimeUnetModels or InflatedDiffusersModels, and
            its schedulers diffusers' own.
        folder: where; it is made if there is none.

    Raises:
        TypeError: if a model or a scheduler is none of these.

    Example:
        >>> from diffusers import DDIMScheduler
        >>> from make_a_video_pytorch.cascade import Cascade, Decoder
        >>> unet = SpaceTimeUnet(dim=8, attn_dim_head=8, attn_heads=2)
        >>> decoder = Decoder(unet, DDIMScheduler(), size=(16, 16), frames=8, steps=2)
        >>> cascade = Cascade({"decoder": decoder})
        >>> save_cascade(cascade, folder)
        >>> torch.allclose(load_cascade(folder)(seed=3), cascade(seed=3), atol=1e-4)
        True
    """
    folder, index = Path(folder), {}
    for name, stage in cascade.stages.items():
        must_be_saved(name, stage)
    for name, stage in cascade.stages.items():
        model, kind = stage.model, type(stage.model)
        if isinstance(model, SpaceTimeUnet):
            model, kind = SpaceTimeUnetModel.from_unet(model), SpaceTimeUnet
        cast("ModelMixin", model).save_pretrained(folder / name / "unet")
        cast("SchedulerMixin", stage.scheduler).save_pretrained(folder / name / "scheduler")
        index[name] = {
            "stage": type(stage).__name__, "model": kind.__name__, "settings": stage.settings,
        }  # fmt: skip
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


@typechecked
def load_cascade(
    folder: str | os.PathLike[str],
    prior: Prior | None = None,
    *,
    torch_dtype: torch.dtype | None = None,
) -> Cascade:
    """Load what `save_cascade` saved.

    Args:
        folder: where.
        prior: from texts to embeddings, as that of a `Cascade`.
        torch_dtype: that of the models; fp32 if None.

    Raises:
        OSError: if there is no such folder, or something in it is missing.

    Example:
        >>> from diffusers import DDIMScheduler
        >>> from make_a_video_pytorch.cascade import Cascade, Decoder
        >>> unet = SpaceTimeUnet(dim=8, attn_dim_head=8, attn_heads=2)
        >>> decoder = Decoder(unet, DDIMScheduler(), size=(16, 16), frames=8, steps=2)
        >>> save_cascade(Cascade({"decoder": decoder}), folder)
        >>> load_cascade(folder).stages["decoder"].window
        8
    """
    folder = Path(folder)
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    stages = {}
    for name, entry in index.items():
        kind = MODELS.get(entry["model"], SpaceTimeUnetModel)
        model = kind.from_pretrained(folder / name / "unet", torch_dtype=torch_dtype)
        if entry["model"] == SpaceTimeUnet.__name__:
            model = model.unet
        build = cast("Callable[..., Stage]", STAGES[entry["stage"]])
        stages[name] = build(model, scheduler_in(folder / name / "scheduler"), **entry["settings"])
    return Cascade(stages, prior)


def must_be_saved(name: str, stage: Stage) -> None:
    """Raise a TypeError for a stage that could not be loaded again."""
    model, scheduler = stage.model, stage.scheduler
    if type(stage).__name__ not in STAGES:
        raise TypeError(f"`stages[{name!r}]` (a {type(stage).__name__}) is not known in loading")
    if getattr(diffusers, type(scheduler).__name__, None) is not type(scheduler):
        raise TypeError(
            f"`stages[{name!r}].scheduler` (a {type(scheduler).__name__}) must be one of diffusers"
        )
    if not isinstance(model, (SpaceTimeUnet, *MODELS.values())):
        raise TypeError(
            f"`stages[{name!r}].model` (a {type(model).__name__}) must be a SpaceTimeUnet, a "
            f"{' or a '.join(MODELS)}, to be saved"
        )


def scheduler_in(folder: Path) -> SchedulerMixin:
    """The scheduler in a folder, of the kind that it says it is."""
    config = json.loads((folder / "scheduler_config.json").read_text(encoding="utf-8"))
    kind = getattr(diffusers, config["_class_name"])
    return kind.from_pretrained(folder)
