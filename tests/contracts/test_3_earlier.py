"""Contract 3: checkpoints of 1.0.0 load here, and give its outputs."""

import pytest
import torch
from torch import nn

from tests.zoo import EVERY, as_in_1_0_0, each, randomize


@each(EVERY)
@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_loads_and_gives_the_same(entry, assign):
    module, other = randomize(entry.build()), entry.build()
    old = as_in_1_0_0(module.state_dict())
    before = {name: tensor.clone() for name, tensor in old.items()}
    other.load_state_dict(old, strict=True, assign=assign)
    video = entry.video()
    for x in (video, video[:, :, 0]):
        assert torch.equal(other(x, **entry.extra()), module(x, **entry.extra()))
    assert list(old) == list(before)  # what was given is as it was
    assert all(torch.equal(old[name], tensor) for name, tensor in before.items())
    assert {name: p.shape for name, p in other.named_parameters()} == {
        name: p.shape for name, p in module.named_parameters()
    }


def test_a_checkpoint_loads_inside_another_module():
    module = nn.ModuleDict({"unet": randomize(EVERY["unet-conditions"].build())})
    other = nn.ModuleDict({"unet": EVERY["unet-conditions"].build()})
    other.load_state_dict(as_in_1_0_0(module.state_dict()), strict=True)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, module.state_dict()[name])
