"""The frames that are asked for are those that are shown then, upright and of the size."""

from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import decoding
import numpy as np
import pytest
from decoding import facts_of, read_frames, read_picture, size_of_picture
from errors import DataError
from PIL import Image

from tests.examples.media import (
    corners,
    corners_of,
    number,
    number_of,
    write_cut,
    write_numbers,
    write_picture,
    write_pictures,
    write_song,
    write_sound,
)

KINDS = {
    "mp4": ("a.mp4", dict(codec="mpeg4")),
    "b-frames": ("a.mp4", dict(codec="libx264", options={"bf": "2"})),
    "m4v": ("a.m4v", dict(codec="mpeg4")),
    "mkv": ("a.mkv", dict(codec="mpeg4")),
    "webm": ("a.webm", dict(codec="libvpx-vp9")),
    "avi": ("a.avi", dict(codec="mpeg4")),
    "ts": ("a.ts", dict(codec="mpeg2video", rate=25)),
    "b-frames-ts": ("a.ts", dict(codec="libx264", rate=25, options={"bf": "2", "g": "8"})),
    "b-frames-avi": ("a.avi", dict(codec="mpeg4", options={"bf": "2", "g": "8"}, rate=25)),
    "h264-avi": ("a.avi", dict(codec="libx264", options={"bf": "2", "g": "8"}, rate=25)),
    "mpg": ("a.mpg", dict(codec="mpeg2video", options={"bf": "2", "g": "8"}, rate=25)),
    "m2v": ("a.m2v", dict(codec="mpeg2video", options={"bf": "2", "g": "8"}, rate=25)),
    "flv": ("a.flv", dict(codec="flv", rate=25)),
    "wmv": ("a.wmv", dict(codec="wmv2", rate=25)),
    "mov": ("a.mov", dict(codec="mjpeg", pixels="yuvj420p")),
    "10-bits": ("a.mp4", dict(codec="libx265", pixels="yuv420p10le")),
    "grey": ("a.mkv", dict(codec="ffv1", pixels="gray")),
    "lossless": ("a.mkv", dict(codec="ffv1", pixels="bgr0")),
}


def written(tmp_path, kind, count=23, **more):
    name, how = KINDS[kind]
    if how["codec"] not in av.codecs_available:
        pytest.skip(f"no {how['codec']} here")
    if how["codec"] == "libx265":
        how = {**how, "options": {"x265-params": "log-level=none"}}
    return write_numbers(tmp_path / name, count, **{**how, **more})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_frames_of_the_times(tmp_path, kind):
    path = written(tmp_path, kind)
    facts = facts_of(path)
    rate = KINDS[kind][1].get("rate", 10)
    assert (facts.frames, facts.width, facts.height) == (23, 64, 64)
    assert facts.fps == pytest.approx(rate, rel=0.01)
    for wanted in ([0, 1, 2], [5, 9, 22], [21, 22], [13], list(range(23))):
        pictures = read_frames(path, [(n + 0.5) / facts.fps for n in wanted], 64, 64)
        assert [number_of(picture) for picture in pictures] == wanted


def test_a_gif_is_a_video(tmp_path):
    frames = [Image.fromarray(number(n)) for n in range(6)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    facts = facts_of(tmp_path / "a.gif")
    assert facts.frames == 6
    assert facts.fps == pytest.approx(10)
    pictures = read_frames(tmp_path / "a.gif", [0.25, 0.55], 64, 64)
    assert [number_of(picture) for picture in pictures] == [2, 5]


def test_frames_are_taken_by_their_time_stamps(tmp_path):
    """Of a variable rate: ten frames a second at first, then one in half a second."""
    times = [0, 100, 200, 300, 800, 1300, 1800]
    path = write_numbers(tmp_path / "a.mkv", 7, times=times)
    facts = facts_of(path)
    assert facts.frames == 7
    assert facts.fps == pytest.approx(6 / 1.8)
    pictures = read_frames(path, [0.05, 0.25, 0.5, 0.79, 0.81, 1.2, 1.7], 64, 64)
    assert [number_of(picture) for picture in pictures] == [0, 2, 3, 3, 4, 4, 5]


def test_time_begins_at_the_first_frame(tmp_path):
    path = write_numbers(tmp_path / "a.mkv", 6, times=[5000 + 100 * n for n in range(6)])
    pictures = read_frames(path, [0.05, 0.15, 0.35], 64, 64)
    assert [number_of(picture) for picture in pictures] == [0, 1, 3]


def test_a_stream_without_time_stamps_is_counted(tmp_path):
    path = write_numbers(tmp_path / "a.h264", 12, codec="libx264", rate=25, options={"bf": "0"})
    facts = facts_of(path)
    assert facts.frames == 12
    wanted = [0, 3, 11]
    pictures = read_frames(path, [(n + 0.5) / facts.fps for n in wanted], 64, 64)
    assert [number_of(picture) for picture in pictures] == wanted


@pytest.mark.parametrize(
    ("rotation", "seen"),
    [
        (0, ["red", "green", "blue", "white"]),
        (90, ["green", "white", "red", "blue"]),  # counter-clockwise
        (180, ["white", "blue", "green", "red"]),
        (-90, ["blue", "red", "white", "green"]),
    ],
)
def test_a_clip_of_a_phone_is_upright(tmp_path, rotation, seen):
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a rotation")
    path = write_pictures(tmp_path / "a.mp4", [corners(64, 48)] * 3, rotation=rotation)
    facts = facts_of(path)
    assert (facts.width, facts.height) == ((48, 64) if rotation % 180 else (64, 48))
    for size in ((24, 24), (16, 40), (40, 16)):
        (picture,) = read_frames(path, [0.15], *size)
        assert picture.shape == (*size[::-1], 3)
        assert corners_of(picture) == seen


def test_pixels_that_are_no_squares_are_made_so(tmp_path):
    path = write_pictures(tmp_path / "a.mp4", [corners(32, 48)] * 3, aspect=Fraction(3))
    assert facts_of(path)[2:] == (96, 48)
    # of its middle square, as wide as high, all four corners are seen
    (picture,) = read_frames(path, [0.05], 24, 24)
    assert corners_of(picture) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize("size", [(63, 35), (1, 1), (17, 90)])
def test_odd_sizes_cover_and_are_cut_in_the_middle(tmp_path, size):
    path = write_pictures(tmp_path / "a.mkv", [corners(66, 46)] * 2, codec="ffv1", pixels="bgr0")
    (picture,) = read_frames(path, [0.05], *size)
    assert picture.shape == (size[1], size[0], 3)
    if min(size) > 8:
        assert corners_of(picture) == ["red", "green", "blue", "white"]
        middle = picture[:, : size[0] // 2 - 2].mean((0, 1))  # red and blue alike
        assert abs(middle[0] - middle[2]) < 12


def test_one_frame_is_a_video(tmp_path):
    path = write_numbers(tmp_path / "a.mp4", 1)
    facts = facts_of(path)
    assert facts.frames == 1
    assert number_of(read_frames(path, [0.5 / facts.fps], 64, 64)[0]) == 0


@pytest.mark.parametrize("begin", [0, 100_000])
def test_only_what_is_asked_for_is_decoded(tmp_path, monkeypatch, begin):
    times = [begin + 100 * n for n in range(200)]
    path = write_numbers(tmp_path / "a.mkv", 200, options={"g": "10"}, times=times)
    count = 0
    decoded = decoding.decoded

    def counting(*args):
        nonlocal count
        for frame in decoded(*args):
            count += 1
            yield frame

    monkeypatch.setattr(decoding, "decoded", counting)
    pictures = read_frames(path, [15.05, 15.15, 15.25], 64, 64)
    assert [number_of(picture) for picture in pictures] == [150, 151, 152]
    assert count < 20


def truncated(path, share=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "none.mp4", "none.mp4 cannot be decoded as a video: No such file"),
        (lambda p: truncated(write_numbers(p / "a.mp4", 20)), "a.mp4 (cannot be decoded|holds no)"),
        (lambda p: write_sound(p / "a.wav"), "a.wav holds no pictures"),
        (lambda p: write_sound(p / "a.mp4"), "a.mp4 holds no pictures"),
        (lambda p: write_song(p / "a.mp4"), "a.mp4 holds no pictures"),
        (lambda p: (p / "empty.mp4").write_bytes(b"") or p / "empty.mp4", "empty.mp4 cannot be"),
        (lambda p: (p / "a.mp4").write_text("no video") and p / "a.mp4", "a.mp4 cannot be"),
    ],
)
def test_what_is_no_video_is_an_error_of_one_line(tmp_path, make, message):
    with pytest.raises(DataError, match=message) as raised:
        facts_of(make(tmp_path))
    assert len(str(raised.value).splitlines()) == 1


def test_a_file_that_ends_early_is_an_error_where_it_ends(tmp_path):
    path = truncated(write_numbers(tmp_path / "a.mkv", 40, options={"g": "5"}))
    frames = facts_of(path).frames
    assert 5 < frames < 40
    assert number_of(read_frames(path, [0.25], 64, 64)[0]) == 2
    with pytest.raises(DataError, match=r"a.mkv ends before 3.95 s"):
        read_frames(path, [3.75, 3.85, 3.95], 64, 64)


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_pictures_are_upright(tmp_path, orientation):
    upright = corners(64, 48)
    ways = {
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p, 1),  # to be turned clockwise
        7: lambda p: np.rot90(p[:, ::-1], -1),
        8: lambda p: np.rot90(p, -1),  # to be turned counter-clockwise
    }
    stored = np.ascontiguousarray(ways.get(orientation, lambda p: p)(upright))
    path = write_picture(tmp_path / "a.png", stored, orientation)
    assert size_of_picture(path) == (64, 48)
    for size in ((24, 24), (16, 40)):
        picture = read_picture(path, *size)
        assert picture.shape == (*size[::-1], 3)
        assert corners_of(picture) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("LA", "png"), ("RGBA", "png"), ("P", "png"), ("CMYK", "jpg"), ("1", "png")],
)
def test_pictures_of_every_mode_are_coloured(tmp_path, mode, suffix):
    path = write_picture(tmp_path / f"a.{suffix}", number(37), mode=mode)
    picture = read_picture(path, 64, 64)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert number_of(picture) == 37


def test_pictures_of_16_bits_keep_their_brightness(tmp_path):
    grey = (number(5)[..., 0].astype(np.uint16) * 257) // 2
    Image.fromarray(grey).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png", 64, 64)
    assert abs(int(picture.max()) - 127) <= 1
    assert number_of(picture * 2) == 5


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_what_is_no_picture_is_an_error_of_one_line(tmp_path, content):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    for read in (size_of_picture, lambda p: read_picture(p, 8, 8)):
        with pytest.raises(DataError, match=r"a.png cannot be read as a picture") as raised:
            read(path)
        assert len(str(raised.value).splitlines()) == 1


def test_a_picture_that_ends_early_is_an_error(tmp_path):
    path = truncated(write_picture(tmp_path / "a.png", corners(300, 200)))
    with pytest.raises(DataError, match=r"a.png cannot be read as a picture"):
        read_picture(path, 8, 8)


@pytest.mark.parametrize("kind", ["mp4", "b-frames", "b-frames-avi", "h264-avi", "mpg"])
def test_each_frame_is_found_alone_in_a_long_file(tmp_path, kind):
    path = written(tmp_path, kind, 120, rate=25, options={"bf": "2", "g": "40"})
    for wanted in (0, 1, *range(29, 120, 10), 119):
        (picture,) = read_frames(path, [(wanted + 0.5) / 25], 64, 64)
        assert number_of(picture) == wanted


def test_what_was_cut_off_at_the_beginning_is_not_counted(tmp_path):
    whole = write_numbers(tmp_path / "whole.mp4", 30, options={"g": "30"})
    path = write_cut(tmp_path / "a.mp4", whole, seconds=0.5)
    facts = facts_of(path)
    assert facts.frames == 25
    assert facts.fps == pytest.approx(10)
    pictures = read_frames(path, [(n + 0.5) / 10 for n in range(25)], 64, 64)
    assert [number_of(picture) for picture in pictures] == list(range(5, 30))


@pytest.mark.parametrize("name", ["12:30.mp4", "file:a.mp4", "-i.mp4", "%03d.mp4", "ж ünï.mp4"])
def test_a_name_may_look_like_something_else(tmp_path, monkeypatch, name):
    write_numbers(tmp_path / "a.mp4", 3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert facts_of(Path(name)).frames == 3
    assert number_of(read_frames(Path(name), [0.15], 64, 64)[0]) == 1


def test_titles_may_be_of_any_encoding(tmp_path):
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE"
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(number(7), format="rgb24")
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"\xe9t\xe9\xff!"))
    assert number_of(read_frames(path, [0.5 / facts_of(path).fps], 64, 64)[0]) == 7


@pytest.mark.parametrize("suffix", ["jpg", "tiff", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pictures_of_every_format_are_upright(tmp_path, suffix, orientation):
    turns = {1: 0, 3: 2, 6: 1, 8: -1}[orientation]
    stored = np.ascontiguousarray(np.rot90(corners(64, 48), turns))
    path = write_picture(tmp_path / f"a.{suffix}", stored, orientation)
    assert size_of_picture(path) == (64, 48)
    assert corners_of(read_picture(path, 32, 24)) == ["red", "green", "blue", "white"]


def test_an_orientation_that_is_none_turns_nothing(tmp_path):
    path = write_picture(tmp_path / "a.png", corners(64, 48), orientation=9)
    assert size_of_picture(path) == (64, 48)
    assert corners_of(read_picture(path, 64, 48)) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(tmp_path, mode):
    grey = np.zeros((16, 16, 4), dtype=np.uint8)
    grey[:, 8:, 3] = 255  # black, and as black but not to be seen on the left
    image, path = Image.fromarray(grey), tmp_path / "a.png"
    if mode == "P":
        image = Image.fromarray((grey[..., 3] > 0).astype(np.uint8), mode="L").convert("P")
        image.putpalette([0] * 6)
        image.save(path, transparency=0)
    else:
        image.convert(mode).save(path)
    assert read_picture(path, 2, 1).tolist() == [[[255] * 3, [0] * 3]]


def test_nothing_else_is_written_about_a_broken_file(tmp_path, capfd):
    for name in ("a.mp4", "a.mkv", "a.avi"):
        path = write_numbers(tmp_path / name, 20)
        content = bytearray(path.read_bytes())
        content[len(content) // 2 :: 7] = bytes(len(content[len(content) // 2 :: 7]))
        path.write_bytes(content)
        with suppress(DataError):
            read_frames(path, [(n + 0.5) / 10 for n in range(20)], 16, 16)
    assert capfd.readouterr() == ("", "")
