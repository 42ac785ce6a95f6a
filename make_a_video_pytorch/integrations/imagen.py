"""The U-Net inside imagen-pytorch."""

from __future__ import annotations

import torch
from torch import Tensor

from make_a_video_pytorch.guidance import NullConditions, drop_conditions
from make_a_video_pytorch.integrations.adapter import Adapter, must_be_given
from make_a_video_pytorch.ops.checks import at_least, typechecked

try:
    from imagen_pytorch import Unet3D
except ModuleNotFoundError as error:
    raise ImportError("this needs imagen-pytorch: pip install imagen-pytorch") from error


class SpaceTimeUnetForImagen(Adapter, Unet3D):
    """A SpaceTimeUnet that imagen-pytorch's `Imagen` and `ElucidatedImagen` take for a `Unet3D`.

    Takes the arguments of `SpaceTimeUnet` but `cond_channels`, `cond_dim` and `context_dim`, which
    follow from those below; the library turns on what it needs. As in Imagen (Saharia et al. 2022,
    section 2.5) the mean of a text's tokens joins the embedding of the noise level, and the tokens
    are attended to. A text dropped for classifier-free guidance is replaced by learned null
    conditions, at first zeros.

    Shapes: video (b channels f h w) to (b channels_out f h w); an image is a video of one frame.
    """

    @typechecked
    def __init__(
        self,
        *,
        text_embed_dim: int | None = None,  # features of a text's tokens
        cond_on_text: bool = False,         # take the tokens of a text
        lowres_cond: bool = False,          # take a video of low resolution and its noise level
        self_cond: bool = False,            # take an earlier prediction
        max_text_len: int = 256,            # tokens that are read of a text
        **unet: object,                     # the arguments of SpaceTimeUnet
    ) -> None:
        settings = {k: v for k, v in locals().items() if k not in ("self", "unet", "__class__")}
        at_least(1, max_text_len=max_text_len)
        if cond_on_text:
            must_be_given("cond_on_text", text_embed_dim=text_embed_dim)
        text_dim = text_embed_dim if cond_on_text else None
        super().__init__(
            settings,
            unet,
            vector_dim=text_dim or 0,
            noise_cond=lowres_cond,
            context_dim=text_dim,
        )
        self.null_text = None
        if cond_on_text:
            self.null_text = NullConditions(cond_dim=text_dim, context_dim=text_dim)

    def cast_model_parameters(
        self, *, text_embed_dim: int | None, **updates: object
    ) -> SpaceTimeUnetForImagen:
        """This U-Net with what the library needs of it, with the same predictions.

        Raises:
            ValueError: if the predictions would be others, as without a condition.
        """
        if text_embed_dim is not None:  # it is None where there is no text
            updates["text_embed_dim"] = text_embed_dim
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
        text = {"cond": None, "context": None, "context_mask": None}
        if self.cond_on_text:
            must_be_given("cond_on_text", text_embeds=text_embeds)
            tokens = text_embeds[:, : self.max_text_len].to(x.dtype)
            if text_mask is None:
                text_mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
            text_mask = text_mask[:, : self.max_text_len]
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
            vector=text["cond"],
            context=text["context"],
            context_mask=text["context_mask"],
            self_cond=self_cond,
            lowres_cond_img=lowres_cond_img,
            noise_level=lowres_noise_times,
        )
