import pytest
import torch

from make_a_video_pytorch import (
    PseudoConv3d,
    ResnetBlock,
    SpaceTimeUnet,
    SpatioTemporalAttention,
)
from make_a_video_pytorch.unet import stages
from tests.zoo import CONDITIONS, EXTRA, UNET, randomize


def test_calls_known_from_the_original_conv_and_attention():
    conv = PseudoConv3d(dim=256, kernel_size=3)
    attn = SpatioTemporalAttention(dim=256, dim_head=64, heads=8)
    video = torch.randn(1, 256, 8, 16, 16)
    images = torch.randn(1, 256, 16, 16)
    for module in (conv, attn):
        assert module(video).shape == (1, 256, 8, 16, 16)
        assert module(images).shape == (1, 256, 16, 16)
        assert module(video, enable_time=False).shape == (1, 256, 8, 16, 16)


def test_calls_known_from_the_original_unet():
    unet = SpaceTimeUnet(
        dim=16,
        channels=3,
        dim_mult=(1, 2, 4, 8),
        resnet_block_depths=(1, 1, 1, 2),
        temporal_compression=(False, False, False, True),
        self_attns=(False, False, False, True),
        condition_on_timestep=False,
        attn_pos_bias=False,
        flash_attn=True,
    )
    images, video = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 8, 64, 64)
    assert unet(images).shape == images.shape
    assert unet(video).shape == video.shape
    assert unet(video, enable_time=False).shape == video.shape


def test_multiples_are_told():
    unet = SpaceTimeUnet(dim=4)
    assert unet.frame_multiple == 8
    assert unet.image_size_multiple == 16


@pytest.mark.parametrize("changed", [1, 3, 4])
@pytest.mark.parametrize("rotary", [True, False])
def test_causal_leaves_earlier_frames_alone_bit_for_bit(changed, rotary):
    unet = SpaceTimeUnet(**UNET, causal=True, attn_rotary=rotary, attn_pos_bias=not rotary)
    randomize(unet, 0.1)
    video = torch.randn(2, 3, 5, 8, 12)
    other = video.clone()
    other[:, :, changed] += 1
    before, after = unet(video, 9), unet(other, 9)
    assert torch.equal(before[:, :, :changed], after[:, :, :changed])
    assert not torch.equal(before[:, :, changed], after[:, :, changed])
    assert not torch.equal(before[:, :, -1], after[:, :, -1])


def test_causal_attention_alone_leaves_the_convolutions_as_they_were():
    unet = SpaceTimeUnet(**UNET, causal_time_attn=True)
    assert unet.mid_attn.temporal_attn.attend.causal
    assert unet.conv_in.around == (1, 1)
    causal = SpaceTimeUnet(**UNET, causal=True)
    assert causal.mid_attn.temporal_attn.attend.causal
    convs = [m for m in causal.modules() if getattr(m, "temporal_conv", None)]
    assert len(convs) > 10
    assert {conv.around for conv in convs} == {(2, 0)}


def test_each_sample_has_its_own_timestep():
    unet = randomize(SpaceTimeUnet(**UNET), 0.1)
    video = torch.randn(2, 3, 4, 8, 12)
    both = unet(video, torch.tensor([3, 700]))
    for index, timestep in enumerate((3, 700)):
        one = unet(video[index : index + 1], timestep)
        torch.testing.assert_close(both[index : index + 1], one, rtol=1e-4, atol=1e-5)


def test_samples_of_a_batch_do_not_mix():
    unet = randomize(SpaceTimeUnet(**UNET), 0.1)
    video = torch.randn(3, 3, 4, 8, 12, requires_grad=True)
    unet(video, 5)[1].square().sum().backward()
    assert video.grad[1].any()
    assert not video.grad[[0, 2]].any()


def test_every_frame_reaches_every_frame():
    unet = randomize(SpaceTimeUnet(**UNET), 0.1)
    video = torch.randn(1, 3, 6, 8, 12, requires_grad=True)
    for frame in (0, 5):
        (grad,) = torch.autograd.grad(unet(video, 5)[:, :, frame].sum(), video)
        assert all(grad[:, :, f].any() for f in range(6))


def test_skips_are_taken_from_both_ends_of_a_stage():
    unet = SpaceTimeUnet(**UNET)
    resnets = [stage[0] for stage in unet.ups] + [stage[1][0] for stage in unet.ups]
    assert all(isinstance(resnet, ResnetBlock) for resnet in resnets)
    widths = [(stage[0].dim, stage[1][0].dim) for stage in unet.ups]
    assert widths == [(5 + 5, 5 + 5), (10 + 10, 5 + 10)]


def test_gradients():
    unet = SpaceTimeUnet(
        dim=2, channels=1, dim_mult=(1,), self_attns=(True,), temporal_compression=(True,),
        resnet_block_depths=(1,), attn_dim_head=4, attn_heads=2,
    )  # fmt: skip
    randomize(unet, 0.2).double()
    video = torch.randn(1, 1, 2, 2, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: unet(x, 5), (video,), fast_mode=True)


def test_checkpointing_gives_the_same_gradients_and_keeps_less(monkeypatch):
    model = randomize(SpaceTimeUnet(**UNET, **CONDITIONS), 0.2)
    lean = model.grow(gradient_checkpointing=True)
    video, extra = torch.randn(2, 3, 4, 8, 12), {name: make() for name, make in EXTRA.items()}
    weights = {parameter.data_ptr() for m in (model, lean) for parameter in m.parameters()}
    saved = {}

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            saved[tensor.data_ptr()] = tensor.numel()
        return tensor

    def checkpoint(function, video, **kwargs):
        keep(video)  # which the hooks below do not see
        return real_checkpoint(function, video, **kwargs)

    real_checkpoint = stages.checkpoint
    monkeypatch.setattr(stages, "checkpoint", checkpoint)
    kept, grads = [], []
    for m in (model, lean):
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = m(video, **extra).square().mean()
        kept.append(sum(saved.values()))
        loss.backward()
        grads.append([parameter.grad for parameter in m.parameters()])
    for got, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(got, wanted)
    assert kept[1] < kept[0] / 3
    with torch.no_grad():
        assert torch.equal(lean(video, **extra), model(video, **extra))
