"""What this library is measured against: 0.4.0, its commits, diffusers, and plain 2D layers."""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from make_a_video_pytorch import SpaceTimeUnet

ROOT = Path(__file__).parent.parent
PACKAGE = "make_a_video_pytorch"
ORIGINAL = "make-a-video-pytorch==0.4.0"


def original(folder: Path) -> ModuleType:
    """0.4.0, which has the same import name, installed into `folder` and imported aside.

    Raises:
        subprocess.CalledProcessError: if it cannot be installed.
    """
    if not (folder / PACKAGE).is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(folder)]
        subprocess.run([*pip, ORIGINAL], capture_output=True, text=True, check=True)

    return aside(folder, "original")


def resolve(commit: str) -> str:
    """The full hash of a commit of this repository.

    Raises:
        ValueError: if it is none, or lacks the package.
    """
    try:
        found = git("rev-parse", "--verify", f"{commit}^{{commit}}").decode().strip()
        git("rev-parse", "--verify", f"{found}:./{PACKAGE}")
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error).encode()
        raise ValueError(
            f"`commit` (={commit!r}) must be a commit of this repository that has {PACKAGE}/: "
            + reason.decode().splitlines()[0]
        ) from error
    return found


def at_commit(commit: str, folder: Path) -> ModuleType:
    """The package as it was at a commit, by its full hash, put into `folder` and imported aside."""
    with zipfile.ZipFile(io.BytesIO(git("archive", "--format=zip", commit, PACKAGE))) as files:
        files.extractall(folder)
    return aside(folder, f"commit_{commit}")


def git(*arguments: str) -> bytes:
    """What git prints in the root of this repository."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


def aside(folder: Path, prefix: str) -> ModuleType:
    """The package in `folder`, beside the one that is imported; its modules are `prefix`_..."""

    def ours() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] == PACKAGE]
        return {name: sys.modules.pop(name) for name in names}

    kept = ours()
    sys.path.insert(0, str(folder))
    try:
        package = importlib.import_module(PACKAGE)
    finally:
        imported = ours()
        sys.path.remove(str(folder))
        sys.modules.update(kept)
    if not Path(package.__file__).is_relative_to(folder):
        raise ImportError(f"{PACKAGE} was imported from {package.__file__}, not from {folder}")
    for name, module in imported.items():  # a compiler looks modules up by their names
        module.__name__ = f"{prefix}_{name}"
        sys.modules[module.__name__] = module
    return package


def unet3d() -> nn.Module:
    """A UNet3DConditionModel of diffusers of about the size of the U-Net that is measured."""
    from diffusers import UNet3DConditionModel

    return Diffusers(UNet3DConditionModel(
        sample_size=64,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownBlock3D",) * 2 + ("CrossAttnDownBlock3D",) * 2,
        up_block_types=("CrossAttnUpBlock3D",) * 2 + ("UpBlock3D",) * 2,
        block_out_channels=(32, 64, 128, 256),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=64,
    ))  # fmt: skip


def unet_motion() -> nn.Module:
    """A UNetMotionModel of diffusers of about the size of the U-Net that is measured."""
    from diffusers import UNetMotionModel

    return Diffusers(UNetMotionModel(
        sample_size=64,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownBlockMotion",) * 2 + ("CrossAttnDownBlockMotion",) * 2,
        up_block_types=("CrossAttnUpBlockMotion",) * 2 + ("UpBlockMotion",) * 2,
        block_out_channels=(32, 64, 128, 256),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=32,
        num_attention_heads=4,
        motion_num_attention_heads=4,
    ), text_a_frame=True)  # fmt: skip


class Diffusers(nn.Module):
    """A U-Net of diffusers, called with a video and a timestep, beside a text of one token."""

    def __init__(self, unet: nn.Module, text_a_frame: bool = False) -> None:
        super().__init__()
        self.unet = unet
        self.text_a_frame = text_a_frame

    def forward(self, video: Tensor, timestep: Tensor) -> Tensor:
        texts = video.shape[0] * (video.shape[2] if self.text_a_frame else 1)
        tokens = video.new_zeros(texts, 1, 32)
        return self.unet(video, timestep, encoder_hidden_states=tokens).sample


class PlainImageUnet(nn.Module):
    """The image path of a SpaceTimeUnet as plain 2D layers, without a video in sight.

    With its parameters: image (b c h w), timestep (b) -> (b c h w).
    """

    def __init__(self, unet: SpaceTimeUnet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        unet = self.unet
        sinusoid, linear, act = unet.to_timestep_cond
        emb = act(linear(sinusoid(timestep)))
        x = conv(unet.conv_in, x.contiguous(memory_format=torch.channels_last))
        skips = []
        for first, blocks, attention, down in unet.downs:
            x = resnet(first, x, emb)
            skips.append(x)
            for block in blocks:
                x = resnet(block, x)
            if attention is not None:
                x = attend(attention, x)
            skips.append(x)
            x = x.movedim(1, -1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).movedim(2, 3)
            x = down.down_space[1](x.flatten(3)).movedim(-1, 1)
        x = resnet(unet.mid_block1, x, emb)
        x = attend(unet.mid_attn, x)
        x = resnet(unet.mid_block2, x, emb)
        for first, blocks, attention, up in reversed(unet.ups):
            x = up.up_space[0](x.movedim(1, -1)).unflatten(-1, (2, 2, -1)).movedim(3, 2)
            x = x.flatten(3, 4).flatten(1, 2).movedim(-1, 1)
            x = resnet(first, torch.cat((skips.pop() * unet.skip_scale, x), dim=1), emb)
            x = torch.cat((skips.pop() * unet.skip_scale, x), dim=1)
            for block in blocks:
                x = resnet(block, x)
            if attention is not None:
                x = attend(attention, x)
        return conv(unet.conv_out, x).contiguous()


def conv(module: nn.Module, x: Tensor) -> Tensor:
    """The 2D convolution of a PseudoConv3d."""
    return module.spatial_conv(x)


def resnet(block: nn.Module, x: Tensor, emb: Tensor | None = None) -> Tensor:
    """A ResnetBlock on images."""
    out = norm(block.block1.norm, conv(block.block1.project, x))
    if emb is not None:
        scale, shift = block.timestep_mlp(emb)[..., None, None].chunk(2, dim=1)
        out = out * (scale + 1) + shift
    out = F.silu(norm(block.block2.norm, conv(block.block2.project, F.silu(out))))
    return out + (x if isinstance(block.res_conv, nn.Identity) else conv(block.res_conv, x))


def norm(module: nn.Module, x: Tensor) -> Tensor:
    """RMSNorm over the channels of images."""
    return F.rms_norm(x.movedim(1, -1), module.gamma.shape, module.gamma, 1e-12).movedim(-1, 1)


def attend(module: nn.Module, x: Tensor) -> Tensor:
    """The spatial part of a SpatioTemporalAttention, and its feed-forward."""
    height, width = x.shape[2:]
    tokens, attention = x.movedim(1, -1).flatten(1, 2), module.spatial_attn
    inner = attention.norm(tokens)
    q, k, v = (
        project(inner).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for project in (attention.to_q, attention.to_k, attention.to_v)
    )
    bias = module.spatial_rel_pos_bias(height, width, device=x.device, dtype=x.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
    tokens = tokens + attention.to_out(out.transpose(1, 2).flatten(2))
    hidden, gate = module.ff.proj_in[0](tokens).chunk(2, dim=-1)
    tokens = tokens + module.ff.proj_out(hidden * F.gelu(gate))
    return tokens.unflatten(1, (height, width)).movedim(-1, 1)
