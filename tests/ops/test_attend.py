import pytest
import torch

from make_a_video_pytorch.ops import attend
from make_a_video_pytorch.ops.attend import Attend, bias_span


def naive(q, k, v, bias, causal):
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for b in range(q.shape[0]):
        for g in range(q.shape[1]):
            for i in range(q.shape[2]):
                scores = k[b, g] @ q[b, g, i] / q.shape[-1] ** 0.5
                if bias is not None:
                    scores = scores + bias[g % len(bias), i]
                if causal:
                    scores = scores[: i + 1]
                out[b, g, i] = scores.softmax(0) @ v[b, g, : len(scores)]
    return out


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [None, 1, 3, 6])
def test_equals_a_loop(flash, causal, heads):
    q, k, v = torch.randn(3, 2, 6, 5, 4).double()
    bias = None if heads is None else torch.randn(heads, 5, 5).double()
    out = Attend(flash=flash, causal=causal)(q, k, v, bias)
    torch.testing.assert_close(out, naive(q, k, v, bias, causal))


@pytest.mark.parametrize("flash", [True, False])
def test_queries_and_keys_may_differ_in_number(flash):
    q, k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4)
    out = Attend(flash=flash)(q, k, v)
    torch.testing.assert_close(out, naive(q, k, v, None, False))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("flash", [True, False])
def test_a_bias_of_another_dtype_is_taken(dtype, flash):
    q, k, v = torch.randn(3, 1, 4, 5, 8).to(dtype)
    assert Attend(flash=flash)(q, k, v, torch.randn(2, 5, 5)).dtype == dtype


def test_the_explicit_softmax_is_taken_in_fp32():
    """Over 4,096 equal scores: a sum in fp16 or bf16 is off by a third."""
    v = torch.ones(1, 1, 4096, 8, dtype=torch.bfloat16)
    q = torch.zeros_like(v[:, :, :1])
    out = Attend(flash=False)(q, torch.zeros_like(v), v)
    torch.testing.assert_close(out, torch.ones_like(out))


@pytest.mark.parametrize("flash", [True, False])
def test_large_fp16_queries_and_keys_stay_finite(flash):
    q = torch.full((1, 2, 3, 64), 50.0, dtype=torch.float16)  # 64 * 50**2 is more than fp16 holds
    assert Attend(flash=flash)(q, q, q).isfinite().all()


@pytest.mark.parametrize("pos_bias", [True, False])
def test_chunks_keep_the_order_in_memory(monkeypatch, pos_bias):
    monkeypatch.setattr(attend, "MAX_GRID", 4)
    q, k, v = torch.randn(3, 5, 7, 6, 8).transpose(2, 3)  # b g i d, laid out b i g d
    bias = torch.randn(6, 7, 7) if pos_bias else None
    out = Attend()(q, k, v, bias)
    torch.testing.assert_close(out, naive(q, k, v, bias, False))
    assert out.transpose(1, 2).is_contiguous()


def test_it_says_what_it_does():
    assert repr(Attend(causal=True)) == "Attend(flash=True, causal=True)"


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("length", "window"), [(7, 1), (7, 2), (11, 3), (5, 3), (65, 4), (4, 2)])
def test_a_window_is_a_band_of_the_scores(flash, causal, length, window):
    q, k, v = torch.randn(3, 2, 6, length, 8).double().unbind()
    offset = torch.arange(length) - torch.arange(length)[:, None]
    by_offset = torch.randn(3, 2 * 65).double()
    band = (offset.abs() <= window) & ((offset <= 0) | (not causal))
    mask = torch.rand(2, length) > 0.3
    mask[:, 0] = True
    windowed = Attend(flash=flash, causal=causal, window=window)
    span = torch.arange(bias_span(length, window))
    bias = by_offset[:, span - span[:, None] + 65]
    scores = q @ k.mT / 8**0.5
    for given_bias, given_mask in [(None, None), (bias, None), (bias, mask), (None, mask)]:
        expected, seen = scores, band.expand(2, 1, -1, -1)
        if given_bias is not None:
            expected = expected + by_offset[:, offset + 65].repeat(2, 1, 1)
        if given_mask is not None:
            seen = seen & mask[:, None, None]
        expected = expected.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num() @ v
        out = windowed(q, k, v, given_bias, given_mask)
        rows = seen.any(-1).expand(2, 6, length)  # others see nothing, and mean nothing
        torch.testing.assert_close(out[rows], expected[rows])
        assert out.isfinite().all()


@pytest.mark.parametrize("window", [4, 5, 100])
def test_a_window_over_all_is_full_attention(window):
    q, k, v = torch.randn(3, 2, 6, 5, 8).unbind()
    bias = torch.randn(3, 5, 5)
    assert torch.equal(Attend(window=window)(q, k, v, bias), Attend()(q, k, v, bias))


def test_windowed_attention_grows_in_proportion_to_the_length(monkeypatch):
    """Scores counted, in the calls of the fused kernel."""
    counted = []

    def count(q, k, v, **kwargs):
        counted.append(q.shape[:3].numel() * k.shape[2])
        return q

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", count)
    for length in (64, 128):
        q = torch.randn(2, 3, length, 8)
        Attend(window=4)(q, q, q)
    assert counted[1] == 2 * counted[0]
    assert counted[0] == 2 * 3 * 64 * 12


def test_the_samples_of_a_batch_share_the_bias_of_a_window(monkeypatch):
    shapes = []

    def record(q, k, v, attn_mask, **kwargs):
        shapes.append(attn_mask.shape)
        return q

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", record)
    q = torch.randn(5, 6, 8, 4)
    Attend(window=2)(q, q, q, torch.randn(3, 6, 6))
    assert shapes == [(1, 6 * 4, 2, 6)]


def test_no_key_to_see_makes_no_nan_in_half_precision():
    """Scores below -16 beside a mask overflow fp16 if that is the most negative number."""
    q = torch.full((2, 1, 3, 16), 3.0, dtype=torch.float16).requires_grad_()
    mask = torch.tensor([[False] * 3, [True] * 3])
    out = Attend(flash=False)(q, -q, q, mask=mask)
    out.sum().backward()
    assert out.isfinite().all()
    assert q.grad.isfinite().all()


def test_chunks_of_heads_keep_the_mask_of_a_window(monkeypatch):
    q, k, v = torch.randn(3, 2, 6, 11, 8).double().unbind()
    mask = torch.rand(2, 11) > 0.3
    bias = torch.randn(3, bias_span(11, 2), bias_span(11, 2)).double()
    whole = Attend(window=2)(q, k, v, bias, mask)
    monkeypatch.setattr(attend, "MAX_GRID", 6)
    torch.testing.assert_close(Attend(window=2)(q, k, v, bias, mask), whole)


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("window", [None, 1, 2, 6, 9])
@pytest.mark.parametrize("queries", [1, 3, 7])
def test_fewer_causal_queries_are_the_last(flash, window, queries):
    q, k, v = torch.randn(3, 2, 6, 7, 4).double()
    bias, mask = torch.randn(3, 7, 7).double(), torch.rand(1, 7) > 0.3
    mask[:, -queries:] = True
    offset = torch.arange(7)[:, None] - torch.arange(7)
    seen = (offset >= 0) & (offset <= (7 if window is None else window)) & mask[:, None, None]
    scores = (q @ k.mT / 2 + bias.repeat(2, 1, 1)).masked_fill(~seen, -torch.inf)
    expected = (scores.softmax(-1) @ v)[:, :, -queries:]
    if queries == 7 and window is not None and window < 6:
        return  # then the bias is one of offsets
    last = Attend(flash=flash, causal=True, window=window)
    out = last(q[:, :, -queries:], k, v, bias[:, -queries:], mask)
    torch.testing.assert_close(out, expected)
    assert last(q[:, :, -queries:], k, v).isfinite().all()
