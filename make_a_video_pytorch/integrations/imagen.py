"""The U-Net inside imagen-pytorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from make_a_video_pytorch.guidance import Conditions, NullConditions, drop_conditions
from make_a_video_pytorch.integrations.adapter import NO_SETTINGS, Adapter, given
from make_a_video_pytorch.ops.checks import at_least, typechecked
from make_a_video_pytorch.ops.decision import as_bools

try:
    from imagen_pytorch import Unet3D
except ModuleNotFoundError as error:
    raise ImportError("this needs imagen-pytorch: pip install imagen-pytorch") from error

__all__ = ["SpaceTimeUnetForImagen"]

S = TypeVar("S", bound="SpaceTimeUnetForImagen")


class SpaceTimeUnetForImagen(Adapter, Unet3D):
    """A SpaceTimeUnet that imagen-pytorch's `Imagen` and `ElucidatedImagen` take for a `Unet3D`.

    Takes the arguments of `SpaceTimeUnet` but `cond_channels`, `cond_dim` and `context_dim`, which
    follow from those below; the library turns on what it needs. As in Imagen (Saharia et al. 2022,
    section 2.5) the mean of a text's tokens joins the embedding of the noise level, and the tokens
    are attended to. A text dropped for classifier-free guidance is replaced by learned null
    conditions, at first zeros.

    Shapes: video (b channels f h w) to (b channels_out f h w); an image is a video of one frame.

    Args:
        dim: features at full resolution.
        channels: channels of the picture.
        text_embed_dim: features of a text's tokens.
        cond_on_text: take the tokens of a text.
        lowres_cond: take a video of low resolution and its noise level.
        self_cond: take an earlier prediction.
        max_text_len: tokens that are read of a text.
        unet: further arguments of SpaceTimeUnet.

    Raises:
        TypeError: if an argument is of a wrong type, unknown, or follows from the others.
        ValueError: if a value is out of range, or a width is missing.

    Example:
        >>> from imagen_pytorch import Imagen
        >>> unet = SpaceTimeUnetForImagen(dim=4, dim_mult=(1,), self_attns=(False,),
        ...     temporal_compression=(False,), resnet_block_depths=(1,))
        >>> imagen = Imagen(unet, image_sizes=8, text_embed_dim=6, timesteps=10)
        >>> imagen(torch.rand(2, 3, 4, 8, 8), text_embeds=torch.randn(2, 5, 6)).shape  # the loss
        torch.Size([])
    """

    cond_on_text: bool
    max_text_len: int

    @typechecked
    def __init__(
        self,
        *,
        dim: int,
        channels: int = 3,
        text_embed_dim: int | None = None,
        cond_on_text: bool = False,
        lowres_cond: bool = False,
        self_cond: bool = False,
        max_text_len: int = 256,
        **unet: object,
    ) -> None:
        settings = {name: value for name, value in locals().items() if name not in NO_SETTINGS}
        at_least(1, max_text_len=max_text_len)
        text_dim = None
        if cond_on_text:
            text_dim = given("cond_on_text", text_embed_dim=text_embed_dim)
        super().__init__(
            settings,
            unet,
            dim=dim,
            channels=channels,
            vector_dim=text_dim or 0,
            noise_cond=lowres_cond,
            context_dim=text_dim,
        )
        self.null_text = None
        if cond_on_text:
            self.null_text = NullConditions(cond_dim=text_dim, context_dim=text_dim)

    def cast_model_parameters(self: S, **updates: object) -> S:
        """This U-Net with what the library needs of it, with the same predictions.

        Args:
            updates: the constructor's arguments that it needs.

        Returns:
            This one, where it has them already, or a larger one.

        Raises:
            ValueError: if the predictions would be others, as without a condition.
        """
        if updates.get("text_embed_dim") is None:  # where there is no text
            updates.pop("text_embed_dim", None)
        return super().cast_model_parameters(**updates)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        *,
        lowres_cond_img: Tensor | None = None,
        lowres_noise_times: Tensor | None = None,
        text_embeds: Tensor | None = None,
        text_mask: Tensor | None = None,
        cond_images: Tensor | None = None,
        cond_video_frames: Tensor | None = None,
        post_cond_video_frames: Tensor | None = None,
        self_cond: Tensor | None = None,
        cond_drop_prob: float = 0.0,
        ignore_time: bool = False,
    ) -> Tensor:
        """Predict from a noisy video, as `Imagen` asks for it.

        Args:
            x: video (b channels f h w).
            time: the noise level (b), a logarithm.
            lowres_cond_img: the video of low resolution, resized to the shape of `x`.
            lowres_noise_times: the noise level of that one (b).
            text_embeds: tokens (b n text_embed_dim).
            text_mask: False (b n) for tokens that are padding; all are seen if left out.
            cond_images, cond_video_frames, post_cond_video_frames: not taken.
            self_cond: an earlier prediction, of the shape of `x`; zeros if left out.
            cond_drop_prob: the probability to leave out a sample's text.
            ignore_time: take the frames for images.

        Returns:
            The prediction (b channels_out f h w).

        Raises:
            NotImplementedError: for further pictures or frames to condition on.
            ValueError: if a condition is missing or of another shape.
        """
        for name, value in {
            "cond_images": cond_images,
            "cond_video_frames": cond_video_frames,
            "post_cond_video_frames": post_cond_video_frames,
        }.items():
            if value is not None:
                raise NotImplementedError(f"`{name}` must be left out: this U-Net cannot take it")
        text: Conditions = {}
        if self.cond_on_text:
            tokens = given("cond_on_text", text_embeds=text_embeds)
            tokens = tokens[:, : self.max_text_len].to(x.dtype)
            if text_mask is None:
                text_mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
            text_mask = as_bools(text_mask=text_mask)[:, : self.max_text_len]
            total = tokens.masked_fill(~text_mask[..., None], 0).sum(1)
            text = drop_conditions(
                cond_drop_prob,
                cond=total / text_mask.sum(1, keepdim=True).clamp(min=1),
                context=tokens,
                context_mask=text_mask,
                null=self.null_text,
            )
        return self.predict(
            x,
            time,
            not ignore_time,
            vector=text.get("cond"),
            context=text.get("context"),
            context_mask=text.get("context_mask"),
            self_cond=self_cond,
            lowres_cond_img=lowres_cond_img,
            noise_level=lowres_noise_times,
        )

    if TYPE_CHECKING:
        __call__ = forward
