"""Digits of several fonts, in colours, that move as they are told of."""

import glyphs
import pytest
import torch
from errors import DataError
from glyphs import COLOURS, DIGITS, DIRECTIONS, Glyphs, caption, kind_of
from motion import centres
from torch import Generator


def meant(text):
    """The digit, the colour and the direction that a text names, None where it names none."""
    words = text.split()
    return tuple(
        next((place for place, name in enumerate(names) if name in words), None)
        for names in (DIGITS, COLOURS, DIRECTIONS)
    )


@pytest.fixture(scope="module")
def batch():
    return Glyphs(fps=(4.0, 8.0))(24, 5, Generator().manual_seed(0))


def test_clips_and_what_is_known_of_them(batch):
    assert batch.videos.shape == (24, 3, 5, 64, 64)
    assert batch.videos.min() == -1
    assert 0.8 < batch.videos.max() <= 1
    assert batch.names.shape == (24, 50)
    assert (batch.fps >= 4).all()
    assert (batch.fps <= 8).all()
    for text, name in zip(batch.texts, batch.names, strict=True):
        digit, colour, direction = meant(text)
        assert kind_of(digit, colour) == name.argmax()
        assert caption(digit, colour, direction) == text


def test_they_move_as_it_is_said_and_evenly_and_stay_in_the_picture(batch):
    steps = centres(batch.videos).diff(dim=1)  # b f 2, pixels
    for step, text, fps in zip(steps, batch.texts, batch.fps, strict=True):
        way = torch.tensor(list(DIRECTIONS.values())[meant(text)[2]]).double()
        speed = (step @ way) * fps / 64
        assert (speed > glyphs.SLOWEST - 0.01).all()
        assert (speed < glyphs.FASTEST + 0.01).all()
        assert (step - step.mean(0)).abs().max() < 0.4
    light = (batch.videos + 1).sum((1, 3, 4))  # b f: none of it leaves
    torch.testing.assert_close(light, light[:, :1].expand_as(light), rtol=0.02, atol=0)


def test_they_have_the_colour_that_is_said(batch):
    for video, text in zip((batch.videos + 1) / 2, batch.texts, strict=True):
        pixels = video.flatten(1)
        brightest = pixels[:, pixels.sum(0).argmax()]
        colour = torch.tensor(list(COLOURS.values())[meant(text)[1]])
        torch.testing.assert_close(brightest, colour, atol=0.05, rtol=0)


def test_a_path_that_leaves_the_picture_is_an_error():
    with pytest.raises(DataError, match=r"16 frames at \(4.0, 4.0\) a second lead out"):
        Glyphs()(8, 16, Generator().manual_seed(0))


def test_pictures_are_told_of_without_a_direction():
    batch = Glyphs(16)(7, 1, Generator().manual_seed(1))
    assert batch.samples.shape == (7, 3, 16, 16)
    assert all(meant(text)[2] is None for text in batch.texts)


def test_every_font_draws_every_digit_in_its_own_way():
    for fonts in (glyphs.FONTS, glyphs.FONTS_HELD_OUT):
        drawn = glyphs.drawn(fonts).flatten(0, 1)
        apart = torch.cdist(drawn.flatten(1), drawn.flatten(1)) + 1e9 * torch.eye(len(drawn))
        assert apart.min() > 1
        assert (drawn.sum((1, 2)) > 100).all()
    assert not set(glyphs.FONTS) & set(glyphs.FONTS_HELD_OUT)


def test_what_is_asked_for_in_words():
    assert caption(7, 0, 3) == "a red seven moves up"
    assert caption(3, 2, 1) == "a blue three moves left"
    assert len({kind_of(d, c) for d in range(len(DIGITS)) for c in range(len(COLOURS))}) == 50
