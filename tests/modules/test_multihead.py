import pytest
import torch

from make_a_video_pytorch import SpatioTemporalAttention
from make_a_video_pytorch.modules.multihead import CrossAttention
from tests.zoo import randomize


@pytest.mark.parametrize("flash", [True, False])
def test_every_pixel_of_every_frame_attends_to_the_tokens(flash):
    """A loop over samples, heads and pixels, in float64."""
    cross = randomize(CrossAttention(7, 6, dim_head=4, heads=3, flash=flash)).double()
    x, context = torch.randn(2, 3, 2, 5, 7).double(), torch.randn(2, 4, 6).double()
    mask = torch.tensor([[True, False, True, True], [True, True, False, False]])
    out = cross(x, context, mask)
    for b, f, h, w in [(0, 0, 0, 0), (0, 2, 1, 4), (1, 1, 0, 3)]:
        q = cross.to_q(cross.norm(x[b, f, h, w])).view(3, 4)
        normed = cross.context_norm(context[b])
        k, v = cross.to_k(normed), cross.to_v(normed)
        heads = []
        for head in range(3):
            own = slice(4 * head, 4 * head + 4)
            scores = torch.stack([q[head] @ key[own] / 2 for key in k])[mask[b]]
            heads.append(scores.softmax(0) @ v[mask[b]][:, own])
        torch.testing.assert_close(out[b, f, h, w], cross.to_out(torch.cat(heads)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_token_is_no_context(dtype):
    attn = SpatioTemporalAttention(7, dim_head=8, heads=3, context_dim=6)
    randomize(attn).to(dtype)
    video, context = torch.randn(2, 7, 3, 5, 9, dtype=dtype), torch.randn(2, 4, 6, dtype=dtype)
    expected = attn(video)
    mask = torch.tensor([[False] * 4, [True] * 4])
    out = attn(video, context=context, context_mask=mask)
    assert torch.equal(out[0], expected[0])
    assert not torch.allclose(out[1], expected[1], atol=1e-2)
    assert torch.equal(attn(video, context=context[:, :0]), expected)
    out.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in attn.parameters())


def test_hidden_tokens_are_not_there():
    attn = randomize(SpatioTemporalAttention(7, dim_head=8, heads=3, context_dim=6))
    video, context = torch.randn(1, 7, 3, 5, 9), torch.randn(1, 4, 6)
    mask = torch.tensor([[True, False, True, False]])
    torch.testing.assert_close(
        attn(video, context=context, context_mask=mask), attn(video, context=context[:, ::2])
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_masks_are_taken_as_tokenizers_give_them(dtype):
    attn = randomize(SpatioTemporalAttention(7, dim_head=8, heads=3, context_dim=6))
    video, context = torch.randn(2, 7, 3, 5, 9), torch.randn(2, 4, 6)
    mask = torch.tensor([[True, False, True, False], [True] * 4])
    expected = attn(video, context=context, context_mask=mask)
    out = attn(video, context=context, context_mask=mask.to(dtype))
    assert torch.equal(out, expected)


def test_at_first_it_adds_nothing():
    cross = CrossAttention(7, 6)
    assert not cross(torch.randn(2, 3, 7), torch.randn(2, 4, 6)).any()


def test_tokens_that_are_not_seen_may_hold_anything():
    attention = randomize(CrossAttention(8, 6, dim_head=8, heads=2), 0.2)
    x, context = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    mask = torch.arange(5) < torch.tensor([[3], [0]])
    expected = attention(x, context, mask)
    out = attention(x, context.masked_fill(~mask[..., None], torch.nan), mask)
    out.sum().backward()
    assert torch.equal(out, expected)
    assert all(p.grad.isfinite().all() for p in attention.parameters())
