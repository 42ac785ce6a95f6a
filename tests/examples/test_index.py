"""What is known of files is found out once, and again for files that have changed."""

import json
import os
from pathlib import Path

import av
import index
import pytest
from errors import DataError
from folder import pictures_in, videos_in
from index import indexed

from tests.examples.media import corners, write_numbers, write_picture

NAME = ".clips.json"


@pytest.fixture
def probed(monkeypatch):
    """The names of the files that are looked at."""
    seen, facts_about = [], index.facts_about

    def counting(item):
        seen.append(item.name)
        return facts_about(item)

    monkeypatch.setattr(index, "facts_about", counting)
    return seen


def find(root, strict=False, cache=None):
    return indexed(videos_in(root), root, NAME, strict, cache)


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    write_numbers(data / "a.mp4", 3)
    write_numbers(data / "deep" / "b.mp4", 5)
    return data


def test_an_index_is_used_again(folder, probed):
    first = find(folder)
    assert [(file.item.name, file.facts.frames) for file in first] == [
        ("a.mp4", 3),
        ("deep/b.mp4", 5),
    ]
    assert sorted(probed) == ["a.mp4", "deep/b.mp4"]
    assert find(folder) == first
    assert len(probed) == 2


def test_it_is_renewed_for_what_has_changed(folder, probed):
    find(folder)
    write_numbers(folder / "a.mp4", 7)
    write_numbers(folder / "new.mp4", 2)
    (folder / "deep" / "b.mp4").unlink()
    probed.clear()
    assert [(file.item.name, file.facts.frames) for file in find(folder)] == [
        ("a.mp4", 7),
        ("new.mp4", 2),
    ]
    assert sorted(probed) == ["a.mp4", "new.mp4"]
    assert json.loads((folder / NAME).read_text()).keys() == {"a.mp4", "new.mp4"}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"a.mp4": 5}', '{"a.mp4": {}}', "null", "[" * 200_000]
)
def test_an_index_that_is_none_is_made_anew(folder, probed, content):
    (folder / NAME).write_text(content)
    assert len(find(folder)) == 2
    assert len(probed) == 2
    assert len(json.loads((folder / NAME).read_text())) == 2


def test_what_cannot_be_read_is_said_and_passed_over(folder, probed, capsys):
    (folder / "broken.mp4").write_text("no video")
    (folder / "dangling.mp4").symlink_to(folder / "gone.mp4")
    for _ in range(2):  # it is not looked at again, but said again
        assert [file.item.name for file in find(folder)] == ["a.mp4", "deep/b.mp4"]
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert lines[0].startswith(f"skipped: {folder / 'broken.mp4'} cannot be decoded as a video")
        assert (
            lines[1]
            == f"skipped: {folder / 'dangling.mp4'} cannot be read: No such file or directory"
        )
    assert sorted(probed) == ["a.mp4", "broken.mp4", "deep/b.mp4"]
    with pytest.raises(DataError, match=r"broken.mp4 cannot be decoded"):
        find(folder, strict=True)


def test_nothing_left_is_an_error(tmp_path, capsys):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_text("no video")
    with pytest.raises(DataError, match=f"nothing in {tmp_path} can be read"):
        find(tmp_path)
    assert len(capsys.readouterr().err.splitlines()) == 2
    with pytest.raises(DataError, match=r"a.mp4 cannot be decoded"):  # of one file, the reason
        find(tmp_path / "a.mp4")


def test_beside_data_that_cannot_be_written_to_it_lies_elsewhere(
    folder, tmp_path, probed, monkeypatch
):
    out, write_text = tmp_path / "out", Path.write_text

    def refusing(path, *args, **kwargs):
        if path.parent == folder:
            raise PermissionError(13, "Permission denied")
        return write_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", refusing)
    first = find(folder, cache=out)
    assert [path.name for path in out.iterdir()] == [NAME]
    assert find(folder, cache=out) == first
    assert len(probed) == 2
    find(folder)  # with no other place it is made each time
    assert len(probed) == 4
    assert not (folder / NAME).exists()


def test_of_a_single_file_nothing_is_kept(folder):
    (file,) = find(folder / "a.mp4")
    assert file.facts.frames == 3
    assert not (folder / NAME).exists()


def test_pictures_and_numbered_ones_have_their_size_and_no_rate(tmp_path):
    for number in (1, 2, 3):
        write_picture(tmp_path / f"{number}.jpg", corners(24, 16), orientation=6)
    (clip,) = find(tmp_path)
    assert clip.facts == (3, 0.0, 16, 24)
    pictures = indexed(pictures_in(tmp_path), tmp_path, ".pictures.json", False, None)
    assert [file.facts for file in pictures] == [(1, 0.0, 16, 24)] * 3


@pytest.mark.parametrize(
    "entry", [{}, {"facts": [1]}, {"facts": [1, 2, 3, "4"]}, {"error": 5}, "stamp"]
)
def test_what_an_index_says_wrongly_is_found_out_again(folder, probed, entry):
    first = find(folder)
    kept = json.loads((folder / NAME).read_text())
    kept["a.mp4"] = {"stamp": kept["a.mp4"]["stamp"], **entry} if isinstance(entry, dict) else entry
    (folder / NAME).write_text(json.dumps(kept))
    probed.clear()
    assert find(folder) == first
    assert probed == ["a.mp4"]


def test_an_old_index_that_cannot_be_written_over_does_not_hide_the_new(
    folder, tmp_path, probed, monkeypatch
):
    find(folder)
    write_numbers(folder / "a.mp4", 7)
    write_text = Path.write_text

    def refusing(path, *args, **kwargs):
        if path.parent == folder:
            raise PermissionError(13, "Permission denied")
        return write_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", refusing)
    probed.clear()
    for _ in range(3):
        assert [file.facts.frames for file in find(folder, cache=tmp_path / "out")] == [7, 5]
    assert probed == ["a.mp4"]


def test_a_file_that_could_not_be_opened_is_tried_again(folder, probed, monkeypatch, capsys):
    opened = av.open

    def refusing(path, **how):
        if str(path).endswith("a.mp4"):
            raise av.error.PermissionError(13, "Permission denied", str(path))
        return opened(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(av, "open", refusing)
        assert [file.item.name for file in find(folder)] == ["deep/b.mp4"]
    assert capsys.readouterr().err.endswith(
        "a.mp4 cannot be decoded as a video: Permission denied\n"
    )
    assert [file.item.name for file in find(folder)] == ["a.mp4", "deep/b.mp4"]
    assert sorted(probed) == ["a.mp4", "a.mp4", "deep/b.mp4"]


def test_links_in_a_circle_and_pipes_are_passed_over(folder, capsys):
    (folder / "circle.mp4").symlink_to(folder / "circle.mp4")
    os.mkfifo(folder / "pipe.mp4")
    assert [file.item.name for file in find(folder)] == ["a.mp4", "deep/b.mp4"]
    circle, pipe = capsys.readouterr().err.splitlines()
    assert circle.startswith(f"skipped: {folder / 'circle.mp4'} cannot be read: Too many")
    assert pipe == f"skipped: {folder / 'pipe.mp4'} is no file"


def test_an_index_that_breaks_off_leaves_the_one_before(folder, monkeypatch):
    find(folder)
    before = (folder / NAME).read_text()
    write_numbers(folder / "new.mp4", 2)
    write_text = Path.write_text

    def breaking(path, text, **how):
        write_text(path, text[: len(text) // 2], **how)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", breaking)
    assert len(find(folder)) == 3
    assert (folder / NAME).read_text() == before
    assert sorted(path.name for path in folder.iterdir()) == [NAME, "a.mp4", "deep", "new.mp4"]
