"""Loss and optimizer of the examples."""

import diffusion
import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet


def test_weight_decay_spares_norms_biases_and_temporal_parts():
    unet = SpaceTimeUnet(dim=4)
    groups = diffusion.optimizer_for(unet).param_groups
    names = dict(map(reversed, unet.named_parameters()))
    (decayed,) = [group for group in groups if group["weight_decay"] > 0]
    for parameter in decayed["params"]:
        assert parameter.ndim > 1
        assert "temporal" not in names[parameter]
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_the_signal_to_noise_ratio_is_that_of_its_definition():
    truth = torch.rand(2, 1, 3, 4, 4) * 2 - 1
    assert diffusion.psnr(truth + 0.2, truth) == pytest.approx(20.0)  # 2^2 / 0.2^2 = 100
