import pytest
import torch
import torch.nn.functional as F

from make_a_video_pytorch import ResnetBlock
from make_a_video_pytorch.modules.resnet import Block
from tests.zoo import randomize


def normed(x, gamma):
    return x / x.square().mean(1, keepdim=True).sqrt() * gamma[:, None, None, None]


@pytest.mark.parametrize("dim_out", [3, 5])
@pytest.mark.parametrize("cond_dim", [None, 4])
def test_equals_its_parts_written_out(dim_out, cond_dim):
    block = randomize(ResnetBlock(3, dim_out, timestep_cond_dim=cond_dim)).double()
    video = torch.randn(2, 3, 4, 5, 6).double()
    emb = None if cond_dim is None else torch.randn(2, cond_dim).double()

    out = normed(block.block1.project(video), block.block1.norm.gamma)
    if emb is not None:
        linear = block.timestep_mlp[1]
        scale, shift = (F.silu(emb) @ linear.weight.T + linear.bias)[..., None, None, None].chunk(
            2, 1
        )
        out = out * (scale + 1) + shift
    out = F.silu(normed(block.block2.project(F.silu(out)), block.block2.norm.gamma))
    skip = video if dim_out == 3 else block.res_conv(video)
    torch.testing.assert_close(block(video, emb), out + skip)


def test_a_block_takes_its_kernel_sizes():
    block = Block(3, 4, 5, 2)
    assert block.project.spatial_conv.kernel_size == (5, 5)
    assert block.project.temporal_conv.kernel_size == (2, 1)
    assert block(torch.randn(1, 3, 4, 5, 6)).shape == (1, 4, 4, 5, 6)


def test_a_block_scales_and_shifts_images_and_videos():
    block = Block(3, 4)
    for x in (torch.randn(2, 3, 5, 6), torch.randn(2, 3, 4, 5, 6)):
        ones = torch.ones(2, 4, *[1] * (x.ndim - 2))
        torch.testing.assert_close(block(x, (0 * ones, 0 * ones)), block(x))
        expected = F.silu(block.norm(block.project(x)) * 3 + 0.5)
        torch.testing.assert_close(block(x, (2 * ones, 0.5 * ones)), expected)


@pytest.mark.parametrize("name", ["norm", "act"])
@pytest.mark.parametrize("module", [torch.nn.Identity(), torch.nn.Sigmoid()])
def test_a_norm_or_activation_that_was_replaced_runs(name, module):
    block = ResnetBlock(3, 3, timestep_cond_dim=2)
    setattr(block.block1, name, module)
    video, emb = torch.randn(2, 3, 4, 5, 6, requires_grad=True), torch.randn(2, 2)
    scale, shift = block.timestep_mlp(emb)[..., None, None, None].chunk(2, dim=1)
    inner = block.block1.norm(block.block1.project(video)) * (scale + 1) + shift
    expected = block.block2(block.block1.act(inner)) + video
    torch.testing.assert_close(block(video, emb), expected)
    block(video, emb).sum().backward()


def test_a_block_takes_whatever_scale_and_shift_broadcast():
    block = Block(3, 5)
    for x, shape in (
        (torch.randn(2, 3, 4, 6), (2, 5, 1, 1)),
        (torch.randn(2, 3, 4, 6), (5, 1, 1)),
        (torch.randn(2, 3, 2, 4, 6), (2, 5, 2, 1, 1)),
        (torch.randn(2, 3, 2, 4, 6), (6,)),
        (torch.randn(1, 3, 4, 6), (2, 5, 1, 1)),
    ):
        scale, shift = torch.randn(2, *shape, requires_grad=True).unbind()
        out = block(x, (scale, shift))
        normed = block.norm(block.project(x))
        torch.testing.assert_close(out, F.silu(normed * (scale + 1) + shift))
        out.sum().backward()
