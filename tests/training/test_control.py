"""A branch that is trained for a minute on outlines: samples follow them."""

from functools import partial

import torch
from control import controlled, outlines
from diffusion import psnr, sample

from make_a_video_pytorch import ControlBranch
from tests.training.digits import held_out, noise, small_unet, train


def test_samples_follow_the_outlines_and_the_unet_stays_as_it_was():
    unet = train(small_unet(), range(200), lambda unet, *_: unet, batch=32, frames=1).train()
    unet = train(unet, range(200, 350), lambda unet, *_: unet, lr=2e-3).requires_grad_(False)
    before = {name: value.clone() for name, value in unet.state_dict().items()}

    branch = ControlBranch.from_unet(unet, cond_channels=1)
    branch = train(
        branch, range(500), lambda branch, x, _: partial(controlled, unet, branch, outlines(x))
    )
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())

    truth = held_out(32)
    drawn = outlines(truth)
    followed = sample(partial(controlled, unet, branch, drawn), noise(truth.shape), 10, "cpu")
    without = sample(unet, noise(truth.shape), 10, "cpu")
    print(f"with outlines {psnr(followed, truth):.1f} dB, without {psnr(without, truth):.1f} dB")
    assert psnr(followed, truth) > psnr(without, truth) + 6
    # not those of another clip
    assert psnr(followed, truth) > psnr(followed, truth.roll(1, 0)) + 6
