"""Checkpoints of a training: a folder `checkpoint-<step>`.

It holds the averaged U-Net as diffusers saves it, and what training needs to go on, and appears
under its name only when it is complete.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from cache import reason_of
from embedding import Embedding
from errors import DataError, RunError
from inflated import Inflated
from options import option_of
from processes import lost
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sharding import is_sharded, shard_state, whole
from torch import nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.integrations.diffusers import InflatedDiffusersModel, SpaceTimeUnetModel

EMBEDDING = "embedding.safetensors"  # in a checkpoint


class Training(NamedTuple):
    """What a training goes on from."""

    unet: nn.Module
    ema: AveragedModel
    optimizer: AdamW
    accelerator: Accelerator
    bare: SpaceTimeUnet | Inflated | None = None  # to be saved with the weights of sharded ones
    embedding: Embedding | None = None  # by which it is told what to show


def save_checkpoint(out: Path, step: int, training: Training, options: dict) -> None:
    """Write the checkpoint of `step` and remove those before it; all processes must ask for it.

    Raises:
        RunError: if it cannot be written. The one before is then still there.
    """
    unet, ema, optimizer, accelerator, averaged_unet, embedding = training
    writes = accelerator.is_main_process
    if not writes and not is_sharded(unet):
        return
    state = {"unet": unet.state_dict(), "ema": ema.state_dict()}
    state = whole({**state, "optimizer": optimizer.state_dict(), "step": step}, kept=writes)
    if not writes:
        return
    if accelerator.scaler is not None:
        state["scaler"] = accelerator.scaler.state_dict()
    if averaged_unet is None:
        averaged_unet = ema.module
    else:
        prefix = "module."
        weights = {k.removeprefix(prefix): v for k, v in state["ema"].items() if prefix in k}
        averaged_unet.load_state_dict(weights)
    if isinstance(averaged_unet, SpaceTimeUnet):
        averaged_unet = SpaceTimeUnetModel.from_unet(averaged_unet, sample_size=options["size"])
    target, temporary = out / f"checkpoint-{step:06d}", out / ".checkpoint"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        averaged_unet.save_pretrained(temporary)
        if embedding is not None:
            save_file(embedding.state_dict(), temporary / EMBEDDING)
        (temporary / "training.json").write_text(json.dumps(options, indent=2))
        torch.save(state, temporary / "training.pt")
        older = checkpoints(out)
        temporary.rename(target)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if lost(error) is not None:  # meanwhile, and what is written has no part in it
            raise
        raise RunError(f"{target} cannot be written: {reason_of(error)}") from error
    for path in older:  # whole, or gone
        shutil.rmtree(path.rename(temporary), ignore_errors=True)


def checkpoints(out: Path) -> list[Path]:
    """The complete checkpoints in `out`, the last one last."""
    return sorted(path for path in out.glob("checkpoint-*") if path.is_dir())


def last_checkpoint(path: Path) -> Path:
    """`path` if it is a checkpoint, or the last one in it."""
    if (path / "training.pt").exists():
        return path
    if not (found := checkpoints(path)):
        raise DataError(f"no checkpoint in {path}")
    return found[-1]


def load_unet(checkpoint: Path, frames: int, size: int) -> SpaceTimeUnet | Inflated:
    """The averaged U-Net of a checkpoint, tried on a clip of this size."""
    try:
        if (checkpoint / InflatedDiffusersModel.config_name).exists():
            unet = Inflated.saved(checkpoint)
        elif (checkpoint / "unet.safetensors").exists():  # as 1.0.0 wrote it
            unet = SpaceTimeUnet(**json.loads((checkpoint / "config.json").read_text())["unet"])
            unet.load_state_dict(load_file(checkpoint / "unet.safetensors"))
        else:
            unet = SpaceTimeUnetModel.from_pretrained(checkpoint, low_cpu_mem_usage=False).unet
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise not_of_a_unet(checkpoint, error) from error
    return tried(unet, frames, size)


def options_of(checkpoint: Path) -> dict:
    """The options that the training of a checkpoint was given."""
    try:
        config = json.loads((checkpoint / "config.json").read_text())
        if "unet" in config:  # as 1.0.0 wrote it
            return {"dim": config["unet"]["dim"], **config["training"]}
        return {"dim": config.get("dim"), **json.loads((checkpoint / "training.json").read_text())}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise not_of_a_unet(checkpoint, error) from error


def clips_of(checkpoint: Path) -> tuple[str, int, int]:
    """The `--data` of a training, and the size and frames of its clips, for what goes on with it.

    Raises:
        DataError: if it was not trained on the pixels of files or digits.
    """
    options = options_of(checkpoint)
    for name in ("inflate", "vae", "text_encoder"):
        if options.get(name):
            option = option_of(name)
            raise DataError(f"{checkpoint} was trained with {option}, which is not read here")
    return options["data"], options["size"], options["frames"]


def not_of_a_unet(checkpoint: Path, error: Exception) -> DataError:
    """What to raise for a checkpoint that is not of a SpaceTimeUnet."""
    return DataError(f"{checkpoint} is not of a SpaceTimeUnet: {reason_of(error)}")


def tried(unet: SpaceTimeUnet | Inflated, frames: int, size: int) -> SpaceTimeUnet | Inflated:
    """`unet`, if it takes clips of so many frames of this size."""
    try:
        with torch.no_grad():
            unet(torch.zeros(1, unet.channels, frames, size, size), 0)
    except (ValueError, RuntimeError) as error:
        raise DataError(str(error).splitlines()[0]) from error
    return unet


def load_training(checkpoint: Path, unet: nn.Module, ema: AveragedModel) -> dict:
    """Load the weights that training goes on from; return what else is known, the `step` too."""
    state = torch.load(checkpoint / "training.pt", map_location="cpu", weights_only=True)
    unet.load_state_dict(state["unet"])
    ema.load_state_dict(state["ema"])
    return state


def load_optimizer(checkpoint: Path, state: dict, training: Training) -> None:
    """Load what `load_training` gave of the optimizer, and of the scaler of its gradients."""
    try:
        training.optimizer.load_state_dict(state["optimizer"])
        shard_state(training.optimizer)
    except ValueError:  # of other parameters, as those of 1.0.0
        print(f"{checkpoint} is of an earlier version: the weights go on, the optimizer anew")
    if training.accelerator.scaler is not None and "scaler" in state:
        training.accelerator.scaler.load_state_dict(state["scaler"])
