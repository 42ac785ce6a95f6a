"""The loss of what is held out is the same however many processes measure it."""

import pytest
import torch
from building import Encoders
from clips import MovingDigits
from diffusers import DDPMScheduler
from evaluation import held_out_losses, timesteps_of
from processes import join

from make_a_video_pytorch import SpaceTimeUnet
from tests.zoo import randomize


class Process:
    """One of many, which does not know the others."""

    def __init__(self, index, count):
        self.process_index, self.num_processes = index, count
        self.device, self.autocast = torch.device("cpu"), join("cpu").autocast

    def reduce(self, value, reduction):
        return value


def measured(index, count, frames=4):
    unet = SpaceTimeUnet(
        dim=4, channels=1, dim_mult=(1,), self_attns=(False,), temporal_compression=(False,),
        resnet_block_depths=(1,), cond_dim=10,
    )  # fmt: skip
    torch.manual_seed(0)
    found = held_out_losses(
        randomize(unet, 0.1), Encoders(None, None), None,
        MovingDigits(8, held_out=True), Process(index, count), frames=frames, device="cpu",
    )  # fmt: skip
    return list(found.values())


@pytest.mark.parametrize("frames", [1, 4], ids=["images", "clips"])
def test_many_processes_measure_what_one_does(frames):
    alone = measured(0, 1, frames)
    for count in (2, 4, 3, 16):  # which eight clips can be shared by, and not
        each = torch.tensor([measured(index, count, frames) for index in range(min(count, 4))])
        assert each.mean(0).tolist() == pytest.approx(alone, rel=1e-5)
    assert measured(0, 1, frames) == alone


def test_the_levels_are_in_the_middle_of_eighths():
    assert timesteps_of(DDPMScheduler(num_train_timesteps=16)) == [1, 3, 5, 7, 9, 11, 13, 15]
