import torch
import torch.nn.functional as F

from make_a_video_pytorch.ops.gradients.attention import attention_with_bias
from tests.ops.gradients.cases import CASES, is_by_hand, kept_by, randn


def test_a_batch_of_none():
    tensors = randn(0, 2, 4, 3), randn(0, 2, 7, 3), randn(0, 2, 7, 3), randn(1, 2, 4, 7)
    attention_with_bias(*tensors).sum().backward()
    assert tensors[0].grad.shape == (0, 2, 4, 3)


def test_attention_keeps_no_scores():
    """For 40 tokens of 8 features, those of a head alone are five times as large as `q`."""
    tensors = [torch.randn(2, 3, 40, 8, requires_grad=True) for _ in range(3)]
    tensors.append(torch.randn(1, 3, 40, 40, requires_grad=True))
    out, kept = kept_by(attention_with_bias, *tensors)
    assert kept == {t.data_ptr() for t in (*tensors, out)}


def test_a_bias_that_does_not_learn_is_left_to_torch():
    q, k, v, bias = (t.detach() for t in CASES["attention"][1])
    out = attention_with_bias(q.requires_grad_(), k, v, bias)
    assert not is_by_hand(out)
    torch.testing.assert_close(out, F.scaled_dot_product_attention(q, k, v, attn_mask=bias))
