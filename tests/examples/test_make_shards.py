"""The command that writes shards leaves whole ones, whatever is in its way."""

import make_shards
import pytest

from tests.examples.media import corners, write_numbers, write_picture


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    for n in range(2):
        write_numbers(tmp_path / "data" / f"{n}.mp4", 2)
    return tmp_path / "data"


def test_a_shard_that_was_not_completed_is_written_anew(data, tmp_path):
    out = tmp_path / "s3:{a} 5%"  # which webdataset would take for another kind of place
    out.mkdir()
    (out / ".clips-000000.tar").write_bytes(b"half")
    assert make_shards.main([str(data), str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["clips-000000.tar", "index.json"]


def test_a_file_that_has_gone_is_an_error_of_one_line(data, tmp_path, monkeypatch, capsys):
    found = make_shards.files_for

    def and_remove(args):
        files = found(args)
        files[1].item.path.unlink()
        return files

    monkeypatch.setattr(make_shards, "files_for", and_remove)
    with pytest.raises(SystemExit, match="2"):
        make_shards.main([str(data), str(tmp_path / "out")])
    assert "1.mp4" in capsys.readouterr().err.splitlines()[-1]
    assert not [path for path in (tmp_path / "out").iterdir() if path.name[0] != "."]


def test_numbered_pictures_are_said_and_refused_if_asked(data, tmp_path, capsys):
    (data / "run").mkdir()
    for n in range(2):
        write_picture(data / "run" / f"{n}.png", corners(8, 8))
    with pytest.raises(SystemExit, match="2"):
        make_shards.main([str(data), str(tmp_path / "a"), "--strict-data"])
    assert "run is a folder of pictures" in capsys.readouterr().err.splitlines()[-1]
    assert make_shards.main([str(data), str(tmp_path / "b")]) == 0
    assert "run is a folder of pictures" in capsys.readouterr().err
