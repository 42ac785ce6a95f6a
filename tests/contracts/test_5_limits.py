"""Contract 5: no limits, no refusals."""

import itertools

import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet, SpatioTemporalAttention
from make_a_video_pytorch.ops import attend
from tests.zoo import EVERY, IDENTITY, UNET, each, randomize

DTYPES = [torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("grid", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("pos_bias", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_chunks_of_batch_and_heads_change_nothing(monkeypatch, grid, pos_bias, causal):
    """Two clips of five frames are ten folded samples; 27 pixels of three heads are 81 heads."""
    attn = SpatioTemporalAttention(
        7, dim_head=8, heads=3, pos_bias=pos_bias, causal_time_attn=causal
    )
    randomize(attn).double()
    video = torch.randn(2, 7, 5, 3, 9).double()

    def results():
        attn.zero_grad()
        x = video.clone().requires_grad_()
        out = attn(x)
        out.square().sum().backward()
        return [out.detach(), x.grad, *(p.grad.clone() for p in attn.parameters())]

    whole = results()
    sizes = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(attend, "MAX_GRID", grid)
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda q, *args, **kwargs: (sizes.append(q.shape[:2]), fused(q, *args, **kwargs))[1],
    )
    for got, wanted in zip(results(), whole, strict=True):
        torch.testing.assert_close(got, wanted)
    assert max(itertools.chain(*sizes)) <= grid
    assert len(sizes) > 2


def test_the_flash_backward_is_kept_within_its_addresses(monkeypatch):
    attn = SpatioTemporalAttention(7, dim_head=8, heads=3, pos_bias=False).double()
    randomize(attn)
    video = torch.randn(2, 7, 5, 3, 9).double()
    whole = attn(video)
    row = 128 * 32  # five frames are padded to 128, eight features to 32
    monkeypatch.setattr(attend, "MAX_BACKWARD_ELEMENTS", 50 * row)
    q = torch.empty(2, 81, 5, 8)
    assert attend.chunk_sizes(q, q, None) == (1, 50)
    torch.testing.assert_close(attn(video), whole)
    with torch.no_grad():
        assert attend.chunk_sizes(q, q, None) == (attend.MAX_GRID, attend.MAX_GRID)


def test_the_limits_are_those_of_the_kernels():
    q = torch.empty(3, 70_000, 16, 64, device="meta")
    assert attend.chunk_sizes(q, q, None)[1] == 65_535
    with torch.no_grad():
        bias = torch.empty(8, 16, 16, device="meta")
        assert attend.chunk_sizes(q, q, bias)[1] == 65_528  # whole pixels of eight heads
    q = torch.empty(40, 32_768, 16, 64, device="meta")  # 262,144 rows of 128 x 64 at most
    assert attend.chunk_sizes(q, q, None) == (8, 65_535)


@pytest.mark.parametrize("frames", [*range(1, 18), 31, 32, 33, 64, 65])
def test_any_number_of_frames(frames):
    unet = randomize(SpaceTimeUnet(**UNET), 0.1)
    video = torch.randn(1, 3, frames, 8, 12)
    out = unet(video, 7)
    assert out.shape == video.shape
    assert out.isfinite().all()
    if frames > 1:  # the first frame depends on the clip: time was on
        assert not torch.equal(out[:, :, 0], unet(video[:, :, 0], 7))


@each(EVERY)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(entry, dtype):
    module, video = entry.build(), entry.video()
    randomize(module, 0.1)
    expected = module(video, **entry.extra())
    out = module.to(dtype)(video.to(dtype), **entry.extra(dtype))
    assert out.dtype == dtype
    tolerance = {torch.float64: 1e-5, torch.float16: 0.02, torch.bfloat16: 0.15}[dtype]
    torch.testing.assert_close(out.float(), expected, rtol=tolerance, atol=tolerance)
    out.float().square().mean().backward()
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), name


@each(EVERY)
def test_autocast(entry):
    module, video = randomize(entry.build(), 0.1), entry.video()
    expected = module(video, **entry.extra())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(video, **entry.extra())
    torch.testing.assert_close(out.float(), expected, rtol=0.15, atol=0.15)
    out.float().square().mean().backward()


@each(IDENTITY)
@pytest.mark.parametrize("value", [0.0, 1e3, -1e3])
def test_fp16_zeros_and_large_inputs_stay_finite(entry, value):
    """The square of 1,000 is more than fp16 holds."""
    module = entry.build().half()
    video = torch.full(entry.shape, value, dtype=torch.float16)
    assert module(video, **entry.extra(torch.float16)).isfinite().all()


@pytest.mark.parametrize(
    "timestep",
    [
        37,
        37.0,
        torch.tensor(37),
        torch.tensor([37]),
        torch.tensor([37, 37]),
        torch.tensor([[37], [37]]),
        torch.tensor([37, 37], dtype=torch.int32),
        torch.tensor([37, 37], dtype=torch.uint8),
        torch.tensor([37.0, 37.0], dtype=torch.float16),
        torch.tensor([37.0, 37.0], dtype=torch.bfloat16),
        torch.tensor([37.0, 37.0], dtype=torch.float64),
    ],
    ids=lambda t: f"{getattr(t, 'dtype', type(t).__name__)}-{getattr(t, 'shape', '')}",
)
def test_timesteps_of_any_dtype_and_shape(timestep):
    unet = randomize(SpaceTimeUnet(**UNET), 0.1)
    video = torch.randn(2, 3, 3, 8, 12)
    expected = unet(video, torch.tensor([37.0, 37.0]))
    torch.testing.assert_close(unet(video, timestep), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(unet(video, 38), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_models_take_integer_timesteps(dtype):
    unet = SpaceTimeUnet(**UNET).to(dtype)
    out = unet(torch.randn(2, 3, 2, 8, 12, dtype=dtype), torch.tensor([3, 999]))
    assert out.dtype == dtype
    assert out.isfinite().all()


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_small_and_odd_dims(dim):
    unet = SpaceTimeUnet(**{**UNET, "dim": dim})
    assert unet(torch.randn(1, 3, 2, 8, 12), 5).isfinite().all()
