"""The space-time U-Net (floor 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from make_a_video_pytorch.attention import SpatioTemporalAttention
from make_a_video_pytorch.checks import at_least, typechecked
from make_a_video_pytorch.conv import PseudoConv3d
from make_a_video_pytorch.layout import Temporal, as_given, as_video, memory_format_of
from make_a_video_pytorch.positions import SinusoidalPosEmb
from make_a_video_pytorch.resample import Downsample, Upsample
from make_a_video_pytorch.resnet import ResnetBlock


class SpaceTimeUnet(nn.Module):
    """A diffusion U-Net for images and videos.

    Make-A-Video (Singer et al. 2022, section 3.2): the U-Net of an image diffusion model whose
    convolutions and attentions are followed by ones over frames. Those start as the identity, so
    that at first `unet(video)` equals `unet(video, enable_time=False)`, bit for bit in fp32 on a
    CPU. With `temporal_compression` frames are at first averaged on the way down and repeated on
    the way up, and it is a still clip that gives the image's output in every frame.

    Shapes: image (b channels h w) or video (b channels f h w), returned in the same shape and
    memory format. h and w are multiples of `image_size_multiple`, f of `frame_multiple`.
    """

    @typechecked
    def __init__(
        self,
        *,
        dim: int,                                  # features at full resolution
        channels: int = 3,                         # channels of the picture
        dim_mult: Sequence[int] = (1, 2, 4, 8),    # features of each stage, in `dim`s
        self_attns: Sequence[bool | int] = (False, False, False, True),  # attention in a stage
        temporal_compression: Sequence[bool | int] = (False, True, True, True),  # halve frames
        resnet_block_depths: Sequence[int] = (2, 2, 2, 2),  # residual blocks in a stage
        attn_dim_head: int = 64,                   # width of an attention head
        attn_heads: int = 8,                       # number of attention heads
        condition_on_timestep: bool = True,        # take a diffusion timestep
        attn_pos_bias: bool = True,                # continuous relative bias in attention
        flash_attn: bool = True,                   # fused attention kernels
        causal_time_attn: bool = False,            # attention sees no later frames
        attn_rotary: bool = False,                 # rotary positions in attention
        causal: bool = False,                      # no temporal part sees later frames
    ) -> None:
        super().__init__()
        at_least(
            1, dim=dim, channels=channels, attn_dim_head=attn_dim_head, attn_heads=attn_heads
        )
        stages = len(dim_mult)
        for name, values in (
            ("dim_mult", dim_mult),
            ("self_attns", self_attns),
            ("temporal_compression", temporal_compression),
            ("resnet_block_depths", resnet_block_depths),
        ):
            if not all(isinstance(value, int) for value in values):  # beartype samples one entry
                raise TypeError(f"`{name}` (={tuple(values)}) must have int or bool entries")
            if len(values) != stages:
                raise ValueError(
                    f"`{name}` (={tuple(values)}) must have {stages} entries, one for each of "
                    f"`dim_mult` (={tuple(dim_mult)})"
                )
        if stages == 0 or min(*dim_mult, *resnet_block_depths) < 1:
            raise ValueError(
                f"`dim_mult` (={tuple(dim_mult)}) and `resnet_block_depths` "
                f"(={tuple(resnet_block_depths)}) must have entries of at least 1"
            )
        if causal and any(temporal_compression):
            raise ValueError(
                f"`temporal_compression` (={tuple(temporal_compression)}) must be all False with "
                "`causal`: a compressed frame holds a later one"
            )

        self.channels = channels
        self.frame_multiple = 2 ** sum(map(bool, temporal_compression))
        self.image_size_multiple = 2**stages
        self.skip_scale = 2**-0.5  # Imagen (Saharia et al. 2022, appendix B)

        self.to_timestep_cond = timestep_dim = None
        if condition_on_timestep:
            timestep_dim = dim * 4
            self.to_timestep_cond = nn.Sequential(
                SinusoidalPosEmb(dim), nn.Linear(dim, timestep_dim), nn.SiLU()
            )

        def resnet(dim_in: int, dim_out: int, cond_dim: int | None = None) -> ResnetBlock:
            return ResnetBlock(dim_in, dim_out, timestep_cond_dim=cond_dim, causal=causal)

        def attention(dim: int) -> SpatioTemporalAttention:
            return SpatioTemporalAttention(
                dim,
                dim_head=attn_dim_head,
                heads=attn_heads,
                pos_bias=attn_pos_bias,
                flash=flash_attn,
                causal_time_attn=causal or causal_time_attn,
                rotary=attn_rotary,
            )

        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        dims = [dim, *(mult * dim for mult in dim_mult)]
        for dim_in, dim_out, attend, compress_time, depth in zip(
            dims, dims[1:], self_attns, temporal_compression, resnet_block_depths, strict=False
        ):
            compress_time = bool(compress_time)
            self.downs.append(
                nn.ModuleList(
                    [
                        resnet(dim_in, dim_out, timestep_dim),
                        nn.ModuleList(resnet(dim_out, dim_out) for _ in range(depth)),
                        attention(dim_out) if attend else None,
                        Downsample(dim_out, downsample_time=compress_time),
                    ]
                )
            )
            self.ups.append(
                nn.ModuleList(
                    [
                        resnet(dim_out * 2, dim_in, timestep_dim),
                        nn.ModuleList(
                            resnet(dim_in + (dim_out if index == 0 else 0), dim_in)
                            for index in range(depth)
                        ),
                        attention(dim_in) if attend else None,
                        Upsample(dim_out, upsample_time=compress_time),
                    ]
                )
            )

        self.mid_block1 = resnet(dims[-1], dims[-1], timestep_dim)
        self.mid_attn = attention(dims[-1])
        self.mid_block2 = resnet(dims[-1], dims[-1], timestep_dim)

        self.conv_in = PseudoConv3d(channels, dim, 7, temporal_kernel_size=3, causal=causal)
        self.conv_out = PseudoConv3d(dim, channels, 3, temporal_kernel_size=3, causal=causal)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor | float | None = None,
        enable_time: bool | Temporal = True,
    ) -> Tensor:
        """Predict from a noisy image or video; with `enable_time=False`, frame by frame.

        Args:
            x: image (b channels h w) or video (b channels f h w).
            timestep: the diffusion step, one number or (b), of any dtype; given if and only if
                the U-Net was built with `condition_on_timestep`.
            enable_time: run the temporal parts on a video of more than one frame.

        Raises:
            ValueError: if `x` has another rank, other channels or sizes that are no multiples,
                or `timestep` is missing, not taken, or neither a number nor (b).
        """
        video, temporal = as_video(x, self.channels, enable_time)
        self.check_sizes(video, temporal)
        emb = self.embed_timestep(timestep, video.shape[0])

        # In
        video = self.conv_in(video, temporal)

        # Down
        skips = []
        for init_block, blocks, attention, downsample in self.downs:
            video = init_block(video, emb, temporal)
            skips.append(video)
            for block in blocks:
                video = block(video, enable_time=temporal)
            if attention is not None:
                video = attention(video, temporal)
            skips.append(video)
            video = downsample(video, temporal)

        # Mid
        video = self.mid_block1(video, emb, temporal)
        video = self.mid_attn(video, temporal)
        video = self.mid_block2(video, emb, temporal)

        # Up
        for init_block, blocks, attention, upsample in reversed(self.ups):
            video = upsample(video, temporal)
            video = torch.cat((skips.pop() * self.skip_scale, video), dim=1)
            video = init_block(video, emb, temporal)
            video = torch.cat((skips.pop() * self.skip_scale, video), dim=1)
            for block in blocks:
                video = block(video, enable_time=temporal)
            if attention is not None:
                video = attention(video, temporal)

        # Out
        out = as_given(self.conv_out(video, temporal), x)
        return out.contiguous(memory_format=memory_format_of(x))

    def embed_timestep(self, timestep: Tensor | float | None, batch: int) -> Tensor | None:
        """The conditioning vectors (b 4*dim) of `timestep`, a number or (b)."""
        if (timestep is None) != (self.to_timestep_cond is None):
            needed = "given, as" if timestep is None else "left out, unless"
            raise ValueError(f"`timestep` must be {needed} `condition_on_timestep` is True")
        if timestep is None:
            return None
        sinusoid, linear, act = self.to_timestep_cond
        if not isinstance(timestep, Tensor):
            # a tensor that is filled, so that a compiler does not make a graph for each number
            timestep = torch.full((1,), timestep, device=linear.weight.device)
        timestep = timestep.to(linear.weight.device)
        if timestep.numel() != 1 and timestep.numel() != batch:
            raise ValueError(
                f"`timestep` (shape {tuple(timestep.shape)}) must be one number or (b), with b = "
                f"{batch} as in `x`"
            )
        emb = sinusoid(timestep.reshape(-1)).to(linear.weight.dtype)
        return act(linear(emb)).expand(batch, -1)

    def check_sizes(self, video: Tensor, temporal: Temporal) -> None:
        frames, height, width = video.shape[2:]
        if temporal and frames % self.frame_multiple:
            raise ValueError(
                f"`frames` (={frames}) must be divisible by {self.frame_multiple}, the product of "
                "`temporal_compression`"
            )
        for name, size in (("height", height), ("width", width)):
            if size % self.image_size_multiple:
                raise ValueError(
                    f"`{name}` (={size}) must be divisible by {self.image_size_multiple}, two to "
                    "the number of stages"
                )
