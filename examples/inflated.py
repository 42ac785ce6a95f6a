"""An image model of diffusers, inflated, with the interface of the U-Net that is trained here."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
from cache import reason_of
from diffusers import DDPMScheduler
from diffusion import SCHEDULE
from errors import DataError
from torch import Tensor, nn

from make_a_video_pytorch import inflate, spatial_parameters
from make_a_video_pytorch.integrations.diffusers import InflatedDiffusersModel


class Inflated(nn.Module):
    """An inflated image model, of which the temporal parts alone are trained.

    Args:
        model: the inflated model.
        schedule: the settings of the scheduler that its image model was trained with.

    Attributes:
        config: what the U-Net of these scripts says of itself, as far as it is asked here.
    """

    cond_dim = None
    frame_multiple = 1

    def __init__(self, model: InflatedDiffusersModel, schedule: dict) -> None:
        super().__init__()
        self.model, self.schedule = model, dict(schedule)
        config = model.image_model.config
        text = config.get("cross_attention_dim")
        self.channels = int(config["in_channels"])
        self.image_size_multiple = 2 ** max(len(config.get("block_out_channels", ())) - 1, 0)
        self.config = {
            "channels": self.channels,
            "cond_dim": None,
            "context_dim": text if isinstance(text, int) else None,
            "condition_on_fps": False,
        }
        for parameter in spatial_parameters(self):
            parameter.requires_grad_(False)

    @classmethod
    def of_images(cls, folder: Path) -> Inflated:
        """The image model of a folder, or of a pipeline with its scheduler, inflated anew.

        Raises:
            DataError: if there is no model of diffusers in it.
        """
        place = next((folder / n for n in ("unet", "transformer") if (folder / n).is_dir()), folder)
        try:
            name = json.loads((place / "config.json").read_text(encoding="utf-8"))["_class_name"]
            image_model = getattr(diffusers, name).from_pretrained(place, local_files_only=True)
            video_model = inflate(image_model)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            problem = f"{folder} holds no image model of diffusers: {reason_of(error)}"
            raise DataError(problem) from error
        return cls(InflatedDiffusersModel(video_model), schedule_in(folder))

    @classmethod
    def saved(cls, folder: Path) -> Inflated:
        """What `save_pretrained` wrote."""
        model = InflatedDiffusersModel.from_pretrained(folder, local_files_only=True)
        return cls(model, schedule_in(folder))

    def save_pretrained(self, folder: Path) -> None:
        """Write the model, and the scheduler's settings in a folder in it."""
        self.model.save_pretrained(folder)
        DDPMScheduler.from_config(self.schedule).save_pretrained(folder / "scheduler")

    def forward(
        self,
        x: Tensor,
        timestep: Tensor | int,
        *,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """What the image model predicts of images (b c h w) or videos (b c f h w)."""
        given = {}
        if (dim := self.config["context_dim"]) is not None:
            given["encoder_hidden_states"] = x.new_zeros(len(x), 1, dim)
        if context is not None:
            given["encoder_hidden_states"] = context
            given["encoder_attention_mask"] = context_mask
        predicted = self.model(x, timestep, **given).sample
        return predicted[:, : self.channels]  # some predict a variance too


def schedule_in(folder: Path) -> dict:
    """The settings of the scheduler that lies in a folder, or those of these scripts."""
    if not (folder / "scheduler" / "scheduler_config.json").exists():
        return dict(SCHEDULE)
    config = DDPMScheduler.load_config(folder, subfolder="scheduler", local_files_only=True)
    return dict(DDPMScheduler.from_config(config).config)
