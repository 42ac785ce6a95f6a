"""The space-time U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from make_a_video_pytorch.modules.attention import SpatioTemporalAttention
from make_a_video_pytorch.modules.conv import PseudoConv3d
from make_a_video_pytorch.modules.resample import Downsample, Upsample
from make_a_video_pytorch.modules.resnet import ResnetBlock
from make_a_video_pytorch.ops.checks import at_least, must_be_multiple, one_per_stage, typechecked
from make_a_video_pytorch.ops.decision import Temporal, as_video, hide, must_be_frames
from make_a_video_pytorch.ops.layout import as_given, memory_format_of
from make_a_video_pytorch.unet.conditions import Conditioned
from make_a_video_pytorch.unet.growth import Growable


class SpaceTimeUnet(Conditioned, Growable):
    """A diffusion U-Net for images and videos.

    Make-A-Video (Singer et al. 2022, section 3.2): the U-Net of an image diffusion model whose
    convolutions and attentions are followed by ones over frames. Those start as the identity, so
    that at first `unet(video)` equals `unet(video, enable_time=False)`, bit for bit in fp32 on a
    CPU. With `temporal_compression` frames are at first averaged on the way down and repeated on
    the way up, and it is a still clip that gives the image's output in every frame.

    Every condition is optional twice: what the U-Net is not built for costs nothing, and what it
    is built for may be left out of a call, as for the null condition of classifier-free guidance.
    All enter by weights that are zero at first.

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
        channels_out: int | None = None,           # channels predicted; `channels` if None
        cond_channels: int = 0,                    # channels of the pictures to condition on
        cond_dim: int | None = None,               # width of a vector to condition on
        context_dim: int | None = None,            # features of the tokens to condition on
        condition_on_fps: bool = False,            # take the frames per second
        temporal_window: int | None = None,        # frames attended to on either side, if not all
        gradient_checkpointing: bool = False,      # compute blocks again in backward
    ) -> None:
        super().__init__(dim, condition_on_timestep, cond_dim, condition_on_fps, cond_channels)
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        # the constructor's arguments, fit for JSON beside a checkpoint and for `grow`
        self.config = {k: tuple(v) if isinstance(v, Sequence) else v for k, v in given.items()}
        channels_out = channels if channels_out is None else channels_out
        at_least(
            1,
            channels=channels,
            channels_out=channels_out,
            attn_dim_head=attn_dim_head,
            attn_heads=attn_heads,
        )
        one_per_stage(
            dim_mult,
            self_attns=self_attns,
            temporal_compression=temporal_compression,
            resnet_block_depths=resnet_block_depths,
        )
        if causal and any(temporal_compression):
            raise ValueError(
                f"`temporal_compression` (={tuple(temporal_compression)}) must be all False with "
                "`causal`: a compressed frame holds a later one"
            )

        self.channels = channels
        self.channels_out = channels_out
        self.gradient_checkpointing = gradient_checkpointing
        self.frame_multiple = 2 ** sum(map(bool, temporal_compression))
        self.image_size_multiple = 2 ** len(dim_mult)
        self.skip_scale = 2**-0.5  # Imagen (Saharia et al. 2022, appendix B)

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
                temporal_window=temporal_window,
                context_dim=context_dim,
            )

        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        dims = [dim, *(mult * dim for mult in dim_mult)]
        for dim_in, dim_out, attend, compress_time, depth in zip(
            dims, dims[1:], self_attns, temporal_compression, resnet_block_depths, strict=False
        ):
            compress_time = bool(compress_time)
            self.downs.append(nn.ModuleList([
                resnet(dim_in, dim_out, self.emb_dim),
                nn.ModuleList(resnet(dim_out, dim_out) for _ in range(depth)),
                attention(dim_out) if attend else None,
                Downsample(dim_out, downsample_time=compress_time),
            ]))
            self.ups.append(nn.ModuleList([
                resnet(dim_out * 2, dim_in, self.emb_dim),
                nn.ModuleList(
                    resnet(dim_in + (dim_out if index == 0 else 0), dim_in)
                    for index in range(depth)
                ),
                attention(dim_in) if attend else None,
                Upsample(dim_out, upsample_time=compress_time),
            ]))

        self.mid_block1 = resnet(dims[-1], dims[-1], self.emb_dim)
        self.mid_attn = attention(dims[-1])
        self.mid_block2 = resnet(dims[-1], dims[-1], self.emb_dim)

        dim_in = channels + cond_channels
        self.conv_in = PseudoConv3d(dim_in, dim, 7, temporal_kernel_size=3, causal=causal)
        self.conv_out = PseudoConv3d(dim, channels_out, 3, temporal_kernel_size=3, causal=causal)
        with torch.no_grad():
            self.conv_in.spatial_conv.weight[:, channels:].zero_()

    def forward(
        self,
        x: Tensor,
        timestep: Tensor | float | None = None,
        enable_time: bool | Tensor | Temporal = True,
        *,
        cond_images: Tensor | None = None,
        cond: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        fps: Tensor | float | None = None,
        frame_mask: Tensor | None = None,
    ) -> Tensor:
        """Predict from a noisy image or video; with `enable_time=False`, frame by frame.

        Args:
            x: image (b channels h w) or video (b channels f h w).
            timestep: the diffusion step, one number, (b), or (b f) for a noise level of each
                frame, of any dtype; given if and only if the U-Net was built with
                `condition_on_timestep`.
            enable_time: run the temporal parts on a video of more than one frame: one bool, or
                one for each sample (b), as for a batch of videos and of clips of images.
            cond_images: pictures (b cond_channels [f] h w) beside `x`: a video of low resolution
                resized, frames to be kept, an earlier prediction. One picture stands for all
                frames. Zeros if left out.
            cond: a vector (b cond_dim), such as an image embedding. Zeros if left out.
            context: tokens (b n context_dim), such as a text's.
            context_mask: False (b n) for tokens that are not to be seen.
            fps: frames per second of the clip, one number or (b); on images it has no effect.
            frame_mask: False (b f) for frames that are padding at the end of a shorter clip,
                whose length is a multiple of `frame_multiple`. They come out as zeros.

        Raises:
            ValueError: if `x` has another rank, other channels or sizes that are no multiples, or
                another argument is missing, of another shape or not what the U-Net was built for.
        """
        video, temporal = as_video(x, self.channels, enable_time, frame_mask)
        frames, height, width = video.shape[2:]
        must_be_multiple(
            self.image_size_multiple, "two to the number of stages", height=height, width=width
        )
        if temporal.runs:
            must_be_frames(frames, frame_mask, enable_time, self.frame_multiple)
        if self.frame_multiple > 1 and not isinstance(enable_time, Tensor):
            # as no clip is of one frame, no sample is an image
            temporal = Temporal(temporal.runs, None, temporal.real)
        emb = self.embed(timestep, cond, fps, video, temporal)
        video = self.beside(video, cond_images, frame_mask)
        tokens = {"context": context, "context_mask": context_mask}

        def run(block: nn.Module, video: Tensor, **further: Tensor | None) -> Tensor:
            function = partial(block, enable_time=temporal, **further)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                return checkpoint(function, video, use_reentrant=False, preserve_rng_state=False)
            return function(video)

        # In
        video = self.conv_in(video, temporal)

        # Down
        skips, levels = [], []
        for stage, (init_block, blocks, attention, downsample) in enumerate(self.downs):
            video = run(init_block, video, timestep_emb=emb)
            skips.append(video)
            for block in blocks:
                video = run(block, video)
            if attention is not None:
                video = run(attention, video, **tokens)
            skips.append(video)
            levels.append((temporal, emb))
            frames = video.shape[2]
            video = downsample(video, temporal)
            if temporal.runs and self.config["temporal_compression"][stage]:
                if emb is not None and emb.ndim == 3:  # a pair of frames gets the mean of its two
                    emb = temporal.halve(emb, emb.unflatten(1, (-1, 2)).mean(2))
                temporal = temporal.halved(frames)

        # Mid
        video = run(self.mid_block1, video, timestep_emb=emb)
        video = run(self.mid_attn, video, **tokens)
        video = run(self.mid_block2, video, timestep_emb=emb)

        # Up
        for init_block, blocks, attention, upsample in reversed(self.ups):
            temporal, emb = levels.pop()
            video = upsample(video, temporal)
            video = torch.cat((skips.pop() * self.skip_scale, video), dim=1)
            video = run(init_block, video, timestep_emb=emb)
            video = torch.cat((skips.pop() * self.skip_scale, video), dim=1)
            for block in blocks:
                video = run(block, video)
            if attention is not None:
                video = run(attention, video, **tokens)

        # Out
        out = self.conv_out(video, temporal)
        if frame_mask is not None:
            out = hide(out, frame_mask)
        return as_given(out, x).contiguous(memory_format=memory_format_of(x))
