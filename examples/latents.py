"""Pictures as the latents of an autoencoder of diffusers, kept on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from cache import fingerprint, key_of, write
from diffusers import AutoencoderKL
from errors import DataError
from safetensors import safe_open
from torch import Tensor

AT_ONCE = 16


class Autoencoder:
    """Latents of pictures, scaled as the autoencoder's settings say, and the way back.

    Args:
        folder: an AutoencoderKL as diffusers saves it, or a pipeline that holds one as `vae`.
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
        self.cache, self.device = cache, device
        try:
            model = AutoencoderKL.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise DataError(f"{folder} holds no AutoencoderKL of diffusers: {reason}") from error
        self.model = model.to(device).eval().requires_grad_(False)
        self.channels = int(model.config.latent_channels)
        self.factor = 2 ** (len(model.config.block_out_channels) - 1)
        self.scale = float(model.config.scaling_factor)
        self.shift = float(model.config.get("shift_factor") or 0.0)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Latents (n c h/factor w/factor) of pictures (n 3 h w) in [-1, 1]: the expected ones."""
        few = pixels.split(AT_ONCE)
        means = [self.model.encode(part.to(self.device)).latent_dist.mean.cpu() for part in few]
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
            write(path, {"latents": torch.cat([self.encode(part) for part in pictures]).half()})
        return path


def read_latents(path: Path, indices: Sequence[int]) -> Tensor:
    """The latents (c f h w) of frames of these indices; no others are read."""
    with safe_open(path, "pt") as file:
        kept = file.get_slice("latents")
        return torch.stack([kept[index] for index in indices], dim=1).float()
