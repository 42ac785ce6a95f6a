"""The U-Net, and its videos, inside dalle2-pytorch, and the prior of that outside of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from make_a_video_pytorch.guidance import NullConditions, drop_conditions
from make_a_video_pytorch.integrations.adapter import NO_SETTINGS, Adapter, given
from make_a_video_pytorch.modules.multihead import CrossAttention
from make_a_video_pytorch.ops.checks import at_least, typechecked
from make_a_video_pytorch.unet.unet import SpaceTimeUnet

try:
    from dalle2_pytorch import Unet

    from make_a_video_pytorch.integrations.dalle2_decoder import VideoDecoder
    from make_a_video_pytorch.integrations.dalle2_prior import text_prior
except ModuleNotFoundError as error:
    raise ImportError("this needs dalle2-pytorch: pip install dalle2-pytorch") from error

__all__ = ["SpaceTimeUnetForDalle2", "VideoDecoder", "text_prior"]


class SpaceTimeUnetForDalle2(Adapter, Unet):
    """A SpaceTimeUnet that dalle2-pytorch's `Decoder` takes for one of its own.

    Takes the arguments of `SpaceTimeUnet` but `cond_channels`, `cond_dim` and `context_dim`, which
    follow from those below. As in DALL-E 2 (Ramesh et al. 2022, section 2.1) the image embedding
    joins that of the timestep, and makes further tokens beside those of the text. What is dropped
    for classifier-free guidance is replaced by learned null conditions, at first zeros.

    Shapes: image (b channels h w) or video (b channels f h w) to (b channels_out [f] h w).

    Args:
        dim: features at full resolution.
        channels: channels of the picture.
        image_embed_dim: width of an image embedding.
        text_embed_dim: features of a text's tokens.
        cond_on_image_embeds: take image embeddings.
        cond_on_text_encodings: take the tokens of a text.
        lowres_cond: take pictures of low resolution.
        lowres_noise_cond: take the noise level of those.
        self_cond: take an earlier prediction.
        max_text_len: tokens that are read of a text.
        num_image_tokens: tokens that an image embedding makes.
        unet: further arguments of SpaceTimeUnet.

    Raises:
        TypeError: if an argument is of a wrong type, unknown, or follows from the others.
        ValueError: if a value is out of range, or a width is missing.

    Example:
        >>> unet = SpaceTimeUnetForDalle2(dim=4, dim_mult=(1,), self_attns=(False,),
        ...     temporal_compression=(False,), resnet_block_depths=(1,), image_embed_dim=8)
        >>> decoder = VideoDecoder(unet, image_size=8, timesteps=10)
        >>> decoder(torch.rand(2, 3, 4, 8, 8), image_embed=torch.randn(2, 8)).shape  # the loss
        torch.Size([])
    """

    cond_on_image_embeds: bool
    cond_on_text_encodings: bool
    max_text_len: int
    num_image_tokens: int

    @typechecked
    def __init__(
        self,
        *,
        dim: int,
        channels: int = 3,
        image_embed_dim: int | None = None,
        text_embed_dim: int | None = None,
        cond_on_image_embeds: bool = False,
        cond_on_text_encodings: bool = False,
        lowres_cond: bool = False,
        lowres_noise_cond: bool = False,
        self_cond: bool = False,
        max_text_len: int = 256,
        num_image_tokens: int = 4,
        **unet: object,
    ) -> None:
        settings = {name: value for name, value in locals().items() if name not in NO_SETTINGS}
        at_least(1, max_text_len=max_text_len)
        at_least(0, num_image_tokens=num_image_tokens)
        vector_dim, context_dim = 0, None
        if cond_on_image_embeds:
            vector_dim = given("cond_on_image_embeds", image_embed_dim=image_embed_dim)
            if num_image_tokens > 0:
                context_dim = vector_dim if text_embed_dim is None else text_embed_dim
        if cond_on_text_encodings:
            context_dim = given("cond_on_text_encodings", text_embed_dim=text_embed_dim)
        super().__init__(
            settings,
            unet,
            dim=dim,
            channels=channels,
            vector_dim=vector_dim,
            noise_cond=lowres_noise_cond,
            context_dim=context_dim,
        )
        self.null_image = self.null_text = self.to_image_tokens = None
        if cond_on_image_embeds:
            self.null_image = NullConditions(cond_dim=vector_dim)
            if context_dim is not None and num_image_tokens > 0:
                self.to_image_tokens = nn.Linear(vector_dim, num_image_tokens * context_dim)
        if cond_on_text_encodings:
            self.null_text = NullConditions(context_dim=context_dim)

    def take_over(self, old: SpaceTimeUnet | Adapter) -> None:
        """Take the weights of `old`, a smaller one of its kind or the U-Net alone.

        Args:
            old: what is trained.

        Raises:
            ValueError: if the predictions would be others.
        """
        new_tokens = self.to_image_tokens is not None and not getattr(old, "to_image_tokens", None)
        attentions = (part for part in old.modules() if isinstance(part, CrossAttention))
        if new_tokens and any(part.to_out.weight.any() for part in attentions):
            raise ValueError(
                f"`num_image_tokens` (={self.num_image_tokens}) must be 0 for a U-Net that has "
                "learned to attend to a text: with further tokens it would predict otherwise"
            )
        super().take_over(old)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        *,
        image_embed: Tensor | None = None,
        lowres_cond_img: Tensor | None = None,
        lowres_noise_level: Tensor | None = None,
        text_encodings: Tensor | None = None,
        image_cond_drop_prob: float = 0.0,
        text_cond_drop_prob: float = 0.0,
        self_cond: Tensor | None = None,
    ) -> Tensor:
        """Predict from a noisy image or video, as `Decoder` asks for it.

        Args:
            x: image (b channels h w) or video (b channels f h w).
            time: the diffusion step (b).
            image_embed: image embeddings (b image_embed_dim); not looked at, like
                `text_encodings`, where the U-Net is not conditioned on them.
            lowres_cond_img: pictures of low resolution, resized to the shape of `x`.
            lowres_noise_level: the noise level of those (b).
            text_encodings: tokens (b n text_embed_dim); those that are all zero are padding.
            image_cond_drop_prob: the probability to leave out a sample's image embedding.
            text_cond_drop_prob: the probability to leave out a sample's text.
            self_cond: an earlier prediction, of the shape of `x`; zeros if left out.

        Returns:
            The prediction (b channels_out [f] h w).

        Raises:
            ValueError: if a condition is missing or of another shape.
        """
        vector: Tensor | None = None
        context: list[Tensor] = []
        context_mask: list[Tensor] = []
        if self.cond_on_image_embeds:
            embed = given("cond_on_image_embeds", image_embed=image_embed).to(x.dtype)
            vector = drop_conditions(image_cond_drop_prob, cond=embed, null=self.null_image)["cond"]
        if self.to_image_tokens is not None:
            tokens = self.to_image_tokens(vector).unflatten(1, (self.num_image_tokens, -1))
            context.append(tokens)
            context_mask.append(tokens.new_ones(tokens.shape[:2], dtype=torch.bool))
        if self.cond_on_text_encodings:
            tokens = given("cond_on_text_encodings", text_encodings=text_encodings)
            tokens = tokens[:, : self.max_text_len].to(x.dtype)
            text = drop_conditions(
                text_cond_drop_prob,
                context=tokens,
                context_mask=tokens.ne(0).any(-1),
                null=self.null_text,
            )
            context.append(text["context"])
            context_mask.append(text["context_mask"])
        return self.predict(
            x,
            time,
            vector=vector,
            context=torch.cat(context, dim=1) if context else None,
            context_mask=torch.cat(context_mask, dim=1) if context else None,
            self_cond=self_cond,
            lowres_cond_img=lowres_cond_img,
            noise_level=lowres_noise_level,
        )

    if TYPE_CHECKING:
        __call__ = forward
