"""Checkpoints of a training: a folder `checkpoint-<step>`.

It holds the averaged U-Net as diffusers saves it, and what training needs to go on, and appears
under its name only when it is complete.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from cache import reason_of
from errors import DataError
from inflated import Inflated
from safetensors.torch import load_file
from torch import nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.integrations.diffusers import InflatedDiffusersModel, SpaceTimeUnetModel


def save_checkpoint(
    out: Path, step: int, unet: nn.Module, ema: AveragedModel, optimizer: AdamW, training: dict
) -> None:
    """Write the checkpoint of `step` and remove those before it."""
    target = out / f"checkpoint-{step:06d}"
    temporary = out / ".checkpoint"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    averaged_unet = ema.module
    if isinstance(averaged_unet, SpaceTimeUnet):
        averaged_unet = SpaceTimeUnetModel.from_unet(averaged_unet, sample_size=training["size"])
    averaged_unet.save_pretrained(temporary)
    (temporary / "training.json").write_text(json.dumps(training, indent=2))
    state = {"step": step, "unet": unet.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "ema": ema.state_dict()}, temporary / "training.pt")
    older = checkpoints(out)
    temporary.rename(target)
    for path in older:
        shutil.rmtree(path)


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
            option = f"--{name.replace('_', '-')}"
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


def load_training(
    checkpoint: Path, unet: nn.Module, ema: AveragedModel, optimizer: AdamW, device: str
) -> int:
    """Load what training goes on from; return the number of steps taken."""
    state = torch.load(checkpoint / "training.pt", map_location=device, weights_only=True)
    unet.load_state_dict(state["unet"])
    ema.load_state_dict(state["ema"])
    try:
        optimizer.load_state_dict(state["optimizer"])
    except ValueError:  # of other parameters, as those of 1.0.0
        print(f"{checkpoint} is of an earlier version: the weights go on, the optimizer anew")
    return state["step"]
