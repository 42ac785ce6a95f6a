import pytest
import torch

from make_a_video_pytorch import Downsample, Upsample
from tests.zoo import randomize

VIDEO = (2, 3, 4, 6, 10)


@pytest.mark.parametrize("nonlin", [True, False])
def test_downsampling_projects_each_patch_and_each_pair(nonlin):
    down = randomize(Downsample(3, downsample_time=True, nonlin=nonlin)).double()
    act = torch.nn.SiLU() if nonlin else torch.nn.Identity()
    video = torch.randn(VIDEO).double()
    halves = []
    for frame in video.unbind(2):
        corners = [frame[..., p::2, q::2] for p in (0, 1) for q in (0, 1)]
        halves.append(
            act(torch.einsum("oi,bihw->bohw", down.down_space[1].weight, torch.cat(corners, 1)))
        )
    pairs = [torch.cat(pair, 1) for pair in zip(halves[::2], halves[1::2], strict=True)]
    expected = [
        act(torch.einsum("oi,bihw->bohw", down.down_time[1].weight, pair)) for pair in pairs
    ]
    torch.testing.assert_close(down(video), torch.stack(expected, 2))


@pytest.mark.parametrize("nonlin", [True, False])
def test_upsampling_gives_each_patch_and_each_pair_its_own_projection(nonlin):
    up = randomize(Upsample(3, upsample_time=True, nonlin=nonlin)).double()
    act = torch.nn.SiLU() if nonlin else torch.nn.Identity()
    video = torch.randn(VIDEO).double()
    space, over_time = up.up_space[0], up.up_time[0]
    doubled = torch.empty(2, 3, 4, 12, 20).double()
    for index, (p, q) in enumerate((p, q) for p in (0, 1) for q in (0, 1)):
        weight, bias = space.weight.view(4, 3, 3)[index], space.bias.view(4, 3, 1, 1, 1)[index]
        doubled[..., p::2, q::2] = act(torch.einsum("oi,bifhw->bofhw", weight, video) + bias)
    expected = torch.empty(2, 3, 8, 12, 20).double()
    for p in (0, 1):
        weight, bias = over_time.weight.view(2, 3, 3)[p], over_time.bias.view(2, 3, 1, 1, 1)[p]
        expected[:, :, p::2] = act(torch.einsum("oi,bifhw->bofhw", weight, doubled) + bias)
    torch.testing.assert_close(up(video), expected)


def test_the_pixels_of_a_patch_start_equal():
    out = Upsample(3)(torch.randn(2, 3, 5, 7))
    assert torch.equal(out, out[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_one_dimension_alone():
    video = torch.randn(VIDEO)
    assert Downsample(3, False, True)(video).shape == (2, 3, 2, 6, 10)
    assert Downsample(3)(video).shape == (2, 3, 4, 3, 5)
    assert Upsample(3, False, True)(video).shape == (2, 3, 8, 6, 10)
    assert Upsample(3)(video).shape == (2, 3, 4, 12, 20)
    for module in (Downsample(3, False, True), Upsample(3, False, True)):
        assert torch.equal(module(video, enable_time=False), video)


@pytest.mark.parametrize("module", [Downsample, Upsample])
def test_gradients(module):
    layer = randomize(module(2, True, True)).double()
    video = torch.randn(1, 2, 2, 2, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(layer, (video,))
