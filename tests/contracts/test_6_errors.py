"""Contract 6: bad input is an error that names the argument, its value and the constraint."""

import subprocess
import sys

import pytest
import torch

from make_a_video_pytorch import (
    Downsample,
    PseudoConv3d,
    ResnetBlock,
    SpaceTimeUnet,
    SpatioTemporalAttention,
    Upsample,
    deflate,
    guidance,
    inflate,
    spatial_parameters,
    temporal_parameters,
)
from make_a_video_pytorch.modules.feed_forward import FeedForward
from make_a_video_pytorch.ops.norm import RMSNorm
from make_a_video_pytorch.ops.positions import (
    ContinuousPositionBias,
    RotaryPositions,
    SinusoidalPosEmb,
)
from tests.zoo import EVERY, UNET, each

WRONG_VALUES = [
    (lambda: PseudoConv3d(0), r"`dim` \(=0\) must be at least 1"),
    (lambda: PseudoConv3d(3, -2), r"`dim_out` \(=-2\) must be at least 1"),
    (lambda: PseudoConv3d(3, kernel_size=0), r"`kernel_size` \(=0\) must be at least 1"),
    (
        lambda: PseudoConv3d(3, temporal_kernel_size=0),
        r"`temporal_kernel_size` \(=0\) must be at least 1",
    ),
    (lambda: SpatioTemporalAttention(0), r"`dim` \(=0\) must be at least 1"),
    (lambda: SpatioTemporalAttention(4, heads=0), r"`heads` \(=0\) must be at least 1"),
    (lambda: SpatioTemporalAttention(4, dim_head=0), r"`dim_head` \(=0\) must be at least 1"),
    (
        lambda: SpatioTemporalAttention(4, dim_head=6, rotary=True),
        r"`dim_head` \(=6\) must be divisible by 4 for rotary positions over 2 dimension",
    ),
    (
        lambda: SpatioTemporalAttention(4, ff_mult=0),
        r"`mult` \(=0\) with `dim` \(=4\) leaves no hidden features",
    ),
    (lambda: FeedForward(0), r"`dim` \(=0\) must be at least 1"),
    (lambda: RMSNorm(0), r"`chan` \(=0\) must be at least 1"),
    (lambda: SinusoidalPosEmb(1), r"`dim` \(=1\) must be at least 2"),
    (lambda: ContinuousPositionBias(dim=3, heads=0), r"`heads` \(=0\) must be at least 1"),
    (lambda: RotaryPositions(0), r"`dim_head` \(=0\) must be at least 1"),
    (lambda: RotaryPositions(3), r"`dim_head` \(=3\) must be divisible by 2 for rotary"),
    (lambda: Downsample(0), r"`dim` \(=0\) must be at least 1"),
    (lambda: Upsample(0), r"`dim` \(=0\) must be at least 1"),
    (
        lambda: Downsample(4, False, False),
        r"`downsample_space` \(=False\) or `downsample_time` \(=False\) must be True",
    ),
    (
        lambda: Upsample(4, False, False),
        r"`upsample_space` \(=False\) or `upsample_time` \(=False\) must be True",
    ),
    (
        lambda: ResnetBlock(3, 4, timestep_cond_dim=0),
        r"`timestep_cond_dim` \(=0\) must be at least 1",
    ),
    (lambda: SpaceTimeUnet(dim=0), r"`dim` \(=0\) must be at least 1"),
    (lambda: SpaceTimeUnet(dim=4, attn_heads=0), r"`attn_heads` \(=0\) must be at least 1"),
    (lambda: SpaceTimeUnet(dim=4, attn_dim_head=0), r"`attn_dim_head` \(=0\) must be at least 1"),
    (lambda: SpaceTimeUnet(dim=1), r"`dim` \(=1\) must be at least 2"),
    (lambda: SpaceTimeUnet(dim=4, channels=0), r"`channels` \(=0\) must be at least 1"),
    (
        lambda: SpaceTimeUnet(dim=4, dim_mult=(1, 2)),
        r"`self_attns` \(=\(False, False, False, True\)\) must have 2 entries, one for each of "
        r"`dim_mult` \(=\(1, 2\)\)",
    ),
    (
        lambda: SpaceTimeUnet(**{**UNET, "temporal_compression": (True,)}),
        r"`temporal_compression` \(=\(True,\)\) must have 2 entries",
    ),
    (
        lambda: SpaceTimeUnet(**{**UNET, "resnet_block_depths": (1, 1, 1)}),
        r"`resnet_block_depths` \(=\(1, 1, 1\)\) must have 2 entries",
    ),
    (
        lambda: SpaceTimeUnet(**{**UNET, "resnet_block_depths": (1, 0)}),
        r"`resnet_block_depths` \(=\(1, 0\)\) must have entries of at least 1",
    ),
    (
        lambda: SpaceTimeUnet(**{**UNET, "dim_mult": (1, 0)}),
        r"`dim_mult` \(=\(1, 0\)\) must have entries of at least 1",
    ),
    (
        lambda: SpaceTimeUnet(
            dim=4, dim_mult=(), self_attns=(), temporal_compression=(), resnet_block_depths=()
        ),
        r"`dim_mult` \(=\(\)\) must have entries of at least 1",
    ),
    (
        lambda: SpaceTimeUnet(**{**UNET, "self_attns": (0, 5)}),
        r"`self_attns` \(=\(0, 5\)\) must have True or False as entries",
    ),
    (
        lambda: SpaceTimeUnet(**{**UNET, "temporal_compression": (True, False)}, causal=True),
        r"`temporal_compression` \(=\(True, False\)\) must be all False with `causal`",
    ),
]


@pytest.mark.parametrize(
    ("build", "message"), WRONG_VALUES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_wrong_values_are_refused_by_constructors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


WRONG_TYPES = [
    (lambda: PseudoConv3d("8"), r"^`dim` \(='8'\) must be of type int$"),
    (lambda: PseudoConv3d(8, kernel_size=3.0), r"`kernel_size` \(=3.0\) must be of type int$"),
    (lambda: PseudoConv3d(8, causal=None), r"`causal` \(=None\) must be of type bool"),
    (lambda: SpatioTemporalAttention(8, heads=None), r"`heads` \(=None\) must be of type int$"),
    (lambda: ResnetBlock(8, "8"), r"`dim_out` \(='8'\) must be of type int$"),
    (lambda: Downsample(16, 32), r"^`downsample_space` \(=32\) must be of type bool$"),
    (lambda: Downsample(8, downsample_time=2.5), r"`downsample_time` \(=2.5\) must be of type"),
    (lambda: Upsample(None), r"`dim` \(=None\) must be of type int"),
    (lambda: FeedForward(8, "4"), r"`mult` \(='4'\) must be of type (int \| float|float \| int)$"),
    (lambda: SpaceTimeUnet(dim=8.0), r"`dim` \(=8.0\) must be of type int$"),
    (lambda: SpaceTimeUnet(dim=8, dim_mult=3), r"`dim_mult` \(=3\) must be of type Sequence\[int"),
    (lambda: SpaceTimeUnet(dim=8, self_attns=("no",) * 4), r"`self_attns` \(=\('no', "),
    (
        lambda: temporal_parameters([PseudoConv3d(3)]),
        r"^`module` \(a list\) must be an nn.Module$",
    ),
    (lambda: inflate([3]), r"^`model` \(=\[3\]\) must be of type Model$"),
    (lambda: deflate(torch.nn.Identity()), r"`video_model` \(=.* must be of type InflatedModel$"),
    (lambda: guidance.guide(3, 1.0), r"`unet` \(=3\) must be of type Callable\["),
    (lambda: spatial_parameters(None), r"`module` \(a NoneType\) must be an nn.Module"),
    # typos are not swallowed
    (lambda: PseudoConv3d(8, kernel=3), "kernel"),
    (lambda: SpatioTemporalAttention(8, head=3), "head"),
    (lambda: SpaceTimeUnet(dim=8, dim_mults=(1, 2)), "dim_mults"),
]


@pytest.mark.parametrize(
    ("build", "message"), WRONG_TYPES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_wrong_types_are_refused_by_constructors(build, message):
    with pytest.raises(TypeError, match=message):
        build()


def test_every_entry_of_a_sequence_is_checked():
    for _ in range(20):  # beartype alone looks at one entry, chosen at random
        with pytest.raises(TypeError, match="temporal_compression"):
            SpaceTimeUnet(**{**UNET, "temporal_compression": (False, "no")})


def test_lists_are_accepted_where_tuples_are():
    lists = {name: list(v) if isinstance(v, tuple) else v for name, v in UNET.items()}
    SpaceTimeUnet(**lists).load_state_dict(SpaceTimeUnet(**UNET).state_dict())


VIDEO = torch.zeros(2, 3, 4, 8, 12)
CALLS = [
    (dict(x=VIDEO[:, :, :3]), r"`frames` \(=3\) must be divisible by 2, the product of"),
    (dict(x=VIDEO[..., :7, :]), r"`height` \(=7\) must be divisible by 4, two to the number"),
    (dict(x=VIDEO[..., :10]), r"`width` \(=10\) must be divisible by 4"),
    (dict(timestep=None), r"`timestep` must be given, as `condition_on_timestep` is True"),
    (
        dict(timestep=torch.zeros(3)),
        r"`timestep` \(shape \(3,\)\) must be one number or \(b\), with b = 2",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "message"), CALLS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_wrong_calls_of_the_unet_are_refused(arguments, message):
    unet = SpaceTimeUnet(**{**UNET, "temporal_compression": (True, False)})
    with pytest.raises(ValueError, match=message):
        unet(**{"x": VIDEO, "timestep": 5, **arguments})


@each(EVERY)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool], ids=str)
def test_pictures_of_whole_numbers_are_refused(entry, dtype):
    video = torch.zeros(entry.shape, dtype=dtype)
    for x in (video, video[:, :, 0]):
        with pytest.raises(ValueError, match=rf"`x` \({dtype}\) must be of a floating point dtype"):
            entry.build()(x, **entry.extra())


def test_time_that_is_switched_off_by_place_is_told_its_place():
    x = torch.zeros(1, 3, 2, 2)
    for block in (ResnetBlock(3, 4), ResnetBlock(3, 4, timestep_cond_dim=5)):
        with pytest.raises(TypeError, match=r"`timestep_emb` \(=False\) must .* `enable_time`"):
            block(x, False)


def test_an_embedding_of_whole_numbers_is_refused():
    block = ResnetBlock(3, 4, timestep_cond_dim=5)
    with pytest.raises(ValueError, match=r"`timestep_emb` \(torch.int64\) must be of a floating"):
        block(torch.zeros(1, 3, 2, 2), torch.ones(1, 5, dtype=torch.int64))


def test_frames_need_no_multiple_where_time_is_skipped():
    unet = SpaceTimeUnet(**{**UNET, "temporal_compression": (True, False)})
    assert unet(VIDEO[:, :, :3], 5, enable_time=False).shape == (2, 3, 3, 8, 12)
    assert unet(VIDEO[:, :, :1], 5).shape == (2, 3, 1, 8, 12)


def test_a_timestep_that_is_not_taken_is_refused():
    unet = SpaceTimeUnet(**UNET, condition_on_timestep=False)
    with pytest.raises(ValueError, match="`timestep` must be left out, unless"):
        unet(VIDEO, 5)


def test_the_embedding_of_a_resnet_block_is_given_exactly_if_taken():
    x, emb = torch.zeros(1, 3, 2, 2), torch.zeros(1, 5)
    with pytest.raises(ValueError, match="`timestep_emb` must be given, as `timestep_cond_dim`"):
        ResnetBlock(3, 4, timestep_cond_dim=5)(x)
    with pytest.raises(ValueError, match="`timestep_emb` must be left out, since no"):
        ResnetBlock(3, 4)(x, emb)
    for shape in [(2, 5), (1, 4), (1, 5, 1)]:
        with pytest.raises(ValueError, match=r"`timestep_emb` \(shape .* must be .* = \(1, 5\)"):
            ResnetBlock(3, 4, timestep_cond_dim=5)(x, torch.zeros(shape))


@pytest.mark.parametrize(("shape", "name"), [((1, 3, 3, 4), "height"), ((1, 3, 4, 5), "width"),
                                             ((1, 3, 3, 4, 4), "frames")])  # fmt: skip
def test_odd_sizes_cannot_be_halved(shape, name):
    with pytest.raises(ValueError, match=rf"`{name}` \(=\d\) must be divisible by 2"):
        Downsample(3, downsample_time=True)(torch.zeros(shape))


def test_a_position_bias_takes_its_number_of_sizes():
    with pytest.raises(ValueError, match=r"`dimensions` \(=\(3,\)\) must be 2 sizes"):
        ContinuousPositionBias(dim=4, heads=2, num_dims=2)(3)


def test_an_old_torch_is_refused_by_name():
    code = "import torch; torch.__version__ = '2.5.1+cu121'; import make_a_video_pytorch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: make-a-video-pytorch needs torch 2.6 or later, found 2.5.1" in done.stderr
