"""What a GPU that is not there takes of memory."""

import pytest
import torch
import torch.nn.functional as F
from fake_gpu import Live, on_a_gpu
from torch._subclasses.fake_tensor import FakeTensorMode

from make_a_video_pytorch.ops.gradients.by_hand import by_hand


@pytest.fixture
def live():
    with FakeTensorMode(), on_a_gpu(), Live() as live:
        yield live


def test_a_storage_counts_once_from_its_first_tensor_to_its_last(live):
    x = torch.empty(3, 5)
    y = x.t()
    assert live.now == live.peak == 60
    z = torch.empty(7, dtype=torch.half)
    del x, z
    assert (live.now, live.peak) == (60, 74)
    del y
    assert (live.now, live.peak) == (0, 74)


def test_of_what_is_sharded_one_shard_counts(live):
    x, y = torch.empty(10), torch.empty(3)
    assert live.shard([x, y], 3) == live.now == 14 + 4
    assert live.peak == 52
    del x
    assert live.now == 4


def test_gradients_are_by_hand_on_a_cpu_alone():
    assert by_hand(torch.empty(1))
    with on_a_gpu():
        assert not by_hand(torch.empty(1))
    assert by_hand(torch.empty(1))


def test_a_norm_keeps_its_input_and_a_number_a_pixel(live):
    x, gamma = torch.empty(11, 13, requires_grad=True), torch.empty(13, requires_grad=True)
    before = live.now
    out = F.rms_norm(x, gamma.shape, gamma, 1e-12)
    assert live.now == before + 4 * (11 * 13 + 11)
    out.sum().backward()
    assert x.grad.shape == x.shape
    assert gamma.grad.shape == gamma.shape


def test_a_norm_is_in_full_precision_under_autocast(live):
    x, gamma = torch.empty(11, 13, dtype=torch.bfloat16), torch.empty(13)
    with torch.autocast("cpu", torch.bfloat16):
        assert F.rms_norm(x, gamma.shape, gamma, 1e-12).dtype == torch.float32


@pytest.mark.parametrize("biased", [False, True])
def test_attention_keeps_no_scores_and_takes_them_for_the_gradient_of_a_bias(biased, live):
    q, k, v = (torch.empty(5, 3, 96, 8, requires_grad=True) for _ in range(3))
    bias = torch.empty(1, 3, 96, 96, requires_grad=True) if biased else None
    scores, before = 4 * 5 * 3 * 96 * 96, live.now
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    assert out.shape == q.shape
    # and a number for each query, and two that a dropout would start from
    assert live.now == before + out.nbytes + 4 * 5 * 3 * 96 + 16
    live.peak = live.now
    out.sum().backward()
    assert q.grad.shape == k.grad.shape == v.grad.shape == q.shape
    taken = live.peak - before
    assert scores < taken < 2 * scores if biased else taken < scores


def test_attention_is_in_lower_precision_under_autocast(live):
    q, bias = torch.empty(5, 3, 96, 8), torch.empty(1, 3, 96, 96)
    with torch.autocast("cpu", torch.bfloat16):
        out = F.scaled_dot_product_attention(q, q, q, attn_mask=bias)
    assert out.dtype == torch.bfloat16
