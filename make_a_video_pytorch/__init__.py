"""Image diffusion models made into video diffusion models: Make-A-Video's modules in PyTorch."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from make_a_video_pytorch.inflation.folding import per_frame
from make_a_video_pytorch.inflation.inflate import deflate, inflate
from make_a_video_pytorch.inflation.inflated import InflatedModel
from make_a_video_pytorch.modules.attention import SpatioTemporalAttention, chunk_attention
from make_a_video_pytorch.modules.conv import PseudoConv3d
from make_a_video_pytorch.modules.resample import Downsample, Upsample
from make_a_video_pytorch.modules.resnet import ResnetBlock
from make_a_video_pytorch.modules.stream import Stream
from make_a_video_pytorch.modules.timestep import TimestepEmbedding
from make_a_video_pytorch.ops.parameters import spatial_parameters, temporal_parameters
from make_a_video_pytorch.unet.control import ControlBranch
from make_a_video_pytorch.unet.unet import SpaceTimeUnet

if TYPE_CHECKING:
    from make_a_video_pytorch import cascade, guidance, recipes

__all__ = [
    "ControlBranch",
    "Downsample",
    "InflatedModel",
    "PseudoConv3d",
    "ResnetBlock",
    "SpaceTimeUnet",
    "SpatioTemporalAttention",
    "Stream",
    "TimestepEmbedding",
    "Upsample",
    "cascade",
    "chunk_attention",
    "deflate",
    "guidance",
    "inflate",
    "per_frame",
    "recipes",
    "spatial_parameters",
    "temporal_parameters",
]


def __getattr__(name: str) -> ModuleType:
    """`cascade`, `guidance` and `recipes`, which are imported when they are asked for."""
    if name in ("cascade", "guidance", "recipes"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
