import copy

import pytest
import torch
from torch import nn

from make_a_video_pytorch import SpaceTimeUnet
from tests.zoo import CONDITIONS, EXTRA, UNET, randomize

CLIP = (2, 3, 4, 8, 12)
NO_BIAS = dict(attn_pos_bias=False)

GROWTHS = {
    "cond_channels": ({}, dict(cond_channels=2), ("cond_images",)),
    "more cond_channels": (dict(cond_channels=2), dict(cond_channels=6), ()),
    "channels_out": ({}, dict(channels_out=6), ()),
    "cond_dim": ({}, dict(cond_dim=4), ("cond",)),
    "more cond_dim": (dict(cond_dim=2), dict(cond_dim=4), ()),
    "context_dim": ({}, dict(context_dim=6), ("context", "context_mask")),
    "condition_on_fps": ({}, dict(condition_on_fps=True), ("fps",)),
    "condition_on_noise_level": ({}, dict(condition_on_noise_level=True), ("noise_level",)),
    "attn_pos_bias": (NO_BIAS, dict(attn_pos_bias=True), ()),
    "self_attns": ({}, dict(self_attns=[True, True]), ()),
    "resnet_block_depths": ({}, dict(resnet_block_depths=(2, 2)), ()),
    "compressed": (dict(temporal_compression=(True, False)), dict(cond_channels=2), ()),
    "everything": (
        NO_BIAS,
        dict(**CONDITIONS, attn_pos_bias=True, self_attns=(1, 1), resnet_block_depths=(2, 3)),
        ("cond", "context", "fps", "noise_level", "cond_images"),
    ),
}


@pytest.mark.parametrize("name", GROWTHS)
def test_a_grown_unet_gives_the_same_outputs_and_learns(name):
    before, updates, takes = GROWTHS[name]
    unet = randomize(SpaceTimeUnet(**{**UNET, **before}), 0.2)
    extra = {k: EXTRA[k]() for k in takes}
    old = {}
    if "cond_channels" in before:
        old["cond_images"] = EXTRA["cond_images"]()
        more = torch.randn(2, 4, 8, 12)
        extra["cond_images"] = torch.cat((old["cond_images"], more), dim=1)
    if "cond_dim" in before:
        old["cond"], extra["cond"] = EXTRA["cond"]()[:, :2], EXTRA["cond"]()
    grown = unet.grow(**updates)
    for x in (torch.randn(CLIP), torch.randn(2, 3, 8, 12)):
        out = grown(x, 5, **extra)
        torch.testing.assert_close(out[:, :3], unet(x, 5, **old), rtol=1e-4, atol=1e-5)
        assert not out[:, 3:].any()
    grown.zero_grad()
    out = grown(torch.randn(CLIP), 5, **extra)
    (out * torch.randn_like(out)).sum().backward()
    old_shapes = {k: v.shape for k, v in unet.named_parameters()}
    learns = {
        k: p.grad is not None and bool(p.grad.any())
        for k, p in grown.named_parameters()
        if old_shapes.get(k) != p.shape
    }
    # each new part has at least one weight that moves on the first step
    assert any(learns.values()), learns
    weights = {
        "cond_dim": "to_cond.weight", "condition_on_fps": "to_fps_cond.1.weight",
        "condition_on_noise_level": "to_noise_level_cond.1.weight",
    }  # fmt: skip
    for key in updates.keys() & weights.keys():
        assert learns[weights[key]]


@pytest.mark.parametrize("cond_dim", [None, 4])
def test_a_unet_without_a_timestep_grows_one(cond_dim):
    unet = SpaceTimeUnet(**UNET, condition_on_timestep=False, cond_dim=cond_dim)
    randomize(unet, 0.2)
    grown = unet.grow(condition_on_timestep=True)
    video = torch.randn(CLIP)
    torch.testing.assert_close(grown(video, 811), unet(video), rtol=1e-4, atol=1e-5)
    grown(video, 811).square().sum().backward()
    assert grown.to_timestep_cond[1].weight.grad.any()


def test_growing_keeps_dtype_mode_and_frozen_parameters_and_leaves_the_old_one_alone():
    unet = SpaceTimeUnet(**UNET).double().eval()
    unet.mid_attn.requires_grad_(False)
    state = copy.deepcopy(unet.state_dict())
    grown = unet.grow(cond_channels=4)
    assert not grown.training
    assert grown.conv_in.spatial_conv.weight.dtype == torch.float64
    assert not any(p.requires_grad for p in grown.mid_attn.parameters())
    assert grown.mid_block1.block1.norm.gamma.requires_grad
    assert all(torch.equal(state[k], v) for k, v in unet.state_dict().items())
    with torch.no_grad():
        grown.mid_block1.block1.norm.gamma.zero_()
    assert unet.mid_block1.block1.norm.gamma.any()
    assert grown.config == {**unet.config, "cond_channels": 4}


def test_a_unet_is_built_again_from_its_config():
    unet = SpaceTimeUnet(**{**UNET, "dim_mult": [1, 2]}, **CONDITIONS)
    assert unet.config["dim_mult"] == (1, 2)
    assert unet.config["dim"] == 5
    again = SpaceTimeUnet(**unet.config)
    again.load_state_dict(unet.state_dict())
    assert again.config == unet.config


@pytest.mark.parametrize(
    "update",
    [
        dict(dim=6),
        dict(channels=4),
        dict(dim_mult=(1, 3)),
        dict(causal=True),
        dict(attn_rotary=True),
        dict(attn_heads=4),
        dict(temporal_window=2),
        dict(temporal_compression=(True, False)),
        dict(cond_channels=1),
        dict(cond_dim=None),
        dict(cond_dim=3),
        dict(channels_out=3),
        dict(context_dim=7),
        dict(condition_on_fps=False),
        dict(condition_on_noise_level=False),
        dict(self_attns=(False, False)),
        dict(resnet_block_depths=(1, 1)),
        dict(condition_on_timestep=False),
    ],
    ids=str,
)
def test_what_would_change_the_outputs_is_refused(update):
    unet = SpaceTimeUnet(**UNET, **CONDITIONS)
    (name,) = update
    with pytest.raises(
        ValueError, match=rf"`{name}` \(=.*\) cannot grow from .* not stay the same"
    ):
        unet.grow(**update)


def test_what_is_no_argument_is_refused():
    with pytest.raises(TypeError, match="cond_chanels"):
        SpaceTimeUnet(**UNET).grow(cond_chanels=4)
    with pytest.raises(TypeError, match="self_attns"):
        SpaceTimeUnet(**UNET).grow(self_attns=True)
    with pytest.raises(ValueError, match=r"`resnet_block_depths` \(=.*\) must have 2 entries"):
        SpaceTimeUnet(**UNET).grow(resnet_block_depths=(1, 2, 1))


def test_growing_keeps_every_bit_of_float64_and_a_part_of_its_own_dtype():
    unet = randomize(SpaceTimeUnet(**UNET).double(), 0.2)
    video = torch.randn(CLIP, dtype=torch.float64)
    grown = unet.grow(cond_channels=4)
    torch.testing.assert_close(grown(video, 5), unet(video, 5), rtol=1e-12, atol=1e-12)
    weights = dict(grown.named_parameters())
    assert all(
        torch.equal(weights[name], p)
        for name, p in unet.named_parameters()
        if weights[name].shape == p.shape
    )
    half = SpaceTimeUnet(**UNET).half()
    half.mid_attn.float()
    grown = half.grow(cond_channels=4)
    assert all(p.dtype == torch.float32 for p in grown.mid_attn.parameters())
    assert grown.conv_in.spatial_conv.weight.dtype == torch.float16


def test_frozen_tensors_that_grow_can_learn():
    unet = SpaceTimeUnet(**UNET).requires_grad_(False)
    grown = unet.grow(cond_channels=4, channels_out=6)
    learn = {name for name, p in grown.named_parameters() if p.requires_grad}
    assert learn == {
        "conv_in.spatial_conv.weight",
        "conv_out.spatial_conv.weight",
        "conv_out.spatial_conv.bias",
        "conv_out.temporal_conv.weight",
        "conv_out.temporal_conv.bias",
    }


@pytest.mark.parametrize("name", ["mid_block1", "mid_attn", "mid_attn.ff", "conv_in.spatial_conv"])
def test_what_is_wrapped_cannot_be_grown(name):
    unet = SpaceTimeUnet(**UNET)
    parent, _, child = name.rpartition(".")
    setattr(unet.get_submodule(parent), child, nn.Sequential(unet.get_submodule(name)))
    with pytest.raises(ValueError, match=rf"`{name}` \(a Sequential\) must be a \w+ to be grown"):
        unet.grow(cond_channels=1)
