"""One test for each defect of this library's peers that could have been made here too."""

import inspect

import pytest
import torch

import make_a_video_pytorch as library
from make_a_video_pytorch import (
    Downsample,
    PseudoConv3d,
    ResnetBlock,
    SpaceTimeUnet,
    SpatioTemporalAttention,
)
from make_a_video_pytorch.modules.resnet import Block
from make_a_video_pytorch.ops.attend import Attend
from tests.zoo import UNET, randomize


def test_a_causal_convolution_starts_without_a_delay():
    """imagen-pytorch: a dirac in the centre under causal padding shifts by a frame."""
    conv = PseudoConv3d(3, kernel_size=3, temporal_kernel_size=5, causal=True)
    video = torch.randn(1, 3, 6, 4, 5)
    assert torch.equal(conv(video), conv(video, enable_time=False))


def test_causal_padding_follows_the_temporal_kernel():
    """imagen-pytorch: it follows the spatial one."""
    conv = randomize(PseudoConv3d(3, kernel_size=3, temporal_kernel_size=5, causal=True))
    assert conv(torch.randn(1, 3, 6, 4, 5)).shape == (1, 3, 6, 4, 5)
    assert conv.around == (4, 0)


def test_downsampling_over_time_does_not_amplify():
    """lumiere-pytorch: a kernel of [.5, 1, .5] doubles a still clip."""
    still = torch.randn(1, 3, 1, 4, 6).expand(1, 3, 4, 4, 6)
    torch.testing.assert_close(Downsample(3, False, True)(still), still[:, :, :2])


def test_the_projection_out_of_attention_over_time_is_zero_with_its_bias():
    """Tune-A-Video, LaVie: the weight is zero, the bias random."""
    attn = SpatioTemporalAttention(8)
    assert not any(p.any() for p in attn.temporal_attn.to_out.parameters())


def test_the_temporal_convolutions_of_a_residual_block_mix_frames():
    """pseudo-3D ResNets with a temporal kernel of 1 mix nothing."""
    block = ResnetBlock(3, 4)
    assert block.block1.project.temporal_conv.kernel_size == (3, 1)
    assert block.block2.project.temporal_conv.kernel_size == (3, 1)


def test_a_whole_unet_starts_as_its_image_model():
    """The original: token shift and random resampling in time."""
    unet = SpaceTimeUnet(**UNET)
    video = torch.randn(1, 3, 5, 8, 12)
    assert torch.equal(unet(video, 3), unet(video, 3, enable_time=False))


def test_flash_is_on_whatever_the_device():
    """The original: on compute capability 8.0 only, and never with a bias."""
    for module in SpaceTimeUnet(**UNET).modules():
        if isinstance(module, Attend):
            assert module.flash


def test_blocks_take_their_kernel_arguments():
    """The original ignores them."""
    assert Block(3, 4, 5).project.spatial_conv.kernel_size == (5, 5)


@pytest.mark.parametrize("frames", [1, 24, 32, 33, 65])
def test_no_number_of_frames_is_the_last(frames):
    """AnimateDiff, diffusers: a table of 24 or 32 positions."""
    attn = SpatioTemporalAttention(8, dim_head=4, heads=2)
    assert attn(torch.randn(1, 8, frames, 2, 3)).shape == (1, 8, frames, 2, 3)


def test_an_even_temporal_kernel_adds_no_frame():
    """The original does."""
    video = torch.randn(1, 3, 5, 4, 6)
    assert PseudoConv3d(3, temporal_kernel_size=4)(video).shape == video.shape


def test_a_small_spatial_kernel_keeps_a_larger_temporal_one():
    """The original drops it silently."""
    conv = randomize(PseudoConv3d(3, kernel_size=1, temporal_kernel_size=3))
    video = torch.randn(1, 3, 5, 4, 6)
    assert not torch.allclose(conv(video), conv(video, enable_time=False))


@pytest.mark.parametrize("dim", [3, 7])
def test_an_odd_dim_works(dim):
    """The original fails in forward."""
    unet = SpaceTimeUnet(**{**UNET, "dim": dim})
    assert unet(torch.randn(1, 3, 4, 8, 12), 3).isfinite().all()


def test_typos_are_not_swallowed():
    """The original: **kwargs."""
    for name in library.__all__:
        function = getattr(library, name)
        if inspect.ismodule(function) or name == "ControlBranch":  # which hands them on
            continue
        kinds = {p.kind for p in inspect.signature(function).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds
    with pytest.raises(TypeError, match="temporal_kernel"):
        PseudoConv3d(3, temporal_kernel=3)
    with pytest.raises(TypeError, match="dims"):
        library.ControlBranch(dim=4, dims=3)


def test_bfloat16_models_run():
    """The original: not with a position bias or a timestep."""
    unet = SpaceTimeUnet(**UNET).bfloat16()
    out = unet(torch.randn(1, 3, 4, 8, 12).bfloat16(), torch.tensor([3]))
    assert out.dtype == torch.bfloat16


def test_axes_mixed_up_are_noticed():
    """Open-Sora-Plan, diffusers: (b f c h w) goes through silently."""
    with pytest.raises(ValueError, match="must have 3 channels in dimension 1"):
        SpaceTimeUnet(**UNET)(torch.randn(1, 4, 3, 8, 12), 3)


def test_no_contiguous_conv3d_anywhere():
    """torch: in half precision it is slow or wrong on some versions."""
    assert not any(isinstance(m, torch.nn.Conv3d) for m in SpaceTimeUnet(dim=4).modules())
