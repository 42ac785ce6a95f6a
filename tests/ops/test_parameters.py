import copy

import torch
from torch import nn

from make_a_video_pytorch import (
    PseudoConv3d,
    SpaceTimeUnet,
    SpatioTemporalAttention,
    spatial_parameters,
    temporal_parameters,
)
from tests.zoo import EVERY, UNET, each

PARTS = (
    "temporal_conv",
    "temporal_attn",
    "temporal_rel_pos_bias",
    "token_shift",
    "down_time",
    "up_time",
    "to_fps_cond",
)


@each(EVERY)
def test_the_two_lists_are_disjoint_and_complete(entry):
    module = entry.build()
    temporal, spatial = temporal_parameters(module), spatial_parameters(module)
    assert len({*temporal, *spatial}) == len(temporal) + len(spatial)
    assert {*temporal, *spatial} == set(module.parameters())
    names = dict(map(reversed, module.named_parameters()))
    for parameter in temporal:
        assert any(part in names[parameter] for part in PARTS), names[parameter]
    for parameter in spatial:
        assert not any(part in names[parameter] for part in PARTS), names[parameter]


def test_of_a_module_built_from_these_and_others():
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = PseudoConv3d(3, 4)
            self.again = self.conv  # shared: listed once
            self.head = nn.Linear(4, 2)

    mine = Mine()
    assert temporal_parameters(mine) == list(mine.conv.temporal_conv.parameters())
    assert spatial_parameters(mine) == [
        *mine.conv.spatial_conv.parameters(),
        *mine.head.parameters(),
    ]
    assert temporal_parameters(nn.Linear(2, 2)) == []


def test_of_parts_and_of_copies():
    attn = SpatioTemporalAttention(8)
    assert temporal_parameters(attn.temporal_attn) == list(attn.temporal_attn.parameters())
    assert temporal_parameters(attn.temporal_attn.to_q) == [attn.temporal_attn.to_q.weight]
    assert temporal_parameters(attn.spatial_attn) == []
    assert len(temporal_parameters(copy.deepcopy(attn))) == len(temporal_parameters(attn))


def test_what_is_put_around_a_temporal_part_is_temporal():
    class Adapted(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.base_layer, self.scale = inner, nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * self.base_layer(x)

    unet = SpaceTimeUnet(**UNET)
    unet.conv_in.temporal_conv = Adapted(unet.conv_in.temporal_conv)
    unet.conv_in.spatial_conv = Adapted(unet.conv_in.spatial_conv)
    unet.mid_attn.temporal_attn.to_q = Adapted(unet.mid_attn.temporal_attn.to_q)
    temporal, spatial = temporal_parameters(unet), spatial_parameters(unet)
    assert {*temporal, *spatial} == set(unet.parameters())
    for adapted in (unet.conv_in.temporal_conv, unet.mid_attn.temporal_attn.to_q):
        assert set(adapted.parameters()) <= set(temporal)
    assert set(unet.conv_in.spatial_conv.parameters()) <= set(spatial)
    unet(torch.randn(1, 3, 8, 12), 5).square().mean().backward()
    assert all(p.grad is None for p in temporal)


def test_a_frozen_image_model_learns_motion_only():
    unet = SpaceTimeUnet(**UNET)
    for parameter in spatial_parameters(unet):
        parameter.requires_grad_(False)
    image, video = torch.randn(1, 3, 8, 12), torch.randn(1, 3, 4, 8, 12)
    before = unet(image, 5)
    optimizer = torch.optim.AdamW(temporal_parameters(unet), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        unet(video, 5).square().mean().backward()
        optimizer.step()
    assert torch.equal(unet(image, 5), before)
    assert not torch.allclose(unet(video, 5), unet(video, 5, enable_time=False), atol=1e-3)
