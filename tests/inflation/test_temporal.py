"""What comes after a module's own forward: what it computes, where it hangs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from make_a_video_pytorch import temporal_parameters
from make_a_video_pytorch.inflation.temporal import (
    Clip,
    InflatedAttention,
    InflatedConv,
    attach,
    detach,
    is_attached,
    part_of,
    run_temporal_part,
)
from tests.zoo import randomize

B, FRAMES = 2, 5


CLIP = (B, FRAMES)


def clip():
    clip = Clip()
    clip.sizes = CLIP
    return clip


def conv_over_frames(out, conv, groups):
    """With one conv1d for each pixel."""
    h, w = out.shape[2:]
    x = out.unflatten(0, (B, -1)).permute(0, 3, 4, 2, 1).flatten(0, 2)  # (b h w) c f
    x = F.conv1d(x, conv.weight.squeeze(-1), conv.bias, padding="same", groups=groups)
    return x.unflatten(0, (B, h, w)).permute(0, 4, 3, 1, 2).flatten(0, 1)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_convolution_over_frames_is_added(groups, channels_last):
    part = InflatedConv("conv", nn.Conv2d(4 * groups, 6, 3, groups=groups), 3)
    out = torch.randn(B * FRAMES, 6, 7, 4)
    if channels_last:
        out = out.contiguous(memory_format=torch.channels_last)
    assert torch.equal(part(out, (), CLIP), out)
    randomize(part)
    result = part(out, (), CLIP)
    torch.testing.assert_close(result, out + conv_over_frames(out, part.conv, groups))
    assert result.stride() == out.stride()


def attention_over_frames(x, attn, angles):
    """With one matrix of scores for each pixel and head, and complex numbers for positions."""
    x = F.rms_norm(x, x.shape[-1:], attn.norm.gamma, eps=1e-12)  # b f n c
    q, k, v = (
        (x @ layer.weight.T).unflatten(-1, (attn.heads, attn.dim_head))
        for layer in (attn.to_q, attn.to_k, attn.to_v)
    )

    def rotated(x):
        real, imaginary = x.chunk(2, dim=-1)
        turned = torch.complex(real, imaginary) * torch.exp(1j * angles)[:, None, None]
        return torch.cat((turned.real, turned.imag), dim=-1)

    scores = torch.einsum("bingd,bjngd->bngij", rotated(q), rotated(k)) * attn.dim_head**-0.5
    out = torch.einsum("bngij,bjngd->bingd", scores.softmax(-1), v)
    return out.flatten(-2) @ attn.to_out.weight.T


@pytest.mark.parametrize("kind", ["pixels", "tokens"])
@pytest.mark.parametrize("reads_input", [True, False])
def test_attention_over_frames_of_input_and_output_is_added(kind, reads_input):
    part = InflatedAttention("attn", 6, 3, 4)
    shape = (B * FRAMES, 6, 7, 2) if kind == "pixels" else (B * FRAMES, 14, 6)
    out, seen = torch.randn(shape), torch.randn(shape)
    inputs = ("flag", seen, out) if reads_input else (None, seen[:, :3])
    assert torch.equal(part(out, inputs, CLIP), out)
    randomize(part)
    x = out + seen if reads_input else out
    x = x.flatten(2).mT if kind == "pixels" else x
    angles = torch.outer(torch.arange(FRAMES), 10_000 ** -torch.tensor([0, 0.5]))
    delta = attention_over_frames(x.unflatten(0, (B, FRAMES)), part.attn, angles).flatten(0, 1)
    if kind == "pixels":
        delta = delta.mT.unflatten(2, (7, 2))
    result = part(out, inputs, CLIP)
    torch.testing.assert_close(result, out + delta, rtol=1e-4, atol=1e-5)
    assert result.stride() == out.stride()


def test_the_input_may_be_given_by_its_name():
    class Attention(nn.Module):
        def forward(self, *, tokens):
            return tokens.tanh()

    attention = Attention()
    part = randomize(InflatedAttention("attn", 6, 3, 4))
    attach(attention, part, clip())
    tokens = torch.randn(B * FRAMES, 7, 6)
    assert torch.equal(attention(tokens=tokens), part(tokens.tanh(), (tokens,), CLIP))
    assert not torch.equal(attention(tokens=tokens), part(tokens.tanh(), (), CLIP))


def test_of_a_tuple_the_first_is_meant():
    part = randomize(InflatedAttention("attn", 6, 3, 4))
    out, scores = torch.randn(B * FRAMES, 7, 6), torch.randn(B * FRAMES, 2)
    result, same, number = part((out, scores, 3), (), CLIP)
    assert torch.equal(result, part(out, (), CLIP))
    assert same is scores
    assert number == 3


@pytest.mark.parametrize("sizes", [None, (10, 1)])
def test_images_pass(sizes):
    part = randomize(InflatedConv("conv", nn.Conv2d(3, 6, 3), 3))
    for out in (torch.randn(10, 6, 7, 4), (), None, "anything"):
        assert part(out, (), sizes) is out


def test_every_parameter_is_marked_as_temporal():
    for part in (
        InflatedConv("conv", nn.Conv2d(3, 6, 3), 3),
        InflatedAttention("attn", 6, 3, 4),
    ):
        assert temporal_parameters(part) == list(part.parameters())


def test_weights_without_values_are_an_error():
    part = InflatedConv("conv", nn.Conv2d(3, 6, 3), 3).to("meta")
    with pytest.raises(ValueError, match=r"`weight` \(on meta\) must be moved or loaded to where"):
        part(torch.randn(B * FRAMES, 6, 7, 4), (), CLIP)
    part = InflatedAttention("attn", 6, 3, 4).to("meta")
    with pytest.raises(RuntimeError, match="meta"):
        part(torch.randn(B * FRAMES, 7, 6), (), CLIP)


def test_a_hook_and_an_attribute_are_all_that_is_left_behind():
    conv = nn.Conv2d(3, 6, 3)
    before = {key: repr(value) for key, value in vars(conv).items()}
    part = randomize(InflatedConv("conv", conv, 3))
    x = torch.randn(B * FRAMES, 3, 7, 4)
    expected = conv(x)
    attach(conv, part, here := clip())
    assert type(conv) is nn.Conv2d
    assert part_of(conv) is part
    assert list(conv.children()) == []
    assert list(conv.state_dict()) == ["weight", "bias"]
    assert torch.equal(conv(x), part(expected, (), CLIP))
    attach(conv, part, here)  # once more makes no second hook
    assert torch.equal(conv(x), part(expected, (), CLIP))
    assert is_attached(conv, part, here)
    assert not is_attached(conv, part, clip())
    conv._forward_hooks.clear()
    conv._forward_hooks_with_kwargs.clear()
    assert not is_attached(conv, part, here)
    attach(conv, part, here)
    detach(conv)
    assert part_of(conv) is None
    assert torch.equal(conv(x), expected)
    assert {key: repr(value) for key, value in vars(conv).items()} == before


def test_a_hook_that_is_registered_again_without_its_keywords_runs():
    """As torch does with what it swaps for another, to quantise it."""
    conv = nn.Conv2d(3, 6, 3)
    part = randomize(InflatedConv("conv", conv, 3))
    attach(conv, part, clip())
    x = torch.randn(B * FRAMES, 3, 7, 4)
    expected = conv(x)
    conv._forward_hooks.clear()
    conv._forward_hooks_with_kwargs.clear()
    conv.register_forward_hook(run_temporal_part)
    assert torch.equal(conv(x), expected)
