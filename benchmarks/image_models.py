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
    build: Callable[[], nn.Module]
    size: tuple[int, int] = (8, 12)  # height and width of its pictures
    conditions: Callable[[], dict[str, object]] = dict  # of b samples

    def make(self) -> nn.Module:
        """The model in evaluation mode, the same each time."""
        torch.manual_seed(0)
        model = self.build().eval()
        with torch.no_grad():  # as after a training: a layer of zeros hides what is before it
            for parameter in model.parameters():
                if not parameter.any():
                    nn.init.normal_(parameter, 0, 0.1)
        return model

    def inputs(self) -> Inputs:
        """A call with a video (b c f h w)."""
        torch.manual_seed(1)
        return torch.randn(B, 3, F, *self.size), self.conditions()


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


WIDTHS = {"block_out_channels": (6, 10), "norm_num_groups": 2, "layers_per_block": 1}
TEXT = {"cross_attention_dim": 5, "attention_head_dim": 2}
DOWN, UP = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
LUCIDRAINS = {"dim": 8, "dim_mults": (1, 2), "attn_heads": 2, "attn_dim_head": 6}


def unet2d() -> nn.Module:
    """A U-Net without text."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        **WIDTHS,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


def unet2d_condition(**arguments: object) -> nn.Module:
    """The U-Net of Stable Diffusion."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        in_channels=3, out_channels=3, **WIDTHS, **TEXT, down_block_types=DOWN, up_block_types=UP,
        **arguments,
    )  # fmt: skip


def sdxl() -> nn.Module:
    """The U-Net of Stable Diffusion XL: more transformer blocks, sizes and a pooled text."""
    return unet2d_condition(
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 7,
    )


def autoencoder() -> nn.Module:
    """The autoencoder of Stable Diffusion."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        **WIDTHS,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )


def controlnet() -> nn.Module:
    """A ControlNet, whose hint is a picture of twice the size."""
    from diffusers import ControlNetModel

    return ControlNetModel(
        in_channels=3, **WIDTHS, **TEXT, down_block_types=DOWN,
        conditioning_embedding_out_channels=(4, 6),
    )  # fmt: skip


def dit() -> nn.Module:
    """A diffusion transformer."""
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=6, in_channels=3, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=10, norm_num_groups=2,
    )  # fmt: skip


def denoising_diffusion() -> nn.Module:
    """A U-Net with linear attention and full attention."""
    from denoising_diffusion_pytorch import Unet

    return Unet(**LUCIDRAINS)


def denoising_diffusion_guided() -> nn.Module:
    """A U-Net with classes, for guidance without a classifier."""
    from denoising_diffusion_pytorch.classifier_free_guidance import Unet

    return Unet(**LUCIDRAINS, num_classes=5)


def dalle2() -> nn.Module:
    """A decoder's U-Net, with image embeddings and text."""
    from dalle2_pytorch import Unet

    return Unet(
        **LUCIDRAINS,
        image_embed_dim=6,
        text_embed_dim=5,
        cond_dim=7,
        cond_on_image_embeds=True,
        cond_on_text_encodings=True,
        max_text_len=9,
        self_attn=(False, True),
        num_resnet_blocks=1,
    )


def imagen() -> nn.Module:
    """A U-Net with text."""
    from imagen_pytorch import Unet

    return Unet(
        **LUCIDRAINS,
        text_embed_dim=5,
        cond_dim=6,
        max_text_len=9,
        layer_attns=(False, True),
        layer_cross_attns=(False, True),
        attn_pool_num_latents=3,
    )


def timm(name: str, **arguments: object) -> Callable[[], nn.Module]:
    """One of timm's models for tests."""

    def build() -> nn.Module:
        from timm import create_model

        return create_model(f"test_{name}", num_classes=7, **arguments)

    return build


def resnet18() -> nn.Module:
    """torchvision's smallest residual network."""
    from torchvision.models import resnet18

    return resnet18(num_classes=7)


def timestep() -> dict[str, Tensor]:
    """Diffusion steps, as diffusers names them."""
    return {"timestep": torch.tensor([3, 500])}


def time() -> dict[str, Tensor]:
    """Diffusion steps, as the others name them."""
    return {"time": torch.tensor([3, 500])}


def text() -> dict[str, Tensor]:
    """Diffusion steps and a text."""
    return {**timestep(), "encoder_hidden_states": torch.randn(B, 4, 5)}


MODELS = {
    "UNet2DModel": ImageModel("diffusers", unet2d, conditions=timestep),
    "UNet2DConditionModel": ImageModel("diffusers", unet2d_condition, conditions=text),
    "UNet2DConditionModel of SDXL": ImageModel(
        "diffusers",
        sdxl,
        conditions=lambda: {
            **text(),
            "added_cond_kwargs": {"text_embeds": torch.randn(B, 7), "time_ids": torch.randn(B, 6)},
        },
    ),
    "AutoencoderKL": ImageModel("diffusers", autoencoder),
    "ControlNetModel": ImageModel(
        "diffusers",
        controlnet,
        conditions=lambda: {**text(), "controlnet_cond": torch.rand(B, 3, F, 16, 24)},
    ),
    "DiTTransformer2DModel": ImageModel(
        "diffusers", dit, (8, 8), lambda: {**timestep(), "class_labels": torch.tensor([1, 4])}
    ),
    "denoising_diffusion_pytorch.Unet": ImageModel(
        "denoising-diffusion-pytorch", denoising_diffusion, conditions=time
    ),
    "denoising_diffusion_pytorch.classifier_free_guidance.Unet": ImageModel(
        "denoising-diffusion-pytorch",
        denoising_diffusion_guided,
        conditions=lambda: {**time(), "classes": torch.tensor([4, 1]), "cond_drop_prob": 0.0},
    ),
    "dalle2_pytorch.Unet": ImageModel(
        "dalle2-pytorch",
        dalle2,
        conditions=lambda: {
            **time(),
            "image_embed": torch.randn(B, 6),
            "text_encodings": torch.randn(B, 7, 5),
        },
    ),
    "imagen_pytorch.Unet": ImageModel(
        "imagen-pytorch",
        imagen,
        conditions=lambda: {
            "time": torch.tensor([-3.0, 2.0]),
            "text_embeds": torch.randn(B, 7, 5),
            "text_mask": torch.arange(7) < torch.tensor([[4], [7]]),
        },
    ),
    "VisionTransformer": ImageModel("timm", timm("vit", img_size=(32, 48)), (32, 48)),
    "ResNet": ImageModel("timm", timm("resnet"), (33, 47)),
    "EfficientNet": ImageModel("timm", timm("efficientnet", pad_type="same"), (33, 47)),
    "NormFreeNet": ImageModel("timm", timm("nfnet"), (33, 47)),
    "resnet18": ImageModel("torchvision", resnet18, (33, 47)),
}
