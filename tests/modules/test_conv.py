import pytest
import torch
import torch.nn.functional as F
from torch import nn

from make_a_video_pytorch import PseudoConv3d
from make_a_video_pytorch.modules.conv import TemporalConv, convolve, frames_around, temporal_conv
from tests.zoo import randomize


@pytest.mark.parametrize(("kernel", "temporal"), [(3, 3), (5, 3), (1, 5), (3, 1)])
def test_equals_a_dense_convolution_in_the_interior(kernel, temporal):
    """(W_t * W_s) as one kernel of 3D convolution; at the borders the bias between them differs."""
    conv = randomize(PseudoConv3d(3, 5, kernel, temporal_kernel_size=temporal)).double()
    video = torch.randn(2, 3, 7, 9, 11).double()
    over_time, in_space = conv.temporal_conv.weight.squeeze(-1), conv.spatial_conv.weight
    weight = torch.einsum("omk,mihw->oikhw", over_time, in_space)
    bias = over_time.sum(2) @ conv.spatial_conv.bias + conv.temporal_conv.bias
    dense = F.conv3d(video, weight, bias, padding=(temporal // 2, kernel // 2, kernel // 2))
    inside = slice(temporal // 2, 7 - temporal // 2)
    torch.testing.assert_close(conv(video)[:, :, inside], dense[:, :, inside])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_temporal_conv_equals_a_loop_over_frames(size, causal, frames):
    around = frames_around(size, causal)
    conv = randomize(temporal_conv(3, around)).double()
    video = torch.randn(2, 3, frames, 4, 5).double()
    centre = size - 1 if causal else size // 2
    expected = conv.bias[:, None, None, None].expand_as(video).clone()
    for f in range(frames):
        for tap in range(size):
            source = f + tap - centre
            if 0 <= source < frames:
                step = torch.einsum("oi,bihw->bohw", conv.weight[:, :, tap, 0], video[:, :, source])
                expected[:, :, f] += step
    torch.testing.assert_close(convolve(conv, video, around), expected)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("temporal", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_every_kernel_keeps_frames_height_and_width(kernel, temporal, causal):
    conv = PseudoConv3d(3, 5, kernel, temporal_kernel_size=temporal, causal=causal)
    video = torch.randn(2, 3, 5, 6, 7)
    assert conv(video).shape == (2, 5, 5, 6, 7)
    assert conv(video[:, :, 0]).shape == (2, 5, 6, 7)
    assert torch.equal(conv(video), conv(video, enable_time=False))


def test_a_kernel_of_one_keeps_a_larger_temporal_kernel():
    assert PseudoConv3d(3, 5, 1).temporal_conv is None
    assert PseudoConv3d(3, 5, 1, temporal_kernel_size=3).temporal_conv.kernel_size == (3, 1)
    assert PseudoConv3d(3, 5, 3, temporal_kernel_size=1).temporal_conv.kernel_size == (1, 1)


@pytest.mark.parametrize("temporal", [2, 3, 4])
@pytest.mark.parametrize("changed", [1, 3, 5])
def test_causal_leaves_earlier_frames_alone_bit_for_bit(temporal, changed):
    conv = randomize(PseudoConv3d(3, 5, temporal_kernel_size=temporal, causal=True))
    video = torch.randn(2, 3, 6, 7, 9)
    other = video.clone()
    other[:, :, changed] += 1
    before, after = conv(video), conv(other)
    assert torch.equal(before[:, :, :changed], after[:, :, :changed])
    assert not torch.equal(before[:, :, changed], after[:, :, changed])
    assert torch.equal(before[:, :, changed + temporal :], after[:, :, changed + temporal :])


@pytest.mark.parametrize("groups", [2, 3, 6])
@pytest.mark.parametrize("causal", [True, False])
def test_groups_are_convolutions_of_their_own(groups, causal):
    around = frames_around(3, causal)
    conv = randomize(temporal_conv(6, around, groups))
    video = torch.randn(2, 6, 5, 3, 4)
    outs = []
    for weight, bias, part in zip(
        conv.weight.chunk(groups), conv.bias.chunk(groups), video.chunk(groups, 1), strict=True
    ):
        one = temporal_conv(6 // groups, around)
        one.load_state_dict({"weight": weight, "bias": bias})
        outs.append(convolve(one, part, around))
    torch.testing.assert_close(convolve(conv, video, around), torch.cat(outs, 1))


@pytest.mark.parametrize(
    "arguments",
    [
        dict(kernel_size=(3, 1), padding=(1, 0)),
        dict(kernel_size=(3, 1), padding=(5, 0)),
        dict(kernel_size=(3, 1), padding="same", bias=False),
        dict(kernel_size=(2, 3), padding=(1, 1), stride=(2, 1)),
        dict(kernel_size=(3, 1), dilation=(2, 1), padding=(1, 0)),
        dict(kernel_size=(3, 1), padding=(1, 0), padding_mode="circular"),
        dict(kernel_size=(1, 1)),
    ],
    ids=str,
)
def test_it_is_a_conv2d_whatever_its_arguments(arguments):
    """An adapter builds further ones, by the class of what it is put around."""
    ours = TemporalConv(4, 6, **arguments)
    theirs = nn.Conv2d(4, 6, **arguments)
    theirs.load_state_dict(ours.state_dict())
    for shape in [(2, 4, 7, 5), (4, 7, 5)]:
        x, same = torch.randn(shape, requires_grad=True), None
        same = x.detach().clone().requires_grad_()
        torch.testing.assert_close(ours(x), theirs(same))
        for conv, given in ((ours, x), (theirs, same)):
            conv.zero_grad()
            conv(given).square().sum().backward()
        torch.testing.assert_close(x.grad, same.grad)
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_it_says_whether_it_is_causal():
    assert "(causal=True" in repr(PseudoConv3d(3, causal=True)).replace("\n", "").replace(" ", "")
    assert "causal" not in repr(PseudoConv3d(3))


def test_images_keep_the_memory_format_in_which_they_came():
    """There is nothing to convert for one convolution."""
    for kernel in (3, 2):
        conv, image = PseudoConv3d(3, 5, kernel), torch.randn(2, 3, 6, 7)
        last = image.contiguous(memory_format=torch.channels_last)
        assert conv(image).is_contiguous()
        assert conv(last).is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(conv(image), conv(last))
        video = image.unsqueeze(2)
        assert torch.equal(conv(video), conv(image).unsqueeze(2))


@pytest.mark.parametrize("causal", [True, False])
def test_gradients(causal):
    conv = randomize(PseudoConv3d(2, 3, temporal_kernel_size=2, causal=causal)).double()
    video = torch.randn(1, 2, 3, 2, 4).double().requires_grad_()
    names, parameters = zip(*conv.named_parameters(), strict=True)

    def call(video, *parameters):
        return torch.func.functional_call(conv, dict(zip(names, parameters, strict=True)), video)

    assert torch.autograd.gradcheck(call, (video, *parameters))
