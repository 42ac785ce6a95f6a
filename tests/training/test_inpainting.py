"""A U-Net that is trained for two minutes to fill in hidden pixels beats filling by time."""

from functools import partial

import pytest
import torch
from diffusion import sample

from make_a_video_pytorch.recipes import kept_frames
from tests.training.digits import FRAMES, SIZE, held_out, noise, small_unet, train

HIDDEN = 6  # height and width of the box that is hidden in each frame, of 12


def boxes(count, generator):
    """Masks of pixels (b f h w), with a box at a place of its own hidden in each frame."""
    corner = torch.randint(SIZE - HIDDEN + 1, (2, count, FRAMES, 1), generator=generator)
    inside = (torch.arange(SIZE) >= corner) & (torch.arange(SIZE) < corner + HIDDEN)
    return ~(inside[0][..., :, None] & inside[1][..., None, :])


def by_mean(clips, kept):
    """Hidden pixels as the mean over the frames in which they are kept; black if there is none."""
    mask = kept[:, None].to(clips)
    count = mask.sum(2, keepdim=True)
    mean = (clips * mask).sum(2, keepdim=True) / count.clamp(min=1)
    return torch.where(kept[:, None], clips, torch.where(count > 0, mean, -1))


def by_nearest(clips, kept):
    """Hidden pixels as in the nearest frame in which they are kept; black if there is none."""
    frame = torch.arange(FRAMES)
    gaps = (frame[:, None] - frame).abs()[None, :, :, None, None]  # 1 f g 1 1
    gaps = gaps + torch.where(kept, 0, FRAMES)[:, None]  # b f g h w
    found = clips[:, 0].gather(1, gaps.argmin(2))
    found = torch.where(gaps.amin(2) < FRAMES, found, -1)
    return torch.where(kept, clips[:, 0], found)[:, None]


def psnr(clips, truth, kept):
    """In decibels, of the hidden pixels."""
    error = (clips - truth).square()[~kept[:, None]].mean()
    return float(10 * torch.log10(4 / error))


def test_hidden_pixels_are_filled_in_better_than_by_time():
    unet = small_unet(cond_channels=2)

    def beside(unet, clips, draws):
        return partial(unet, cond_images=kept_frames(clips, boxes(len(clips), draws.generator)))

    unet = train(unet, range(1100), beside, most_noise=True)
    truth = held_out(64)
    kept = boxes(64, torch.Generator().manual_seed(3))
    model = partial(unet, cond_images=kept_frames(truth, kept))
    filled = torch.where(kept[:, None], truth, sample(model, noise(truth.shape), 1, "cpu"))
    ours, mean, nearest = (
        psnr(clips, truth, kept)
        for clips in (filled, by_mean(truth, kept), by_nearest(truth, kept))
    )
    print(f"U-Net {ours:.1f} dB, mean over time {mean:.1f} dB, nearest frame {nearest:.1f} dB")
    assert ours > mean + 1
    assert ours > nearest + 1


def test_the_fillings_are_what_they_say():
    clip = torch.arange(FRAMES).float().expand(1, 1, 3, 1, FRAMES).transpose(2, 4).contiguous()
    kept = torch.ones(1, FRAMES, 1, 3, dtype=torch.bool)
    kept[0, [0, 1, 4], 0, 0] = False
    kept[0, :, 0, 1] = False
    mean, nearest = by_mean(clip, kept)[0, 0, :, 0], by_nearest(clip, kept)[0, 0, :, 0]
    middle = (2 + 3 + 5) / 3
    assert mean[:, 0].tolist() == pytest.approx([middle, middle, 2, 3, middle, 5])
    assert nearest[:, 0].tolist() == [2, 2, 2, 3, 3, 5]
    assert mean[:, 1].tolist() == nearest[:, 1].tolist() == [-1] * FRAMES
    assert mean[:, 2].tolist() == nearest[:, 2].tolist() == list(range(FRAMES))
