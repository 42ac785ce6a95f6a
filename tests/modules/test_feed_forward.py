import pytest
import torch
import torch.nn.functional as F

from make_a_video_pytorch.modules.feed_forward import GEGLU, FeedForward, TokenShift
from tests.zoo import randomize


@pytest.mark.parametrize("mult", [4, 2.5])
@pytest.mark.parametrize("time", [True, False])
def test_equals_a_loop_over_pixels_and_frames(mult, time):
    ff = randomize(FeedForward(3, mult)).double()
    video = torch.randn(2, 3, 4, 5, 6).double()
    inner = int(3 * mult * 2 / 3)
    into, out_of = ff.proj_in[0].weight, ff.proj_out[1].weight
    mix, gamma = ff.token_shift.mix, ff.proj_out[0].gamma
    expected = torch.empty_like(video)
    for b in range(2):
        for y in range(5):
            for x in range(6):
                last = torch.zeros(inner).double()
                for f in range(4):
                    features, gate = (into @ video[b, :, f, y, x]).split(inner)
                    hidden = features * F.gelu(gate)
                    mixed = hidden + mix * (last - hidden) if time else hidden
                    normed = mixed / (mixed.square().mean() + 1e-12).sqrt() * gamma
                    expected[b, :, f, y, x] = out_of @ normed
                    last = hidden
    torch.testing.assert_close(ff(video, enable_time=time), expected)


def test_token_shift_of_one_is_the_frame_before():
    shift = TokenShift(3)
    tokens = torch.randn(2, 4, 5, 6, 3)
    assert torch.equal(shift(tokens), tokens)
    shift.mix.data[1] = 1
    out = shift(tokens)
    assert torch.equal(out[..., [0, 2]], tokens[..., [0, 2]])
    assert torch.equal(out[:, 1:, ..., 1], tokens[:, :-1, ..., 1])
    assert not out[:, 0, ..., 1].any()


def test_the_product_of_large_fp16_features_stays_finite():
    x = torch.full((1, 4), 3e4, dtype=torch.float16)
    assert GEGLU()(x).isfinite().all()
    assert GEGLU()(x.bfloat16()).dtype == torch.bfloat16


def test_token_shift_looks_back_only():
    ff = randomize(FeedForward(3))
    video = torch.randn(1, 3, 5, 2, 4)
    other = video.clone()
    other[:, :, 2] += 1
    before, after = ff(video), ff(other)
    assert torch.equal(before[:, :, :2], after[:, :, :2])
    assert torch.equal(before[:, :, 4:], after[:, :, 4:])
    assert not torch.equal(before[:, :, 3], after[:, :, 3])


def test_gradients():
    ff = randomize(FeedForward(2, 3)).double()
    video = torch.randn(1, 2, 3, 2, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(ff, (video,))
