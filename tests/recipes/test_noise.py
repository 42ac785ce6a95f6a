"""Noise that frames share."""

import math

import pytest
import torch

from make_a_video_pytorch.recipes import mixed_noise, progressive_noise


@pytest.mark.parametrize("alpha", [0, 0.5, 1, 2])
def test_mixed_noise_is_normal_and_shared(alpha):
    noise = mixed_noise((400, 2, 5, 4, 4), alpha, generator=torch.Generator().manual_seed(0))
    frames = noise.transpose(0, 2).flatten(1)
    share = alpha**2 / (1 + alpha**2)
    expected = torch.full((5, 5), share) + torch.eye(5) * (1 - share)
    torch.testing.assert_close(torch.cov(frames), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("alpha", [0, 0.5, 2])
def test_progressive_noise_is_normal_and_forgets(alpha):
    noise = progressive_noise((400, 2, 5, 4, 4), alpha, generator=torch.Generator().manual_seed(0))
    frames = noise.transpose(0, 2).flatten(1)
    ratio = alpha / (1 + alpha**2) ** 0.5
    distance = (torch.arange(5) - torch.arange(5)[:, None]).abs()
    torch.testing.assert_close(torch.cov(frames), ratio**distance, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mixed_noise((2, 3, 4, 4)), r"`shape` \(=\(2, 3, 4, 4\)\) must be that of a video"),
        (lambda: mixed_noise((2, 3, 4, 4, 4), -1), r"`alpha` \(=-1\) must be at least 0"),
        (lambda: mixed_noise((2, 3, 4, 4, 4), math.inf), r"`alpha` \(=inf\) must be .* finite"),
        (lambda: progressive_noise((2, 3, 0, 4, 4)), r"`shape` \(=\(2, 3, 0, 4, 4\)\) must be"),
    ],
)
def test_wrong_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
