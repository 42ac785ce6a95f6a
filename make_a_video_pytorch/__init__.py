"""Image diffusion models made into video diffusion models: Make-A-Video's modules in PyTorch."""

from make_a_video_pytorch.attention import SpatioTemporalAttention, chunk_attention
from make_a_video_pytorch.conv import PseudoConv3d
from make_a_video_pytorch.folding import per_frame
from make_a_video_pytorch.inflate import deflate, inflate
from make_a_video_pytorch.inflated import InflatedModel
from make_a_video_pytorch.parameters import spatial_parameters, temporal_parameters
from make_a_video_pytorch.resample import Downsample, Upsample
from make_a_video_pytorch.resnet import ResnetBlock
from make_a_video_pytorch.unet import SpaceTimeUnet

__all__ = [
    "Downsample",
    "InflatedModel",
    "PseudoConv3d",
    "ResnetBlock",
    "SpaceTimeUnet",
    "SpatioTemporalAttention",
    "Upsample",
    "chunk_attention",
    "deflate",
    "inflate",
    "per_frame",
    "spatial_parameters",
    "temporal_parameters",
]
