import pytest
import torch

from tests.cascade.small import Told, decoder


def test_it_makes_its_frames_from_noise_and_is_told_the_conditions():
    model = Told(0.3)
    stage = decoder(model, frames=5)
    cond = torch.randn(3, 4)
    video = stage(batch=3, cond=cond, fps=8)
    torch.testing.assert_close(video, torch.full((3, 2, 5, 4, 6), 0.3))
    assert len(model.calls) == stage.steps
    assert model.calls[0].keys() == {"x", "timestep", "cond", "fps"}
    assert torch.equal(model.calls[0]["cond"], cond)
    assert stage.frames_of(99) == 5


def test_it_learns_from_clips_of_its_size():
    x, told = decoder(Told()).example(torch.randn(3, 2, 5, 9, 7))
    assert x.shape == (3, 2, 5, 4, 6)
    assert told == {}


def test_nothing_comes_before_it():
    with pytest.raises(ValueError, match=r"`video` \(shape \(1, 2, 3, 4, 6\)\) must be left out"):
        decoder(Told())(torch.zeros(1, 2, 3, 4, 6))
    with pytest.raises(ValueError, match=r"`channels` \(=0\) must be at least 1"):
        decoder(Told(), channels=0)


def test_nothing_is_before_it():
    assert decoder(Told()).before(torch.randn(1, 2, 3, 4, 6)) is None
