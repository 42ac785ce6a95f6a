"""What a U-Net is conditioned on beside a context: numbers, a vector, pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from make_a_video_pytorch.modules.timestep import NumberEmbedding, TimestepEmbedding
from make_a_video_pytorch.ops.checks import at_least, is_one_of, must_be_taken, must_be_tensor
from make_a_video_pytorch.ops.decision import Temporal, hide
from make_a_video_pytorch.ops.parameters import acts_across_frames, zero_init
from make_a_video_pytorch.ops.positions import SinusoidalPosEmb


class Conditioned(nn.Module):
    """The part of a U-Net that embeds a timestep, a vector, a noise level and a frame rate.

    Their sum scales and shifts the residual blocks. The timestep's part has the names and the
    initialisation of 0.4.0; the others are zero at first.

    Args:
        dim: width of the sinusoids; the embedding is four times as wide.
        condition_on_timestep: embed a timestep.
        cond_dim: width of the vector, if there is one.
        condition_on_fps: embed the frames per second.
        cond_channels: channels of the pictures.
        condition_on_noise_level: embed how much noise they have.
    """

    def __init__(
        self,
        dim: int,
        condition_on_timestep: bool,
        cond_dim: int | None,
        condition_on_fps: bool,
        cond_channels: int,
        condition_on_noise_level: bool,
    ) -> None:
        super().__init__()
        at_least(1, dim=dim)
        at_least(0, cond_channels=cond_channels)
        self.cond_channels = cond_channels
        self.cond_dim = cond_dim
        self.to_timestep_cond: NumberEmbedding | None = None
        self.to_cond: nn.Linear | None = None
        self.to_fps_cond: NumberEmbedding | None = None
        self.to_noise_level_cond: NumberEmbedding | None = None
        numbers = condition_on_timestep, condition_on_fps, condition_on_noise_level
        emb_dim = dim * 4
        self.emb_dim = emb_dim if any(numbers) or cond_dim is not None else None
        if condition_on_timestep:
            self.to_timestep_cond = TimestepEmbedding(dim, emb_dim).net
        if cond_dim is not None:
            at_least(1, cond_dim=cond_dim)
            self.to_cond = zero_init(nn.Linear(cond_dim, emb_dim, bias=False))
        if condition_on_fps:
            self.to_fps_cond = zero_embedding(dim, emb_dim)
        if condition_on_noise_level:
            self.to_noise_level_cond = zero_embedding(dim, emb_dim)
        acts_across_frames(self, "to_fps_cond")

    def embed(
        self,
        timestep: Tensor | float | None,
        cond: Tensor | None,
        fps: Tensor | float | None,
        noise_level: Tensor | float | None,
        video: Tensor,
        temporal: Temporal,
    ) -> Tensor | None:
        """The sum of what is known of a sample (b emb_dim), or of each frame (b f emb_dim)."""
        if (timestep is None) != (self.to_timestep_cond is None):
            needed = "given, as" if timestep is None else "left out, unless"
            raise ValueError(f"`timestep` must be {needed} `condition_on_timestep` is True")
        must_be_taken(self.to_cond is not None, "cond_dim", cond=cond)
        must_be_taken(self.to_fps_cond is not None, "condition_on_fps", fps=fps)
        told = self.to_noise_level_cond is not None
        must_be_taken(told, "condition_on_noise_level", noise_level=noise_level)
        if self.emb_dim is None:
            return None
        if timestep is None:
            emb = video.new_zeros(video.shape[0], self.emb_dim)
        else:
            emb = self.embed_timestep(timestep, video, temporal)
        emb = self.plus_vector(emb, cond)
        if noise_level is not None and self.to_noise_level_cond is not None:
            level = as_numbers("noise_level", noise_level, video.device, video.shape[0])
            emb = plus(emb, self.to_noise_level_cond(level, video.dtype))
        emb = self.plus_fps(emb, fps, video, temporal)
        # What is expanded takes another way through a Linear than a sum does, with other last
        # bits: the identity in time asks for one way.
        return emb.contiguous()

    def embed_timestep(
        self, timestep: Tensor | float, video: Tensor, temporal: Temporal
    ) -> Tensor:
        """Of one number or (b): (b emb_dim); of a number a frame, (b f): (b f emb_dim)."""
        assert self.to_timestep_cond is not None
        batch, frames = video.shape[0], video.shape[2]
        timestep = as_numbers("timestep", timestep, video.device, batch, frames)
        if timestep.ndim == 2 and temporal.real is not None:
            timestep = timestep.masked_fill(~temporal.real, 0)
        emb = self.to_timestep_cond(timestep, video.dtype)
        return emb.expand(batch, *timestep.shape[1:], -1)

    def plus_vector(self, emb: Tensor, cond: Tensor | None) -> Tensor:
        """`emb` (b [f] emb_dim), with the projection of `cond` (b cond_dim) if there is one."""
        must_be_tensor(cond=cond)
        if cond is None or self.to_cond is None:
            return emb
        expected = (emb.shape[0], self.cond_dim)
        if cond.shape != expected:
            raise ValueError(
                f"`cond` (shape {tuple(cond.shape)}) must be (b, cond_dim) = {expected}"
            )
        return plus(emb, self.to_cond(cond.to(emb.dtype)))

    def plus_fps(
        self, emb: Tensor, fps: Tensor | float | None, video: Tensor, temporal: Temporal
    ) -> Tensor:
        """`emb` (b [f] emb_dim), with that of `fps` where there is one and temporal parts run."""
        if fps is None or self.to_fps_cond is None:
            return emb
        numbers = as_numbers("fps", fps, video.device, video.shape[0])
        if not isinstance(fps, Tensor) and fps <= 0:
            raise ValueError(f"`fps` (={fps}) must be positive")
        if not temporal.runs:
            return emb
        return temporal.choose(plus(emb, self.to_fps_cond(numbers, video.dtype)), emb)

    def beside(
        self, video: Tensor, cond_images: Tensor | None, frame_mask: Tensor | None
    ) -> Tensor:
        """`video` (b c f h w) with `cond_images` as further channels, zeros if there are none."""
        must_be_taken(self.cond_channels > 0, "cond_channels", cond_images=cond_images)
        if self.cond_channels == 0:
            return video
        pictures = as_pictures(cond_images, self.cond_channels, video, frame_mask)
        tokens = (video.movedim(1, -1), pictures.movedim(1, -1))
        return torch.cat(tokens, dim=-1).movedim(-1, 1)


def zero_embedding(dim: int, emb_dim: int) -> NumberEmbedding:
    """An embedding (... emb_dim) of numbers (...), which is zero at first."""
    return NumberEmbedding(SinusoidalPosEmb(dim), zero_init(nn.Linear(dim, emb_dim)))


def as_pictures(
    cond_images: Tensor | None, channels: int, video: Tensor, frame_mask: Tensor | None
) -> Tensor:
    """`cond_images` (b channels [f] h w) for each frame of `video`, zeros if there are none."""
    must_be_tensor(cond_images=cond_images)
    batch, _, frames, height, width = video.shape
    shape = (batch, channels, frames, height, width)
    one = (*shape[:2], 1, *shape[3:])
    if cond_images is None:
        cond_images = video.new_zeros(()).expand(one)
    if not is_one_of(cond_images.shape, shape, one, (*shape[:2], *shape[3:])):
        raise ValueError(
            f"`cond_images` (shape {tuple(cond_images.shape)}) must be "
            f"(b, cond_channels, [f,] h, w) with (b, cond_channels, f, h, w) = {shape}"
        )
    if cond_images.ndim == 4:
        cond_images = cond_images.unsqueeze(2)
    cond_images = cond_images.to(video.dtype).expand(shape)
    return cond_images if frame_mask is None else hide(cond_images, frame_mask)


def plus(emb: Tensor, vector: Tensor) -> Tensor:
    """`emb` (b [f] d) plus `vector` (b d)."""
    return emb + (vector if emb.ndim == 2 else vector[:, None])


def as_numbers(
    name: str, value: Tensor | float, device: torch.device, batch: int, frames: int | None = None
) -> Tensor:
    """`value` as a tensor (1), (b) or, where `frames` are given, (b f)."""
    if not isinstance(value, Tensor):
        if not isinstance(value, (int, float)):  # torch 2.6 cannot compile `int | float`
            raise TypeError(f"`{name}` (a {type(value).__name__}) must be a number or a tensor")
        # a tensor that is filled, so that a compiler does not make a graph for each number
        dtype = torch.int64 if isinstance(value, int) else torch.float32
        value = torch.full((1,), value, dtype=dtype, device=device)
    value = value.to(device)
    if value.ndim == 0 or (value.ndim == 2 and value.shape[1] == 1):
        value = value.reshape(-1)
    one_a_frame = () if frames is None else ((batch, frames),)
    if not is_one_of(value.shape, (1,), (batch,), *one_a_frame):
        per_frame = "" if frames is None else f" or (b, f), with f = {frames}"
        raise ValueError(
            f"`{name}` (shape {tuple(value.shape)}) must be one number or (b), with b = {batch}"
            f"{per_frame}, as in `x`"
        )
    return value
