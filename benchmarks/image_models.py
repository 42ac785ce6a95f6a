"""Small image models of other libraries, with random weights, and an example of what each takes.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

B, F = 2, 3  # samples and frames of the examples
Inputs = tuple[Tensor, dict[str, object]]  # the pictures, and further arguments by name


class ImageModel(NamedTuple):
    """A model, and an example of what it takes."""

    package: str  # as it is installed
    build: Callable[[int], nn.Module]  # of a scale, by which its widths are multiplied
    conditions: Callable[[int, int], dict[str, object]] = lambda h, w: {}  # of b samples
    size: tuple[int, int] = (8, 12)  # height and width of its pictures at scale 1

    def make(self, scale: int = 1) -> nn.Module:
        """The model in evaluation mode, the same each time."""
        torch.manual_seed(0)
        model = self.build(scale).eval()
        with torch.no_grad():  # as after a training: a layer of zeros hides what is before it
            for parameter in model.parameters():
                if not parameter.any():
                    nn.init.normal_(parameter, 0, 0.1)
        return model

    def inputs(self, scale: int = 1) -> Inputs:
        """A call with a video (b c f h w)."""
        torch.manual_seed(1)
        h, w = (scale * side for side in self.size)
        return torch.randn(B, 3, F, h, w), self.conditions(h, w)


def first_frames(inputs: Inputs) -> Inputs:
    """The call with the first frame of each video."""
    return tree_map_only(Tensor, lambda t: t[:, :, 0] if t.ndim == 5 else t, inputs)


def folded(inputs: Inputs) -> Inputs:
    """The call with the frames in the batch, each with the conditions of its sample."""

    def fold(t: Tensor) -> Tensor:
        if t.ndim == 5:
            return torch.cat([video.transpose(0, 1) for video in t])
        return t.repeat_interleave(F, 0)

    return tree_map_only(Tensor, fold, inputs)


def unfolded(results: list[Tensor]) -> list[Tensor]:
    """(b*f c h w) -> (b c f h w), and any other (b*f ...) -> (b f ...)"""
    stacked = (torch.stack(t.chunk(B)) for t in results)
    return [t.transpose(1, 2) if t.ndim == 5 else t for t in stacked]


def call(model: Callable[..., object], inputs: Inputs) -> list[Tensor]:
    """The tensors that a model gives, in whatever container."""
    x, conditions = inputs
    return [leaf for leaf in tree_leaves(model(x, **conditions)) if isinstance(leaf, Tensor)]


TEXT = {"cross_attention_dim": 5, "attention_head_dim": 2}
DOWN, UP = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")


def widths(scale: int) -> dict[str, object]:
    """For diffusers."""
    return {
        "block_out_channels": (6 * scale, 10 * scale),
        "norm_num_groups": 2,
        "layers_per_block": 1,
    }


def dims(scale: int) -> dict[str, object]:
    """For the libraries of lucidrains."""
    return {"dim": 8 * scale, "dim_mults": (1, 2), "attn_heads": 2, "attn_dim_head": 6 * scale}


def tokens(scale: int) -> dict[str, object]:
    """For vision transformers of timm."""
    return {
        "img_size": (32 * scale, 48 * scale), "patch_size": 8, "embed_dim": 24 * scale, "depth": 2,
        "num_heads": 3, "num_classes": 7,
    }  # fmt: skip


def unet2d(scale: int) -> nn.Module:
    """A U-Net without text."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        **widths(scale),
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


def unet2d_condition(scale: int, **arguments: object) -> nn.Module:
    """The U-Net of Stable Diffusion."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        in_channels=3, out_channels=3, **widths(scale), **TEXT,
        down_block_types=DOWN, up_block_types=UP, **arguments,
    )  # fmt: skip


def sdxl(scale: int) -> nn.Module:
    """The U-Net of Stable Diffusion XL: more transformer blocks, sizes and a pooled text."""
    return unet2d_condition(
        scale,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 7,
    )


def autoencoder(scale: int) -> nn.Module:
    """The autoencoder of Stable Diffusion."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        **widths(scale),
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )


def asymmetric_autoencoder(scale: int) -> nn.Module:
    """An autoencoder for inpainting, which without a mask leaves a part of itself out."""
    from diffusers import AsymmetricAutoencoderKL

    return AsymmetricAutoencoderKL(
        norm_num_groups=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        down_block_out_channels=(6 * scale, 10 * scale),
        up_block_types=("UpDecoderBlock2D",) * 2,
        up_block_out_channels=(6 * scale, 10 * scale),
    )


def controlnet(scale: int) -> nn.Module:
    """A ControlNet, whose hint is a picture of twice the size."""
    from diffusers import ControlNetModel

    return ControlNetModel(
        in_channels=3, **widths(scale), **TEXT, down_block_types=DOWN,
        conditioning_embedding_out_channels=(4, 6),
    )  # fmt: skip


def dit(scale: int) -> nn.Module:
    """A diffusion transformer."""
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=6 * scale, in_channels=3, num_layers=2,
        sample_size=8 * scale, patch_size=2, num_embeds_ada_norm=10, norm_num_groups=2,
    )  # fmt: skip


def denoising_diffusion(scale: int) -> nn.Module:
    """A U-Net with linear attention and full attention."""
    from denoising_diffusion_pytorch import Unet

    return Unet(**dims(scale))


def denoising_diffusion_guided(scale: int) -> nn.Module:
    """A U-Net with classes, for guidance without a classifier."""
    from denoising_diffusion_pytorch.classifier_free_guidance import Unet

    return Unet(**dims(scale), num_classes=5)


def simple_diffusion(scale: int) -> nn.Module:
    """A U-Net with a vision transformer in its middle."""
    from denoising_diffusion_pytorch.simple_diffusion import UViT

    return UViT(8 * scale, dim_mults=(1, 2), vit_depth=2, attn_heads=2, attn_dim_head=6 * scale)


def dalle2(scale: int) -> nn.Module:
    """A decoder's U-Net, with image embeddings and text."""
    from dalle2_pytorch import Unet

    return Unet(
        **dims(scale),
        image_embed_dim=6,
        text_embed_dim=5,
        cond_dim=7,
        cond_on_image_embeds=True,
        cond_on_text_encodings=True,
        max_text_len=9,
        self_attn=(False, True),
        num_resnet_blocks=1,
    )


def imagen(scale: int) -> nn.Module:
    """A U-Net with text."""
    from imagen_pytorch import Unet

    return Unet(
        **dims(scale),
        text_embed_dim=5,
        cond_dim=6,
        max_text_len=9,
        layer_attns=(False, True),
        layer_cross_attns=(False, True),
        attn_pool_num_latents=3,
    )


def timm(name: str, **arguments: object) -> Callable[[int], nn.Module]:
    """One of the convolutional models that timm has for tests, of one width."""

    def build(scale: int) -> nn.Module:
        from timm import create_model

        return create_model(f"test_{name}", num_classes=7, **arguments)

    return build


def vit(scale: int) -> nn.Module:
    """A vision transformer."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(**tokens(scale))


def vit_relpos(scale: int) -> nn.Module:
    """A vision transformer with relative positions."""
    from timm.models.vision_transformer_relpos import VisionTransformerRelPos

    return VisionTransformerRelPos(**tokens(scale))


def eva(scale: int) -> nn.Module:
    """A vision transformer with rotary positions."""
    from timm.models.eva import Eva

    return Eva(**tokens(scale), use_rot_pos_emb=True)


def beit(scale: int) -> nn.Module:
    """A vision transformer with a bias for relative positions."""
    from timm.models.beit import Beit

    return Beit(**tokens(scale), use_rel_pos_bias=True)


def resnet18(scale: int) -> nn.Module:
    """torchvision's smallest residual network."""
    from torchvision.models import resnet18

    return resnet18(num_classes=7)


STEPS = torch.tensor([3, 500])


def timestep(h: int, w: int) -> dict[str, object]:
    """For the U-Nets of diffusers."""
    return {"timestep": STEPS}


def text(h: int, w: int) -> dict[str, object]:
    """For those that take a text too."""
    return {"timestep": STEPS, "encoder_hidden_states": torch.randn(B, 4, 5)}


def text_and_sizes(h: int, w: int) -> dict[str, object]:
    """For Stable Diffusion XL."""
    added = {"text_embeds": torch.randn(B, 7), "time_ids": torch.randn(B, 6)}
    return {**text(h, w), "added_cond_kwargs": added}


def text_and_hint(h: int, w: int) -> dict[str, object]:
    """For a ControlNet."""
    return {**text(h, w), "controlnet_cond": torch.rand(B, 3, F, 2 * h, 2 * w)}


def for_dalle2(h: int, w: int) -> dict[str, object]:
    """An image embedding and a text."""
    return {
        "time": STEPS,
        "image_embed": torch.randn(B, 6),
        "text_encodings": torch.randn(B, 7, 5),
    }


def for_imagen(h: int, w: int) -> dict[str, object]:
    """A text, of four tokens and of seven."""
    return {
        "time": torch.tensor([-3.0, 2.0]),
        "text_embeds": torch.randn(B, 7, 5),
        "text_mask": torch.arange(7) < torch.tensor([[4], [7]]),
    }


def labels(h: int, w: int) -> dict[str, object]:
    """For a DiT."""
    return {"timestep": STEPS, "class_labels": torch.tensor([1, 4])}


def time(h: int, w: int) -> dict[str, object]:
    """For denoising-diffusion-pytorch."""
    return {"time": STEPS}


def classes(h: int, w: int) -> dict[str, object]:
    """For its classes, none of them dropped."""
    return {"time": STEPS, "classes": torch.tensor([4, 1]), "cond_drop_prob": 0.0}


DDPM = "denoising-diffusion-pytorch"
MODELS = {
    "UNet2DModel": ImageModel("diffusers", unet2d, timestep),
    "UNet2DConditionModel": ImageModel("diffusers", unet2d_condition, text),
    "UNet2DConditionModel of SDXL": ImageModel("diffusers", sdxl, text_and_sizes),
    "AutoencoderKL": ImageModel("diffusers", autoencoder),
    "AsymmetricAutoencoderKL": ImageModel("diffusers", asymmetric_autoencoder),
    "ControlNetModel": ImageModel("diffusers", controlnet, text_and_hint),
    "DiTTransformer2DModel": ImageModel("diffusers", dit, labels, (8, 8)),
    "denoising_diffusion_pytorch.Unet": ImageModel(DDPM, denoising_diffusion, time),
    "denoising_diffusion_pytorch.classifier_free_guidance.Unet": ImageModel(
        DDPM, denoising_diffusion_guided, classes
    ),
    "UViT": ImageModel(DDPM, simple_diffusion, time),
    "dalle2_pytorch.Unet": ImageModel("dalle2-pytorch", dalle2, for_dalle2),
    "imagen_pytorch.Unet": ImageModel("imagen-pytorch", imagen, for_imagen),
    "VisionTransformer": ImageModel("timm", vit, size=(32, 48)),
    "VisionTransformerRelPos": ImageModel("timm", vit_relpos, size=(32, 48)),
    "Eva": ImageModel("timm", eva, size=(32, 48)),
    "Beit": ImageModel("timm", beit, size=(32, 48)),
    "ResNet": ImageModel("timm", timm("resnet"), size=(33, 47)),
    "EfficientNet": ImageModel("timm", timm("efficientnet", pad_type="same"), size=(33, 47)),
    "NormFreeNet": ImageModel("timm", timm("nfnet"), size=(33, 47)),
    "resnet18": ImageModel("torchvision", resnet18, size=(33, 47)),
}
