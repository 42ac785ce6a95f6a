"""Tar files of others, and broken ones: they are counted, named, and read the same again."""

import json
import tarfile

import pytest
import torch
from errors import DataError
from loading import batches
from shards import Shards

from tests.examples.media import write_numbers
from tests.examples.test_shards import SQUARE, videos_of, write_tar


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "a.mp4"
    return [write_numbers(path, 4, start=10 * n).read_bytes() for n in range(8)]


def read(folder, count, steps, first=0):
    source = Shards(str(folder / "*.tar"), SQUARE, fps=(2.0, 10.0))
    following = batches(source, range(steps), count, 2, first=first, seed=1, workers=0)
    return [following(torch.Generator()) for _ in range(first, steps)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_resumed_reading_is_the_same_where_clips_are_broken(videos, tmp_path, count):
    for n in range(2):
        samples = {f"{k}.mp4": b"none" if k % 2 else videos[k] for k in range(8)}
        write_tar(tmp_path / f"{n}.tar", samples)
    whole = read(tmp_path, count, 9)
    for first in range(1, 9):
        for one, other in zip(whole[first:], read(tmp_path, count, 9, first), strict=True):
            assert torch.equal(one.videos, other.videos)
            assert torch.equal(one.fps, other.fps)


@pytest.mark.parametrize("where", ["header", "boundary", "data", "first", "nothing", "gone"])
def test_a_shard_that_breaks_off_anywhere_is_named_and_passed_over(videos, tmp_path, capsys, where):
    path = write_tar(tmp_path / "a.tar", {f"{n}.mp4": videos[n] for n in range(6)})
    write_tar(tmp_path / "b.tar", {"7.mp4": videos[7]})
    (tmp_path / "index.json").write_text(json.dumps({"a.tar": 6, "b.tar": 1}))
    with tarfile.open(path) as shard:
        third = shard.getmember("3.mp4")
    ends = {"header": third.offset + 100, "boundary": third.offset, "data": third.offset_data + 50}
    source = Shards(str(tmp_path / "*.tar"), SQUARE)
    path.write_bytes(path.read_bytes()[: ends.get(where, 100 if where == "first" else 0)])
    if where == "gone":
        path.unlink()
    following = batches(source, range(4), 7, 2, first=0, seed=1, workers=0)
    seen = {video for _ in range(4) for video in videos_of(following(torch.Generator()))}
    assert seen == ({0, 1, 2, 7} if where in ends else {7})
    assert f"skipped: {path} cannot be read to its end: " in capsys.readouterr().err


def test_samples_are_counted_as_webdataset_has_them(videos, tmp_path):
    names = ["__meta__/x.json", "v1.0/0.mp4", "v1.0/0.txt", "v1.0/1.mp4", ".hidden", "2.MP4"]
    path = write_tar(tmp_path / "a.tar", dict.fromkeys(names, videos[0]))
    assert Shards(str(path), SQUARE).shards == [(path, 3)]


@pytest.mark.parametrize("index", ["[1]", "no", '{"a.tar": "x"}', '{"a.tar": -2}', "{}"])
def test_an_index_of_something_else_is_passed_over(videos, tmp_path, index):
    path = write_tar(tmp_path / "a.tar", {f"{n}.mp4": videos[n] for n in range(3)})
    (tmp_path / "index.json").write_text(index)
    assert Shards(str(path), SQUARE).shards == [(path, 3)]


def test_captions_that_are_no_text_are_left_out(videos, tmp_path, capsys):
    samples = {"0.mp4": videos[0], "0.txt": b"\xff", "1.mp4": videos[1], "1.txt": b"one"}
    samples["1.json"] = b"[1]"
    path = write_tar(tmp_path / "a.tar", samples)
    assert Shards(str(path), SQUARE).texts() == {"one"}
    (batch,) = read(tmp_path, 2, 1)
    assert videos_of(batch) == [1, 1]
    assert f"skipped: {path}, 0: " in capsys.readouterr().err


def test_braces_name_shards_that_must_all_be_there(videos, tmp_path):
    paths = [write_tar(tmp_path / f"a-{n}.tar", {"0.mp4": videos[n]}) for n in range(3)]
    found = Shards(str(tmp_path / "a-{0..1}.tar"), SQUARE).shards
    assert found == [(path, 1) for path in paths[:2]]
    with pytest.raises(DataError, match=r"no such shard: .*a-3.tar"):
        Shards(str(tmp_path / "a-{0..3}.tar"), SQUARE)
    with pytest.raises(DataError, match="braces that do not match"):
        Shards(str(tmp_path / "a-{0..3.tar"), SQUARE)


def test_the_processes_of_torch_distributed_come_before_the_environment(
    videos, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "9")
    for name, value in (("is_initialized", True), ("get_rank", 1), ("get_world_size", 2)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    path = write_tar(tmp_path / "a.tar", {"0.mp4": videos[0]})
    assert Shards(str(path), SQUARE).process == (1, 2)
