from typing import ClassVar

import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.cascade.asked import count_of, place_of, taken_by
from tests.zoo import UNET


def test_how_many_videos_there_are_is_said_in_one_way():
    assert count_of(None, {"fps": 8, "cond": None, "scale": torch.tensor(2.0)}) == 1
    assert count_of(3, {}) == 3
    assert count_of(None, {"text": ["a", "b"], "cond": torch.zeros(2, 5)}) == 2
    with pytest.raises(ValueError, match=r"`text`, `cond` must be of as many videos: .*'cond': 3"):
        count_of(None, {"text": ["a", "b"], "cond": torch.zeros(3, 5)})


def test_where_to_compute_is_where_the_model_is():
    unet = SpaceTimeUnet(**UNET).to("meta", torch.float16)
    assert place_of(unet, None, None) == (torch.device("meta"), torch.float16)
    assert place_of(unet, "cpu", torch.float64) == ("cpu", torch.float64)
    assert place_of(print, None, None) == ("cpu", torch.float32)
    quantised = torch.nn.Module()
    quantised.weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)
    assert place_of(quantised, None, None) == (torch.device("cpu"), torch.float32)


def test_conditions_are_those_that_a_model_is_built_for_by_the_names_that_it_has():
    class Diffusers(torch.nn.Module):
        config: ClassVar = {"cond_dim": 3, "context_dim": 4, "condition_on_fps": False}

        def forward(self, sample, timestep, encoder_hidden_states=None):
            pass

    assert taken_by(Diffusers()) == ("cond", "encoder_hidden_states", "encoder_attention_mask")
    assert taken_by(SpaceTimeUnet(**UNET)) == ()
    assert taken_by(print) == ("cond", "context", "context_mask", "fps")
