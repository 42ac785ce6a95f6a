"""Pictures as the latents of an autoencoder of diffusers, kept on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from cache import UNREADABLE, fingerprint, reason_of, write
from diffusers import AutoencoderKL, AutoencoderTiny
from errors import DataError
from keys import key_of
from safetensors import safe_open
from torch import Tensor

AT_ONCE = 16
KINDS = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


class Autoencoder:
    """Latents of pictures, scaled as the autoencoder's settings say, and the way back.

    Other processes are given it without its weights, and load them only if they compute.

    Args:
        folder: an AutoencoderKL or AutoencoderTiny as diffusers saves it, or a pipeline that holds
            one as `vae`.
        cache: where the latents of files are kept, under names that follow from what made them.
        device: where it computes.

    Attributes:
        channels: of the latents.
        factor: pixels a latent, down and across.

    Raises:
        DataError: if the folder holds none.
    """

    def __init__(self, folder: Path, cache: Path, device: str = "cpu") -> None:
        folder = folder / "vae" if (folder / "vae").is_dir() else folder
        self.made_by = fingerprint(folder)
        self.folder, self.cache, self.device = folder, cache, device
        model = self.model  # now, so that what cannot be used is said before a training
        self.channels = int(model.config.latent_channels)
        self.factor = 2 ** (len(model.config.block_out_channels) - 1)
        self.scale = float(model.config.scaling_factor)
        self.shift = float(model.config.get("shift_factor") or 0.0)

    @cached_property
    def model(self) -> AutoencoderKL | AutoencoderTiny:
        """The autoencoder itself."""
        try:
            config = AutoencoderKL.load_config(self.folder, local_files_only=True)
            name = config.get("_class_name", "AutoencoderKL")
            if name not in KINDS:  # else its settings would be read as those of another
                raise TypeError(f"it is {name}")
            model = KINDS[name].from_pretrained(self.folder, local_files_only=True)
        except UNREADABLE as error:
            wanted = " or ".join(KINDS)
            problem = f"{self.folder} holds no {wanted} of diffusers: {reason_of(error)}"
            raise DataError(problem) from error
        return model.to(self.device).eval().requires_grad_(False)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "model"}

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Latents (n c h/factor w/factor) of pictures (n 3 h w) in [-1, 1]: the expected ones."""
        means = []
        for part in pixels.split(AT_ONCE):
            encoded = self.model.encode(part.to(self.device))
            tiny = isinstance(self.model, AutoencoderTiny)  # which gives no distribution
            means.append((encoded.latents if tiny else encoded.latent_dist.mean).cpu())
        return (torch.cat(means) - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Videos (b 3 f h w) in [-1, 1] of latents (b c f h/factor w/factor)."""
        frames = latents.transpose(1, 2).flatten(0, 1) / self.scale + self.shift
        pictures = [
            self.model.decode(part.to(self.device)).sample for part in frames.split(AT_ONCE)
        ]
        whole = torch.cat(pictures).clamp(-1, 1).cpu()
        return whole.unflatten(0, (len(latents), -1)).transpose(1, 2)

    def path(self, key: object) -> Path:
        """Where the latents of what `key` says, which is fit for JSON, are kept."""
        return self.cache / f"{key_of([self.made_by, key])}.safetensors"

    def keep(self, key: object, pictures: Iterable[Tensor]) -> Path:
        """Encode `pictures`, (n 3 h w) a part, unless their latents are kept already."""
        path = self.path(key)
        if not path.exists():
            latents = torch.cat([self.encode(part) for part in pictures])
            # their variance is about one: what half precision loses, 1/2048 of a value, is little
            write(path, {"latents": latents.half()})
        return path


def read_latents(path: Path, indices: Sequence[int]) -> Tensor:
    """The latents (c f h w) of frames of these indices; no others are read.

    Raises:
        DataError: if there is no such file, or it is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            kept = file.get_slice("latents")
            return torch.stack([kept[index] for index in indices], dim=1).float()
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as latents: {reason_of(error)}") from error
