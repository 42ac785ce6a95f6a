"""From text to video with a U-Net of this library, by diffusers, which `diffusers` exports."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, ModelMixin, SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.video_processor import VideoProcessor
from huggingface_hub import snapshot_download
from torch import Generator, Tensor, nn

from make_a_video_pytorch.inflation.folding import PerFrame, per_frame
from make_a_video_pytorch.integrations.diffusers_conditions import (
    Text,
    conditions_of,
    scale_per_frame,
)
from make_a_video_pytorch.integrations.diffusers_frames import (
    Kept,
    count_of,
    decoded,
    frames_to_keep,
    put_back,
    starting_noise,
)
from make_a_video_pytorch.integrations.diffusers_inflated import HUB, InflatedDiffusersModel
from make_a_video_pytorch.integrations.diffusers_unet import SpaceTimeUnetModel
from make_a_video_pytorch.ops.checks import must_be_multiple
from make_a_video_pytorch.recipes import kept_frames
from make_a_video_pytorch.recipes.denoising import without_variance

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    Videos = Tensor | np.ndarray | list[list[Image.Image]]
    Callback = Callable[["TextToVideoPipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor]]


@dataclass
class TextToVideoPipelineOutput(BaseOutput):
    """What `TextToVideoPipeline` makes.

    Attributes:
        frames: a list of videos, each a list of PIL images, or an array (b f h w c) or a tensor
            (b f c h w) in [0, 1], or latents (b c f h w), as `output_type` says.
    """

    frames: Videos


class TextToVideoPipeline(DiffusionPipeline):
    """From text to video, with a `SpaceTimeUnetModel` or an `InflatedDiffusersModel`.

    Guidance is that of Ho and Salimans 2022, with negative prompts in the place of no condition.
    Frames are kept by the U-Net's mask channels (`cond_channels` one more than `channels`;
    Make-A-Video, Singer et al. 2022, section 3.3), or, where it has none, by a noise level of each
    frame, zero for those that are kept (Diffusion Forcing, Chen et al. 2024).

    Args:
        unet: a SpaceTimeUnetModel or an InflatedDiffusersModel.
        scheduler: a scheduler of diffusers, for what the U-Net was trained to predict.
        vae: an AutoencoderKL in whose latents the U-Net works, one frame by another.
        text_encoder: a text encoder of transformers.
        tokenizer: its tokenizer.

    Example:
        >>> from diffusers import DDIMScheduler
        >>> unet = SpaceTimeUnetModel(dim=8, attn_dim_head=8, attn_heads=2, context_dim=6)
        >>> pipeline = TextToVideoPipeline(unet, DDIMScheduler())
        >>> pipeline(prompt_embeds=torch.randn(2, 7, 6), height=16, width=16, num_frames=8,
        ...     num_inference_steps=2, output_type="pt").frames.shape
        torch.Size([2, 8, 3, 16, 16])
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"
    _optional_components: ClassVar[list[str]] = ["vae", "text_encoder", "tokenizer"]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]

    def __init__(
        self,
        unet: ModelMixin,
        scheduler: SchedulerMixin,
        vae: AutoencoderKL | None = None,
        text_encoder: nn.Module | None = None,
        tokenizer: object | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            unet=unet, scheduler=scheduler, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer
        )
        self.vae_scale_factor = 1 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor)

    @classmethod
    def download(cls, pretrained_model_name: str, **kwargs: object) -> str:
        """Download a saved pipeline, and what of an inflated U-Net diffusers does not look for."""
        hub = {name: kwargs[name] for name in HUB if name in kwargs}
        folder: str = super().download(pretrained_model_name, **kwargs)
        own = [f"*/{name}" for name in (InflatedDiffusersModel.config_name, "motion*.safetensors")]
        snapshot_download(pretrained_model_name, allow_patterns=own, **hub)
        return folder

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        *,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        cond: Tensor | None = None,
        image: Tensor | np.ndarray | Image.Image | list[Image.Image] | None = None,
        video: Videos | None = None,
        kept: Tensor | None = None,
        num_frames: int = 16,
        height: int | None = None,
        width: int | None = None,
        fps: Tensor | float | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float | Sequence[float] | Tensor = 7.5,
        eta: float = 0.0,
        generator: Generator | list[Generator] | None = None,
        latents: Tensor | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> TextToVideoPipelineOutput | tuple[Videos]:
        """Sample videos.

        Args:
            prompt: the text of each video.
            negative_prompt: what to lead away from; an empty text if left out.
            prompt_embeds: tokens of the texts (b n d), in the place of `prompt`.
            negative_prompt_embeds: such of the negative texts; no token if left out.
            prompt_attention_mask: False or 0 (b n) for tokens that are not to be seen.
            negative_prompt_attention_mask: the same of `negative_prompt_embeds`.
            cond: vectors (b cond_dim), of which zeros are no condition.
            image: the first frame of each video, which is kept.
            video: frames of which some are kept, as many as `num_frames`.
            kept: which ones, bool (f) or (b f).
            num_frames: frames of a video.
            height: in pixels; that of `sample_size` in the U-Net's `config` if left out.
            width: the same.
            fps: frames per second to condition on, one number or (b).
            num_inference_steps: denoising steps.
            guidance_scale: how strongly to follow the text and `cond`, 1 for no guidance; one
                number, or one for each frame.
            eta: how much noise DDIM adds, from 0 to 1.
            generator: where randomness comes from, one or one for each video.
            latents: the noise to start from (b c f h w), in the place of what is drawn.
            callback_on_step_end: called with the pipeline, the index of a step, its timestep and
                the tensors asked for; what it returns of them is gone on with.
            callback_on_step_end_tensor_inputs: the tensors asked for: `latents`.
            output_type: "pil", "np", "pt" or "latent".
            return_dict: give a `TextToVideoPipelineOutput`, or else a tuple.

        Raises:
            ValueError: if an argument is missing, of another shape, or not what the U-Net takes.
        """
        scale = scale_per_frame(guidance_scale, num_frames).to(self._execution_device)
        conditions, batch, guided = conditions_of(
            self,
            Text(prompt, prompt_embeds, prompt_attention_mask),
            Text(negative_prompt, negative_prompt_embeds, negative_prompt_attention_mask),
            {"cond": cond, "fps": fps},
            guided=bool((scale != 1).any()),
            batch=count_of(latents, image, video),
        )
        shape = self.shape_of(batch, num_frames, height, width)
        keep = frames_to_keep(self, image, video, kept, shape)
        if keep is not None and self.unet.config.get("cond_channels", 0) == shape[1] + 1:
            beside = kept_frames(*keep)
            conditions["cond_images"] = torch.cat((beside, beside)) if guided else beside
        latents = starting_noise(self, shape, latents, generator)
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        taken = inspect.signature(self.scheduler.step).parameters
        options = {"eta": eta, "generator": generator}
        options = {name: value for name, value in options.items() if name in taken}
        for index, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            predicted = self.predict(latents, timestep, conditions, keep, scale, guided)
            latents = self.scheduler.step(predicted, timestep, latents, **options).prev_sample
            if callback_on_step_end is not None:
                asked = dict.fromkeys(callback_on_step_end_tensor_inputs, latents)
                latents = callback_on_step_end(self, index, timestep, asked).get("latents", latents)
        latents = latents if keep is None else put_back(keep, latents)
        frames: Videos = latents
        if output_type != "latent":
            pixels = decoded(self, latents).float()
            frames = self.video_processor.postprocess_video(pixels, output_type)
        self.maybe_free_model_hooks()
        return TextToVideoPipelineOutput(frames=frames) if return_dict else (frames,)

    def shape_of(
        self, batch: int, frames: int, height: int | None, width: int | None
    ) -> tuple[int, int, int, int, int]:
        """The shape of the latents (b c f h w)."""
        config = self.unet.config
        size = config.get("sample_size")
        default = size if isinstance(size, (tuple, list)) else (size, size)
        sizes = []
        for name, pixels, latent in zip(("height", "width"), (height, width), default, strict=True):
            if pixels is None and latent is None:
                raise ValueError(f"`{name}` must be given: the U-Net has no `sample_size`")
            if pixels is not None:
                must_be_multiple(self.vae_scale_factor, "as the VAE asks", **{name: pixels})
                latent = pixels // self.vae_scale_factor
            sizes.append(latent)
        return (batch, config.get("channels", config.get("in_channels")), frames, *sizes)

    def predict(
        self,
        latents: Tensor,
        timestep: Tensor,
        conditions: dict[str, Tensor | float],
        keep: Kept | None,
        scale: Tensor,
        guided: bool,
    ) -> Tensor:
        """What the U-Net predicts, guided, for latents (b c f h w) of a `timestep`."""
        x = latents
        level: Tensor | PerFrame = timestep
        if hasattr(self.scheduler, "scale_model_input"):
            x = self.scheduler.scale_model_input(x, timestep)
        if keep is not None and "cond_images" not in conditions:
            x = put_back(keep, x)
            levels = torch.where(keep.kept, 0, timestep)
            levels = torch.cat((levels, levels)) if guided else levels
            level = levels if isinstance(self.unet, SpaceTimeUnetModel) else per_frame(levels)
        x = torch.cat((x, x)) if guided else x
        out: Tensor
        (out,) = self.unet(x.to(self.unet.dtype), level, **conditions, return_dict=False)
        out = without_variance(out, latents.shape[1], self.scheduler)
        if not guided:
            return out
        without, conditioned = out.chunk(2)
        return torch.lerp(without, conditioned, scale.to(out.dtype))
