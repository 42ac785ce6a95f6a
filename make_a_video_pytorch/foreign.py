"""Attention modules of other libraries: which are known, and how wide they are (floor 0)."""

from __future__ import annotations

from torch import nn

# Attention of pixels (or patches) to each other. Nothing is imported: a class is known by its
# path. Attention within windows (Swin) is left out, since the windows lie in the batch there.
SELF_ATTENTION = frozenset(
    {
        "dalle2_pytorch.dalle2_pytorch.Attention",
        "dalle2_pytorch.dalle2_pytorch.LinearAttention",
        "denoising_diffusion_pytorch.classifier_free_guidance.Attention",
        "denoising_diffusion_pytorch.classifier_free_guidance.LinearAttention",
        "denoising_diffusion_pytorch.denoising_diffusion_pytorch.Attention",
        "denoising_diffusion_pytorch.denoising_diffusion_pytorch.LinearAttention",
        "denoising_diffusion_pytorch.guided_diffusion.Attention",
        "denoising_diffusion_pytorch.guided_diffusion.LinearAttention",
        "denoising_diffusion_pytorch.repaint.Attention",
        "denoising_diffusion_pytorch.repaint.LinearAttention",
        "denoising_diffusion_pytorch.simple_diffusion.Attention",
        "denoising_diffusion_pytorch.simple_diffusion.LinearAttention",
        "diffusers.models.attention_processor.Attention",
        "guided_diffusion.unet.AttentionBlock",
        "imagen_pytorch.imagen_pytorch.Attention",
        "imagen_pytorch.imagen_pytorch.LinearAttention",
        "k_diffusion.layers.SelfAttention2d",
        "timm.layers.attention.Attention",
        "timm.layers.attention.AttentionRope",
        "timm.layers.diff_attention.DiffAttention",
        "timm.models.beit.Attention",
        "timm.models.eva.EvaAttention",
        "timm.models.vision_transformer.Attention",
        "timm.models.vision_transformer_relpos.RelPosAttention",
    }
)

# What the last projection of an attention module is called.
PROJECTIONS = ("to_out", "proj_out", "out_proj", "proj")


def is_known_attention(module: nn.Module) -> bool:
    """Whether `module` is self-attention of a class in the table, or of a subclass."""
    paths = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__}
    if paths.isdisjoint(SELF_ATTENTION):
        return False
    # One class of diffusers serves both. With added keys its pixels see each other beside the text.
    only_context = getattr(module, "is_cross_attention", False)
    return not only_context or getattr(module, "added_kv_proj_dim", None) is not None


def channels_out(module: nn.Module) -> int | None:
    """The channels that an attention `module` gives: those of its last projection, if it has one.

    That is the projection with a usual name, or the one that was registered last.
    """
    named = (getattr(module, name, None) for name in PROJECTIONS)
    projection = next((part for part in named if isinstance(part, nn.Module)), module)
    channels = None
    for part in projection.modules():
        if isinstance(part, nn.Linear):
            channels = part.out_features
        elif isinstance(part, (nn.Conv1d, nn.Conv2d)):
            channels = part.out_channels
    return channels
