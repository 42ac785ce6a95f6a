"""The smallest text encoders, autoencoders and embeddings, saved as people have them."""

import math
from pathlib import Path

import embedding
import torch
from building import SMALL
from diffusers import AutoencoderKL, AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
from diffusion import sampler
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BartConfig,
    BartModel,
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.cascade import Cascade, Decoder, Interpolation, SuperResolution
from make_a_video_pytorch.integrations.diffusers import save_cascade

EMBEDDING = f"embedding-16-{embedding.STEPS}.safetensors"  # in a cache
WORDS = ["<pad>", "<s>", "</s>", "a", "red", "ball", "clip", "of", "cat", "dog", "b", "c"]


def tokenizer() -> PreTrainedTokenizerFast:
    """Words, between a beginning and an end."""
    words = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        model_max_length=8,
    )  # fmt: skip


def embedding_of_digits(size: int = 16, folder: Path | None = None) -> embedding.Embedding:
    """An embedding that has learned nothing, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        found = embedding.Embedding(1, 10).eval().requires_grad_(False)
        found.means.normal_()
    return found


def cache(folder: Path) -> Path:
    """A cache that has it as the embedding of digits of 16 pixels."""
    folder.mkdir(exist_ok=True)
    save_file(embedding_of_digits().state_dict(), folder / EMBEDDING)
    return folder


def text_encoder(folder: Path, kind: str = "clip", seed: int = 0) -> Path:
    """A text encoder with its tokenizer, in a folder."""
    torch.manual_seed(seed)
    if kind == "clip":
        config = CLIPTextConfig(
            vocab_size=len(WORDS), hidden_size=12, intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=8, bos_token_id=1, eos_token_id=2,
            pad_token_id=0,
        )  # fmt: skip
        model = CLIPTextModel(config)
    elif kind == "bart":
        config = BartConfig(
            vocab_size=len(WORDS), d_model=12, encoder_layers=1, decoder_layers=1,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
            decoder_ffn_dim=16, max_position_embeddings=8, pad_token_id=0, bos_token_id=1,
            eos_token_id=2, decoder_start_token_id=2,
        )  # fmt: skip
        model = BartModel(config)
    else:
        config = T5Config(
            vocab_size=len(WORDS), d_model=12, d_kv=6, d_ff=16, num_layers=2, num_heads=2
        )
        model = T5EncoderModel(config)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def autoencoder(folder: Path, seed: int = 0, shift: float | None = None) -> Path:
    """An autoencoder of two levels, in a folder."""
    torch.manual_seed(seed)
    AutoencoderKL(
        block_out_channels=(4, 8), norm_num_groups=2, latent_channels=3, scaling_factor=0.5,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        shift_factor=shift,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def tiny_autoencoder(folder: Path, seed: int = 0) -> Path:
    """An autoencoder without a distribution, of two levels, in a folder."""
    torch.manual_seed(seed)
    AutoencoderTiny(
        encoder_block_out_channels=(4, 4), decoder_block_out_channels=(4, 4), latent_channels=3,
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), scaling_factor=0.5,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def pipeline(folder: Path, prediction: str = "epsilon") -> Path:
    """An image model of text, in latents, with all that it was trained with, in a folder."""
    torch.manual_seed(0)
    UNet2DConditionModel(
        in_channels=3, out_channels=3, block_out_channels=(4, 8), norm_num_groups=2,
        layers_per_block=1, cross_attention_dim=12, attention_head_dim=2, sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).save_pretrained(folder / "unet")  # fmt: skip
    DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
        prediction_type=prediction,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    autoencoder(folder / "vae")
    text_encoder(folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    for path in (folder / "text_encoder").glob("tokenizer*"):
        path.rename(folder / "tokenizer" / path.name)
    return folder


def cascade(folder: Path) -> Path:
    """One of four stages for moving digits, which have learned nothing, in a folder."""
    torch.manual_seed(0)
    small = {**SMALL, "dim": 4, "attn_dim_head": 4, "attn_heads": 1, "channels": 1}
    unet = SpaceTimeUnet(cond_dim=16, **small)
    windows = {"window": 5, "overlap": 1, "steps": 2}
    save_cascade(
        Cascade({
            "decoder": Decoder(unet, sampler(), size=(8, 8), frames=4, channels=1, steps=2),
            "between": Interpolation(
                unet.grow(cond_channels=2), sampler(), size=(8, 8), factor=2, **windows
            ),
            "larger": SuperResolution(
                unet.grow(cond_channels=3, condition_on_noise_level=True), sampler(),
                size=(16, 16), size_before=(8, 8), most_noise_level=300, **windows,
            ),
            "largest": SuperResolution(
                SpaceTimeUnet(cond_channels=1, **small), sampler(), size=(32, 32),
                size_before=(16, 16), window=3, steps=2, enable_time=False, alpha=math.inf,
            ),
        }),
        folder,
    )  # fmt: skip
    return folder
