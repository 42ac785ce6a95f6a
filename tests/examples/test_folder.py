"""What a folder holds is found, at any depth, with what is written about it."""

import json
import os
from pathlib import Path

import pytest
from errors import DataError
from folder import pictures_in, videos_in

from tests.examples.media import corners, write_picture


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def names(items):
    return [item.name for item in items]


def texts(root):
    return {item.name: item.text for item in videos_in(root)}


def test_videos_are_found_at_any_depth_and_in_order(tmp_path):
    found = ["a b.mp4", "deep/er/c.M4V", "deep/b.webm", "ünï/видео 1.mkv", "映像.mov"]
    touch(tmp_path, *found, "notes.md", "deep/picture.png", "sound.wav")
    assert names(videos_in(tmp_path)) == sorted(found)
    assert names(videos_in(tmp_path / "a b.mp4")) == ["a b.mp4"]


def test_what_is_hidden_is_passed_over(tmp_path):
    touch(tmp_path, "a.mp4", "._a.mp4", ".b.mp4", ".hidden/c.mp4", "d/._d.mp4", ".clips.json")
    assert names(videos_in(tmp_path)) == ["a.mp4"]


def test_links_are_followed_and_a_circle_has_an_end(tmp_path):
    touch(tmp_path, "data/a.mp4", "elsewhere/b.mp4")
    data = tmp_path / "data"
    (data / "circle").symlink_to(data)
    (data / "linked").symlink_to(tmp_path / "elsewhere")
    (data / "dangling.mp4").symlink_to(tmp_path / "gone.mp4")
    assert names(videos_in(data)) == ["a.mp4", "dangling.mp4", "linked/b.mp4"]


def test_a_folder_that_cannot_be_read_is_said(tmp_path, monkeypatch, capsys):
    touch(tmp_path, "a.mp4", "closed/b.mp4")
    scandir = os.scandir

    def scan(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    assert names(videos_in(tmp_path)) == ["a.mp4"]
    assert capsys.readouterr().err == f"skipped: {tmp_path / 'closed'}: Permission denied\n"


def test_numbered_pictures_are_a_clip_in_the_order_of_their_numbers(tmp_path):
    touch(tmp_path, *(f"run/frame_{n}.png" for n in range(8, 13)), "a.mp4")
    clip, video = sorted(videos_in(tmp_path), key=lambda item: len(item.pictures))[::-1]
    assert (clip.name, video.name) == ("run", "a.mp4")
    assert [path.name for path in clip.pictures] == [f"frame_{n}.png" for n in range(8, 13)]
    (alone,) = videos_in(tmp_path / "run")  # the folder itself
    assert alone.name == "run"
    assert alone.pictures == clip.pictures


@pytest.mark.parametrize(
    "files",
    [
        ["1.png"],
        ["1.png", "3.png"],
        ["1.png", "01.png", "2.png"],
        ["a1.png", "b2.png"],
        ["1.png", "2.jpg"],
        ["1.png", "2.png", "notes.txt"],
        ["1.png", "2.png", "below/3.png"],
        ["one.png", "two.png"],
        ["1.dat", "2.dat"],
    ],
)
def test_other_pictures_are_no_clip(tmp_path, files):
    touch(tmp_path, *(f"run/{name}" for name in files))
    with pytest.raises(DataError, match=r"no video in .*\(.mp4, .m4v, .mov"):
        videos_in(tmp_path)


def test_pictures_are_found_wherever_they_lie(tmp_path):
    touch(tmp_path, "1.png", "2.png", "deep/c.JPEG", "a.mp4", "x.webp")
    assert names(pictures_in(tmp_path)) == ["1.png", "2.png", "deep/c.JPEG", "x.webp"]


def test_texts_lie_beside(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.x.mp4", "run/1.png", "run/2.png")
    (tmp_path / "a.txt").write_text("  a bär\n", encoding="utf-8")
    (tmp_path / "c.x.txt").write_text("dots")
    (tmp_path / "run.txt").write_text("numbered")
    expected = {"a.mp4": "a bär", "b.mp4": None, "c.x.mp4": "dots", "run": "numbered"}
    assert texts(tmp_path) == expected


def test_texts_are_listed_in_each_folder(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4", "deep/d.mp4", "deep/e, f.mp4")
    lines = [
        {"file_name": "a.mp4", "text": "a", "further": 1},
        {"file_name": "deep/d.mp4", "text": "from above"},
        {"file_name": "c.mp4", "text": ""},
        {"file_name": "not there.mp4", "text": "nothing"},
    ]
    listed = "\ufeff" + "\n\n".join(json.dumps(line) for line in lines) + "\n"
    (tmp_path / "metadata.jsonl").write_text(listed, encoding="utf-8")
    (tmp_path / "b.txt").write_text("beside")
    (tmp_path / "a.txt").write_text("the list comes first")
    (tmp_path / "deep" / "metadata.csv").write_text('file_name,text\n"e, f.mp4","two\nlines"\n')
    assert texts(tmp_path) == {
        "a.mp4": "a",
        "b.mp4": "beside",
        "c.mp4": None,
        "deep/d.mp4": "from above",
        "deep/e, f.mp4": "two\nlines",
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.jsonl", '{"file_name": "a.mp4"}\n\n{"file', r"jsonl, line 3 is no JSON: Unterm"),
        ("metadata.jsonl", '{"name": "a.mp4"}', r"jsonl, line 1 has no `file_name`"),
        ("metadata.jsonl", '["a.mp4", "a"]', r"jsonl, line 1 has no `file_name`"),
        (
            "metadata.jsonl",
            '{"file_name": "a.mp4", "text": 5}',
            r"jsonl, line 1 has a `text` that is none: 5",
        ),
        ("metadata.csv", "file,text\na.mp4,a\n", r"csv, line 2 has no `file_name`"),
        ("metadata.csv", b"file_name,text\na.mp4,\xff\n", r"csv, line 2 is no utf-8: inv"),
        ("metadata.jsonl", b'{"file_name": "a.mp4"}\n\n"\xff"', r"jsonl, line 3 is no utf-8: inv"),
        ("metadata.jsonl", "\n" + "[" * 200_000, r"jsonl, line 2 is no JSON: .*recursion"),
        ("metadata.csv", 'file_name,text\na.mp4,"a\nb.mp4,b\n', r"csv, line 2 is no CSV: unexp"),
        ("metadata.csv", "file_name,text\n\n,a" + "a" * 200_000, r"csv, line 3 is no CSV: field"),
        ("a.txt", b"\xff", r"a.txt cannot be read as a text: .*utf-8"),
    ],
)
def test_a_text_that_does_not_parse_is_an_error_with_its_line(tmp_path, name, content, message):
    touch(tmp_path, "a.mp4")
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        videos_in(tmp_path)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "none", "no such file or folder: .*none"),
        (lambda p: touch(p, "a.png") / "a.png", r"a.png is no video \(.mp4"),
        (lambda p: touch(p, "a.png"), r"no video in .*\(.mp4"),
    ],
)
def test_nothing_to_be_found_is_an_error(tmp_path, make, message):
    with pytest.raises(DataError, match=message):
        videos_in(make(tmp_path))


def test_a_stamp_changes_when_a_file_does(tmp_path):
    for number in (1, 2):
        write_picture(tmp_path / f"{number}.png", corners(8, 8))
    (clip,) = videos_in(tmp_path)
    before = clip.stamp
    assert videos_in(tmp_path)[0].stamp == before
    write_picture(tmp_path / "2.png", corners(16, 8))
    assert videos_in(tmp_path)[0].stamp != before


def test_a_stamp_changes_when_an_older_file_takes_the_place_of_one(tmp_path):
    for number in (1, 2, 3):
        write_picture(tmp_path / f"{number}.bmp", corners(8, 8))
        os.utime(tmp_path / f"{number}.bmp", ns=(0, 1000 * number))
    before = videos_in(tmp_path)[0].stamp
    os.utime(tmp_path / "2.bmp", ns=(0, 1500))  # neither the sum of sizes nor the latest time
    assert videos_in(tmp_path)[0].stamp != before


def test_the_folder_that_one_is_in_may_be_a_clip(tmp_path, monkeypatch):
    touch(tmp_path, "run/1.png", "run/2.png")
    (tmp_path / "run.txt").write_text("numbered")
    monkeypatch.chdir(tmp_path / "run")
    assert texts(Path(".")) == {"run": "numbered"}


def test_texts_of_other_editors_are_read(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa text\r\n")
    (tmp_path / "metadata.csv").write_bytes(b'file_name, text\r\nb.mp4, "one, two"\r\n')
    assert texts(tmp_path) == {"a.mp4": "a text", "b.mp4": "one, two"}


def test_a_path_that_may_not_be_looked_at_is_an_error(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refused)
    with pytest.raises(DataError, match=r"no such file or folder: .*closed"):
        videos_in(tmp_path / "closed")


@pytest.mark.parametrize("suffix", [".3g2", ".vob", ".m2v", ".h264", ".MPEG", ".f4v"])
def test_rarer_videos_are_found(tmp_path, suffix):
    assert names(videos_in(touch(tmp_path, f"a{suffix}"))) == [f"a{suffix}"]
