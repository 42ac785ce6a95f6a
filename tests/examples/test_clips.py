"""Digits that move, and what is written of videos."""

from fractions import Fraction

import av
import clips
import pytest
import torch
from PIL import Image


def test_digits_move_and_keep_their_shape():
    digits = clips.MovingDigits(32)
    videos, names, *_ = digits(6, 5, torch.Generator().manual_seed(0))
    assert names.shape == (6, 10)
    assert videos.shape == (6, 1, 5, 32, 32)
    assert videos.min() == -1
    assert 0.9 < videos.max() <= 1
    light = (videos + 1) / 2
    # nothing is cut off at the sides, and the digit is the same in every frame
    mass = light.sum((1, 3, 4))
    assert (mass / mass[:, :1] - 1).abs().max() < 0.05
    across = torch.arange(32.0)
    centre = torch.stack([(light.sum(d) * across).sum(-1)[:, 0] / mass for d in (3, 4)], -1)
    # 0.05 to 0.1 of half the width a frame, less only where it bounces
    steps = centre.diff(dim=1).norm(dim=-1)
    assert steps.max() < 1.7
    assert (steps > 0.75).float().mean() > 0.8


def test_digits_follow_from_the_generator():
    digits = clips.MovingDigits(16)
    one, same, other = (digits(2, 3, torch.Generator().manual_seed(s)).videos for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_digits_have_their_names():
    """With digits that are even squares, each of a brightness of its own."""
    digits = clips.MovingDigits(32)
    brightness = torch.linspace(0.1, 1, len(digits.digits))
    digits.digits = brightness.view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    videos, names, *_ = digits(30, 1, torch.Generator().manual_seed(0))
    light = (videos[:, 0, 0] + 1) / 2
    mass, across = light.sum((1, 2)), torch.arange(32.0)
    x, y = ((light.sum(d) * across).sum(-1) / mass for d in (1, 2))
    middle = light[range(30), y.round().long(), x.round().long()]
    chosen = (middle[:, None] - brightness).abs().argmin(1)
    assert torch.equal(names.argmax(1), digits.names[chosen])
    assert torch.equal(digits.names[:10], torch.arange(10))  # scanned in order


@pytest.mark.parametrize(("channels", "size", "fps"), [(1, 9, 8.0), (3, 71, 12.5)])
def test_a_written_video_is_read_as_what_it_was(channels, size, fps, tmp_path):
    """The second of three, in a grid of two by two, whose upper half brightens frame by frame."""
    videos = torch.full((3, channels, 5, size, size), -1.0)
    for frame in range(5):
        videos[1, :, frame, : size // 2] = frame / 2 - 1
    gif, mp4, png = clips.write_videos(videos, tmp_path, "some", fps)
    assert {path.name for path in tmp_path.iterdir()} == {"some.gif", "some.mp4", "some.png"}
    with Image.open(png) as sheet, Image.open(gif) as moving:
        assert moving.n_frames == 5
        cell = sheet.size[0] // 5
    with av.open(str(mp4)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(fps)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 5
    for index, frame in enumerate(frames):
        assert frame.shape == (2 * cell + 2 * cell % 2, 2 * cell + 2 * cell % 2, 3)
        bright = frame[cell // 8 : cell // 3, cell + cell // 4 : 2 * cell - cell // 4]
        assert bright.mean() == pytest.approx(index / 4 * 255, abs=6)
        assert frame[cell // 8 : cell // 3, cell // 4 : cell // 2].mean() < 6
