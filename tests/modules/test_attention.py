import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from make_a_video_pytorch import (
    SpaceTimeUnet,
    SpatioTemporalAttention,
    chunk_attention,
    inflate,
)
from make_a_video_pytorch.ops.positions import rotate
from tests.zoo import UNET, randomize


def one_attention(attn, tokens, bias, angles, causal):
    """Multi-head attention over a list of tokens (n c), a head and a query at a time."""
    normed = tokens / tokens.square().mean(-1, keepdim=True).sqrt() * attn.norm.gamma
    q, k, v = (normed @ layer.weight.T for layer in (attn.to_q, attn.to_k, attn.to_v))
    outs = []
    for head in range(attn.heads):
        part = slice(head * attn.dim_head, (head + 1) * attn.dim_head)
        qh, kh, vh = q[:, part], k[:, part], v[:, part]
        if angles is not None:
            qh, kh = (rotate(t[None, :, None], angles)[0, :, 0] for t in (qh, kh))
        rows = []
        for i in range(len(tokens)):
            scores = kh @ qh[i] / attn.dim_head**0.5
            if bias is not None:
                scores = scores + bias[head, i]
            seen = i + 1 if causal else len(tokens)
            rows.append(scores[:seen].softmax(0) @ vh[:seen])
        outs.append(torch.stack(rows))
    return torch.cat(outs, -1) @ attn.to_out.weight.T


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("pos_bias", "rotary"), [(True, False), (False, True), (False, False)])
def test_equals_a_loop_over_pixels_and_frames(flash, causal, pos_bias, rotary):
    attn = SpatioTemporalAttention(
        10, dim_head=8, heads=3, add_feed_forward=False, pos_bias=pos_bias, rotary=rotary,
        flash=flash, causal_time_attn=causal,
    )  # fmt: skip
    randomize(attn).double()
    b, c, f, h, w = 2, 10, 5, 3, 4
    video = torch.randn(b, c, f, h, w).double()

    def of(module, *sizes):
        like = {"dtype": torch.float64} if pos_bias else {}
        return None if module is None else module(*sizes, **like)

    expected = video.clone()
    for i in range(b):
        for t in range(f):
            tokens = video[i, :, t].flatten(1).T
            added = one_attention(attn.spatial_attn, tokens, of(attn.spatial_rel_pos_bias, h, w),
                                  of(attn.spatial_rotary, h, w), False)  # fmt: skip
            expected[i, :, t] += added.T.view(c, h, w)
    in_space = expected.clone()
    for i in range(b):
        for y in range(h):
            for x in range(w):
                tokens = in_space[i, :, :, y, x].T
                added = one_attention(attn.temporal_attn, tokens, of(attn.temporal_rel_pos_bias, f),
                                      of(attn.temporal_rotary, f), causal)  # fmt: skip
                expected[i, :, :, y, x] += added.T
    torch.testing.assert_close(attn(video), expected)
    torch.testing.assert_close(attn(video, enable_time=False), in_space)


@pytest.mark.parametrize("changed", [1, 4, 6])
@pytest.mark.parametrize(("pos_bias", "rotary"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("flash", [True, False])
def test_causal_leaves_earlier_frames_alone_bit_for_bit(changed, pos_bias, rotary, flash):
    attn = SpatioTemporalAttention(
        7, dim_head=8, heads=3, causal_time_attn=True, pos_bias=pos_bias, rotary=rotary, flash=flash
    )
    randomize(attn)
    video = torch.randn(2, 7, 7, 3, 5)
    other = video.clone()
    other[:, :, changed] += 1
    before, after = attn(video), attn(other)
    assert torch.equal(before[:, :, :changed], after[:, :, :changed])
    assert not torch.equal(before[:, :, -1], after[:, :, -1])


@pytest.mark.parametrize("pos_bias", [True, False])
def test_gradients(pos_bias):
    attn = SpatioTemporalAttention(4, dim_head=4, heads=2, pos_bias=pos_bias, rotary=not pos_bias)
    randomize(attn).double()
    video = torch.randn(1, 4, 3, 2, 2).double().requires_grad_()
    names, parameters = zip(*attn.named_parameters(), strict=True)

    def call(video, *parameters):
        return torch.func.functional_call(attn, dict(zip(names, parameters, strict=True)), video)

    assert torch.autograd.gradcheck(call, (video, *parameters), fast_mode=True)


def test_parts_that_were_not_asked_for_are_not_there():
    plain = SpatioTemporalAttention(8, pos_bias=False, add_feed_forward=False)
    assert not plain.has_feed_forward
    assert {name.split(".")[0] for name, _ in plain.named_parameters()} == {
        "spatial_attn",
        "temporal_attn",
    }


class Largest(TorchDispatchMode):
    """The size of the largest tensor that is made inside."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


@pytest.mark.parametrize("sizes", [(1, 1), (2, 7), (4, None), (None, 20), (100, 1000)])
@pytest.mark.parametrize("kind", ["all", "masked", "image"])
def test_chunks_of_frames_and_pixels_change_nothing_but_the_memory(sizes, kind):
    attn = randomize(SpatioTemporalAttention(7, dim_head=8, heads=3, context_dim=6))
    model = torch.nn.Sequential(torch.nn.ModuleList([attn]))
    video = torch.randn(2, 7, 5, 4, 9)
    given = {"context": torch.randn(2, 3, 6)}
    if kind == "masked":
        given["frame_mask"] = torch.arange(5) < torch.tensor([[5], [3]])
    x = video[:, :, 0] if kind == "image" else video
    with torch.no_grad(), Largest() as before:
        expected = attn(x, **given)
    chunk_attention(model, frames=sizes[0], pixels=sizes[1])
    with torch.no_grad(), Largest() as after:
        torch.testing.assert_close(attn(x, **given), expected, rtol=1e-4, atol=1e-5)
    if sizes == (1, 1) and kind != "image":
        assert after.numel * 3 < before.numel
    chunk_attention(model)
    torch.testing.assert_close(attn(x, **given), expected, rtol=1e-4, atol=1e-5)
    assert attn.frames_at_once is attn.pixels_at_once is None


@pytest.mark.parametrize("name", ["frames", "pixels"])
def test_chunks_of_nothing_are_refused(name):
    with pytest.raises(ValueError, match=rf"`{name}` \(=0\) must be at least 1"):
        chunk_attention(torch.nn.Identity(), **{name: 0})


def test_chunks_where_nothing_goes_in_chunks_are_refused():
    model = inflate(torch.nn.Conv2d(3, 3, 3, padding=1))
    with pytest.raises(ValueError, match=r"`module` \(a InflatedModel\) must hold a SpatioTemp"):
        chunk_attention(model, frames=1)


def test_every_attention_of_a_model_goes_in_chunks():
    unet = SpaceTimeUnet(**{**UNET, "self_attns": (True, True)})
    chunk_attention(unet, frames=3, pixels=5)
    found = [part for part in unet.modules() if isinstance(part, SpatioTemporalAttention)]
    assert len(found) == 5
    assert all((part.frames_at_once, part.pixels_at_once) == (3, 5) for part in found)
