"""What is random in a step follows from seed, step and sample."""

import pytest
import torch
from draws import Draws, noise_of


def test_the_frames_of_a_video_share_noise_and_each_is_standard_normal():
    noise = noise_of((64, 1, 3, 16, 16), torch.Generator().manual_seed(0))
    frames = noise.transpose(0, 2).flatten(1)
    torch.testing.assert_close(
        frames @ frames.T / frames.shape[1], 0.8 + 0.2 * torch.eye(3), rtol=0, atol=0.03
    )


@pytest.mark.parametrize("shape", [(6, 2, 5, 7), (6, 2, 3, 5, 7)], ids=["images", "clips"])
def test_the_shares_of_a_step_together_are_the_step(shape):
    """Whatever was drawn before, in whatever order, as long as all draw alike."""

    def drawn(count, *share):
        draws = Draws(3, 5, *share)
        return (
            draws.uniform(count),
            draws.noise((count, *shape[1:])),
            draws.integers(1000, count),
            draws.noise((count, *shape[1:])),
        )

    whole = drawn(6)
    for shares in (2, 3, 6):
        parts = [drawn(6 // shares, share, shares) for share in range(shares)]
        for one, *others in zip(whole, *parts, strict=True):
            assert torch.equal(one, torch.cat(others))
    assert not torch.equal(whole[1], whole[3])
    assert not torch.equal(whole[1][0], whole[1][1])


def test_other_steps_and_seeds_draw_otherwise():
    noise = [Draws(seed, step).noise((1, 1, 4, 4)) for seed, step in ((0, 0), (0, 1), (1, 0))]
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0], noise[2])
