"""Contract 2: at first the temporal parts do nothing, and then they learn."""

import pytest
import torch
from torch import nn

from make_a_video_pytorch import SpaceTimeUnet, temporal_parameters
from make_a_video_pytorch.ops.parameters import zero_init
from tests.zoo import EVERY, IDENTITY, RESAMPLING, each, randomize


@each(IDENTITY)
@pytest.mark.parametrize("batch", [1, 2])
def test_at_first_time_changes_no_bit(entry, batch):
    module, video = entry.build(), entry.video()[:batch]
    extra = {name: value[:batch] for name, value in entry.extra().items()}
    out = module(video, **extra)
    assert torch.equal(out, module(video, enable_time=False, **extra))
    assert out.abs().sum() > 0


@pytest.mark.parametrize("seed", range(12))
def test_a_timestep_for_all_and_frames_per_second_change_no_bit(seed):
    """In this size a Linear rounds an expanded embedding otherwise than a sum."""
    torch.manual_seed(seed)
    unet = SpaceTimeUnet(
        dim=10, dim_mult=(3,), self_attns=(True,), temporal_compression=(False,),
        resnet_block_depths=(2,), attn_dim_head=16, attn_heads=2, condition_on_fps=True,
    )  # fmt: skip
    video = torch.randn(3, 3, 2, 6, 4)
    for timestep in (5, torch.tensor([5]), torch.tensor([[1, 2], [3, 4], [5, 6]])):
        for fps in (8.0, torch.tensor([8.0, 9.0, 10.0])):
            out = unet(video, timestep, fps=fps)
            assert torch.equal(out, unet(video, timestep, fps=fps, enable_time=False))
            assert torch.equal(out, unet(video, timestep, enable_time=False))


@each({name: entry for name, entry in IDENTITY.items() if name not in ("down-space", "up-space")})
def test_with_other_weights_time_changes_the_output(entry):
    """So that the test above is one of the initialisation, not of parts left out."""
    module = randomize(entry.build())
    video = entry.video()
    difference = module(video, **entry.extra()) - module(video, enable_time=False, **entry.extra())
    assert difference.abs().max() > 1e-3


@each(IDENTITY)
def test_spatial_weights_of_an_image_model_keep_the_identity(entry):
    """An image phase trains the spatial parts, whatever their weights become."""
    module = entry.build()
    temporal = set(temporal_parameters(module))
    for parameter in module.parameters():
        if parameter not in temporal:
            nn.init.normal_(parameter, 0, 0.3)
    video = entry.video()
    out = module(video, **entry.extra())
    assert torch.equal(out, module(video, enable_time=False, **entry.extra()))


@each(EVERY)
def test_a_still_clip_gives_the_images_output_in_every_frame(entry):
    module = entry.build()
    image = entry.video()[:, :, 0]
    still = image[:, :, None].expand(entry.shape).contiguous()
    out = module(still, **entry.extra())
    expected = module(image, **entry.extra())[:, :, None].expand_as(out)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_frames_are_averaged_down_and_repeated_up():
    video = EVERY["down-time"].video()
    down = EVERY["down-time"].build()(video)
    torch.testing.assert_close(down, (video[:, :, ::2] + video[:, :, 1::2]) / 2)
    up = EVERY["up-time"].build()(down)
    assert torch.equal(up, down.repeat_interleave(2, dim=2))


@each(EVERY)
def test_images_train_no_temporal_parameter(entry):
    module = randomize(entry.build())
    image = entry.video(requires_grad=True)[:, :, 0]
    module(image, **entry.extra()).square().sum().backward()
    temporal = set(temporal_parameters(module))
    for name, parameter in module.named_parameters():
        assert (parameter.grad is None) == (parameter in temporal), name


@each(EVERY)
def test_the_first_video_steps_train_every_parameter(entry):
    """A zero projection hides what is behind it for one step, no longer."""
    module = entry.build()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-2)
    video, target = entry.video(), None
    for _ in range(2):
        optimizer.zero_grad()
        out = module(video, **entry.extra())
        target = torch.randn_like(out) if target is None else target
        (out - target).square().mean().backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
        optimizer.step()
    unmoved = [name for name, p in module.named_parameters() if not p.grad.abs().sum() > 0]
    # The last bias of a position bias adds the same to every score, which softmax drops.
    unmoved = [name for name in unmoved if not name.endswith("rel_pos_bias.net.2.bias")]
    if entry is RESAMPLING["unet-to-one-frame"]:  # softmax over one frame hides its scores
        unmoved = [name for name in unmoved if "mid_attn.temporal" not in name]
    assert unmoved == []


@each({name: entry for name, entry in RESAMPLING.items() if "unet" in name})
def test_compression_is_no_identity_on_a_moving_clip(entry):
    module, video = entry.build(), entry.video()
    out = module(video, **entry.extra())
    assert not torch.equal(out, module(video, enable_time=False, **entry.extra()))


def test_zero_init_zeroes_and_returns_the_layer():
    layer = nn.Linear(3, 5)
    assert zero_init(layer) is layer
    assert not any(p.any() for p in layer.parameters())
