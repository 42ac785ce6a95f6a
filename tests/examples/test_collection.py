"""Clips are drawn of every file, at the rates asked for, and of no part that is held out."""

import itertools

import pytest
import torch
from buckets import Shape
from collection import Clips, Pictures
from decoding import read_frames
from errors import DataError

from tests.examples.media import (
    corners,
    corners_of,
    number,
    number_of,
    write_numbers,
    write_picture,
    write_pictures,
)

SQUARE = Shape(4, 64, 64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def numbers(clip):
    """What the frames of a clip (c f h w) show."""
    return [number_of((frame.permute(1, 2, 0).numpy() + 1) * 127.5) for frame in clip.unbind(1)]


@pytest.fixture
def folder(tmp_path):
    """Videos that show 0 to 19 and 100 to 139, and numbered pictures from 200 to 209."""
    write_numbers(tmp_path / "a.mp4", 20)
    (tmp_path / "deep").mkdir()
    write_numbers(tmp_path / "deep" / "b.mp4", 40, start=100, rate=20)
    (tmp_path / "run").mkdir()
    for n in range(10):
        write_picture(tmp_path / "run" / f"{n}.png", number(200 + n))
    (tmp_path / "a.txt").write_text("from nought")
    return tmp_path


def test_clips_are_successive_frames_and_know_their_rate(folder):
    clips = Clips(folder, [SQUARE], sequence_fps=12.0)
    batch = clips(30, 4, generator())
    assert batch.videos.shape == (30, 3, 4, 64, 64)
    assert batch.videos.min() >= -1
    assert batch.videos.max() <= 1
    seen = set()
    for clip, fps, text in zip(batch.videos, batch.fps.tolist(), batch.texts, strict=True):
        first, *rest = numbers(clip)
        assert rest == [first + 1, first + 2, first + 3]
        kind = first // 100
        assert fps == pytest.approx([10, 20, 12][kind], rel=0.01)
        assert text == ["from nought", None, None][kind]
        seen.add(kind)
    assert seen == {0, 1, 2}
    again = clips(30, 4, generator())
    assert torch.equal(again.videos, batch.videos)


@pytest.mark.parametrize(("fps", "step"), [((5.0, 5.0), 2), ((2.5, 2.5), 4), ((30.0, 30.0), 1)])
def test_frames_are_left_out_for_a_lower_rate_and_none_is_shown_twice(folder, fps, step):
    clips = Clips(folder / "a.mp4", [SQUARE], fps=fps)
    for clip, rate in zip(*clips(10, 4, generator())[::3], strict=True):
        shown = numbers(clip)
        assert [b - a for a, b in itertools.pairwise(shown)] == [step] * 3
        assert rate == pytest.approx(10 / step)


def test_rates_go_from_high_to_low_as_training_goes_on(folder):
    clips = Clips(folder / "deep", [SQUARE], fps=(2.0, 20.0))
    early, late = (
        torch.cat([clips.of_step(step, 8, 4, 0, progress).fps for step in range(4)]).mean()
        for progress in (0.0, 1.0)
    )
    assert early > late + 2


def test_each_file_is_seen_once_a_round(folder):
    clips = Clips(folder, [SQUARE])
    for turn in range(3):
        batches = [clips.of_step(step, 1, 4, 7, 0.0) for step in range(3 * turn, 3 * turn + 3)]
        kinds = sorted(numbers(batch.videos[0])[0] // 100 for batch in batches)
        assert kinds == [0, 1, 2]


def test_a_step_gives_the_same_batch_whenever_it_is_asked_for(folder):
    one, other = Clips(folder, [SQUARE], fps=(1, 30)), Clips(folder, [SQUARE], fps=(1, 30))
    for step in (0, 5, 6):
        assert torch.equal(
            one.of_step(step, 3, 4, 1, 0.5).videos, other.of_step(step, 3, 4, 1, 0.5).videos
        )
    assert not torch.equal(one.of_step(0, 3, 4, 1, 0.5).videos, one.of_step(0, 3, 4, 2, 0.5).videos)


def test_what_is_held_out_is_never_trained_on(folder):
    shown = {}
    for held_out in (False, True):
        clips = Clips(folder, [SQUARE], held_out=held_out)
        drawn = [numbers(clip) for clip in clips(400, 4, generator()).videos]
        shown[held_out] = {n for clip in drawn for n in clip}
    assert not shown[False] & shown[True]
    assert shown[True] == {*range(16, 20), *range(136, 140), *range(206, 210)}
    assert shown[False] == {*range(16), *range(100, 136), *range(200, 206)}


def test_what_is_too_short_is_said_and_passed_over(folder, capsys):
    write_numbers(folder / "short.mp4", 3)
    clips = Clips(folder, [SQUARE])
    assert len(clips.buckets[SQUARE]) == 3
    err = capsys.readouterr().err
    assert err == f"skipped: {folder / 'short.mp4'} has 3 frames, a clip takes 4\n"
    with pytest.raises(DataError, match=r"short.mp4 has 3 frames, a clip takes 4"):
        Clips(folder, [SQUARE], strict=True)
    with pytest.raises(DataError, match=r"short.mp4 has 3 frames, a clip takes 4"):
        Clips(folder / "short.mp4", [SQUARE])
    with pytest.raises(DataError, match=r"short.mp4 has 3 frames, too few to hold some out"):
        Clips(folder / "short.mp4", [SQUARE], held_out=True)
    with pytest.raises(DataError, match=r"no video in .* is long enough for a clip of 99 frames"):
        Clips(folder, [Shape(99, 8, 8)])


def test_a_file_that_breaks_later_is_replaced_by_another(folder, capsys):
    clips = Clips(folder, [SQUARE])
    (folder / "a.mp4").write_text("no video any more")
    batches = [clips.of_step(step, 3, 4, 0, 0.0) for step in range(4)]
    assert all(batch.videos.shape[0] == 3 for batch in batches)
    assert {numbers(clip)[0] // 100 for batch in batches for clip in batch.videos} == {1, 2}
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith(f"skipped: {folder / 'a.mp4'} cannot be decoded") for line in lines)
    (folder / "deep" / "b.mp4").unlink()
    alone = Clips(folder / "run", [SQUARE])
    for path in (folder / "run").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="cannot be read as a picture"):
        alone(1, 4, generator())


def test_a_batch_is_of_one_bucket_and_nothing_is_cut_off(tmp_path):
    for n in range(4):
        write_pictures(tmp_path / f"wide{n}.mp4", [corners(64, 48)] * 8)
        write_pictures(tmp_path / f"high{n}.mp4", [corners(48, 64)] * 8)
        write_pictures(tmp_path / f"short{n}.mp4", [corners(64, 48)] * 4)
    shapes = [Shape(f, h, w) for f in (8, 4) for h, w in ((24, 32), (32, 24))]
    clips = Clips(tmp_path, shapes)
    assert [len(files) for files in clips.buckets.values()] == [4, 4, 4]
    seen = set()
    for step in range(6):
        batch = clips.of_step(step, 2, 8, 0, 0.0)
        seen.add(tuple(batch.videos.shape))
        picture = (batch.videos[1, :, 0].permute(1, 2, 0).numpy() + 1) * 127.5
        assert corners_of(picture) == ["red", "green", "blue", "white"]
    assert seen == {(2, 3, 8, 24, 32), (2, 3, 8, 32, 24), (2, 3, 4, 24, 32)}
    images = clips.of_step(0, 2, 1, 0, 0.0).videos  # frames of clips, for the first phase
    assert images.shape[2] == 1


def test_pictures_are_clips_of_one_frame_with_their_texts(tmp_path):
    for n in range(5):
        write_picture(tmp_path / f"{n}.png", number(n))
    (tmp_path / "3.txt").write_text("three")
    pictures = Pictures(tmp_path, [SQUARE])
    batch = pictures.of_step(0, 5, 1, 0, 0.0)
    assert batch.videos.shape == (5, 3, 1, 64, 64)
    shown = [numbers(clip)[0] for clip in batch.videos]
    assert sorted(shown) == list(range(5))
    assert [text for _, text in sorted(zip(shown, batch.texts, strict=True))][3] == "three"
    assert (tmp_path / ".pictures.json").exists()
    assert not (tmp_path / ".clips.json").exists()


def test_the_pixels_are_those_of_the_file(folder):
    batch = Clips(folder / "a.mp4", [Shape(1, 64, 64)])(1, 1, generator())
    (shown,) = numbers(batch.videos[0])
    (picture,) = read_frames(folder / "a.mp4", [(shown + 0.5) / 10], 64, 64)
    pixels = (batch.videos[0, :, 0].permute(1, 2, 0) + 1) * 127.5
    torch.testing.assert_close(pixels, torch.from_numpy(picture).float(), rtol=0, atol=1e-3)


def test_nothing_held_out_is_seen_by_shorter_clips_or_images(folder):
    shapes = [Shape(8, 16, 16), Shape(4, 16, 16)]
    out, trained = (
        Clips(folder / "a.mp4", [s._replace(height=64, width=64) for s in shapes], held_out=held)
        for held in (True, False)
    )
    held = {n for clip in out(60, 8, generator()).videos for n in numbers(clip)}
    assert held == set(range(12, 20))
    for frames in (1, 2, 4, 8):
        batches = [trained.of_step(step, 20, frames, 0, 0.0) for step in range(3)]
        seen = {n for batch in batches for clip in batch.videos for n in numbers(clip)}
        assert seen == set(range(12))


def test_one_file_that_can_be_read_among_many_is_enough(tmp_path, capsys):
    for n in range(30):
        write_picture(tmp_path / f"{n:02}.png", number(n))
    pictures = Pictures(tmp_path, [SQUARE])
    for n in range(29):
        (tmp_path / f"{n:02}.png").write_bytes(b"")
    for step in range(5):
        batch = pictures.of_step(step, 6, 1, 0, 0.0)
        assert [numbers(clip) for clip in batch.videos] == [[29]] * 6
    again = pictures.of_step(0, 6, 1, 0, 0.0)
    assert torch.equal(again.videos, batch.videos)
    assert "skipped: " in capsys.readouterr().err


def test_strictly_a_file_that_breaks_later_is_an_error(folder, tmp_path, capsys):
    clips = Clips(folder, [SQUARE], strict=True)
    (folder / "a.mp4").write_text("no video any more")
    with pytest.raises(DataError, match=r"a.mp4 cannot be decoded"):
        clips.of_step(0, 3, 4, 0, 0.0)
    write_picture(folder / "a.png", corners(64, 64))
    pictures = Pictures(folder, [SQUARE], strict=True)
    (folder / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"a.png cannot be read as a picture"):
        pictures(40, 1, generator())
    assert capsys.readouterr().err == ""
