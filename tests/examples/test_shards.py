"""Videos go through tar files unchanged, each is read once a round, by one process."""

import io
import os
import sys
import tarfile
from collections import Counter

import make_shards
import pytest
import torch
import webdataset
from buckets import Shape
from draws import Draws
from errors import DataError
from loading import batches
from shards import Shards

from tests.examples.media import (
    corners,
    corners_of,
    number_of,
    write_numbers,
    write_picture,
    write_pictures,
)

SQUARE = Shape(2, 64, 64)
STEPS = range(3, 33)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve videos that show their own number in all frames, one of them broken."""
    root = tmp_path_factory.mktemp("data")
    (root / "ünï code").mkdir()
    for n in range(12):
        name = f"ünï code/видео {n}.mp4" if n % 2 else f"{n:02d}.mp4"
        write_numbers(root / name, 4, start=10 * n)
    (root / "00.txt").write_text("the first")
    (root / "broken.mp4").write_text("no video")
    (root / "run").mkdir()
    for n in range(3):
        write_picture(root / "run" / f"{n}.png", corners(8, 8))
    return root


@pytest.fixture(scope="module")
def shards(data, tmp_path_factory):
    """Four shards of three videos each."""
    out = tmp_path_factory.mktemp("shards") / "out"
    size = max(path.stat().st_size for path in data.rglob("*.mp4"))
    make_shards.MIB, kept = 3 * size + 100, make_shards.MIB
    assert make_shards.main([str(data), str(out), "--shard-size", "1"]) == 0
    make_shards.MIB = kept
    return out


def opened(shards, **options):
    return Shards(str(shards / "*.tar"), SQUARE, **options)


def videos_of(batch):
    """Which videos the clips of a batch are of."""
    frames = (batch.videos[:, :, 0].movedim(1, -1).numpy() + 1) * 127.5
    return [int(number_of(frame)) // 10 for frame in frames]


def read(shards, count=2, steps=STEPS, first=0, workers=0):
    following = batches(shards, steps, count, 2, first=first, seed=1, workers=workers)
    for _ in range(max(first, steps.start), steps.stop):
        yield following(Draws(0, 0))


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_shards_hold_the_files_and_what_is_known(shards, data, capsys):
    paths = sorted(shards.glob("*.tar"))
    assert [path.name for path in paths] == [f"clips-{n:06d}.tar" for n in range(4)]
    assert [count for _, count in opened(shards).shards] == [3] * 4
    samples = [s for path in paths for s in webdataset.WebDataset(str(path), shardshuffle=False)]
    names = [webdataset.autodecode.Decoder([])(s)["json"]["name"] for s in samples]
    assert names == sorted(names)
    assert len(set(names)) == 12
    for sample, name in zip(samples, names, strict=True):
        assert sample["mp4"] == (data / name).read_bytes()
    assert [sample.get("txt") for sample in samples] == [b"the first"] + [None] * 11
    assert opened(shards).texts() == {"the first"}


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_every_video_is_seen_once_a_round(shards, workers):
    source = opened(shards)
    seen = [
        video
        for batch in read(source, 3, range(3, 15), workers=workers)
        for video in videos_of(batch)
    ]
    assert Counter(seen) == dict.fromkeys(range(12), 3)
    assert seen[:12] != seen[12:24]


def test_processes_see_videos_of_their_own(shards, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    seen = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        one_round = read(opened(shards), 3, range(2))
        seen.append({video for batch in one_round for video in videos_of(batch)})
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(range(12))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first", [4, 11, 20])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_resumed_reading_goes_on_as_the_interrupted_one(shards, workers, first):
    source = opened(shards, fps=(2.0, 10.0))
    whole = list(read(source, workers=workers))[first - STEPS.start :]
    rest = list(read(source, first=first, workers=workers))
    assert len(whole) == len(rest) == STEPS.stop - first
    for one, other in zip(whole, rest, strict=True):
        assert torch.equal(one.videos, other.videos)
        assert torch.equal(one.fps, other.fps)


def test_shards_that_were_done_are_not_opened_again(shards, monkeypatch):
    import shards as module

    opened_paths, read_shard = [], module.read_shard

    def counting(path, *args):
        opened_paths.append(path)
        return read_shard(path, *args)

    source = opened(shards)
    monkeypatch.setattr(module, "read_shard", counting)
    next(read(source, 3, first=STEPS.start))
    first_of_all = opened_paths[0]
    opened_paths.clear()
    next(read(source, 3, first=STEPS.start + 3))  # three batches of three: three shards are done
    assert len(set(opened_paths)) == 1
    assert opened_paths[0] != first_of_all


def test_captions_and_rates_come_along(shards):
    source = opened(shards)
    for batch in read(source, 3, range(4)):
        assert batch.fps.tolist() == pytest.approx([10.0] * 3)
        texts = dict(zip(videos_of(batch), batch.texts, strict=True))
        assert all(text == ("the first" if video == 0 else None) for video, text in texts.items())


def write_tar(path, samples):
    with tarfile.open(path, "w") as shard:
        for name, content in samples.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return path


def test_shards_of_others_are_read_without_an_index(tmp_path):
    rotation = 90
    clip = write_pictures(tmp_path / "a.mp4", [corners(64, 48)] * 3, rotation=rotation)
    shard = write_tar(tmp_path / "x.tar", {"k/one.mp4": clip.read_bytes(), "k/one.txt": b"turned"})
    source = Shards(str(shard), SQUARE)
    assert source.shards == [(shard, 1)]
    (batch,) = read(source, 2, range(1))
    picture = (batch.videos[1, :, 0].movedim(0, -1).numpy() + 1) * 127.5
    assert corners_of(picture) == ["green", "white", "red", "blue"]
    assert batch.texts == ["turned"] * 2


def test_what_is_broken_is_said_and_passed_over(tmp_path, capsys):
    good = {
        f"{n}.mp4": write_numbers(tmp_path / "a.mp4", 4, start=10 * n).read_bytes()
        for n in range(6)
    }
    short = write_numbers(tmp_path / "a.mp4", 1).read_bytes()
    bad = {"6.mp4": b"no video", "7.txt": b"a text alone", "8.mp4": short}
    write_tar(tmp_path / "a.tar", {**good, **bad})
    whole = write_tar(tmp_path / "b.tar", good)
    with tarfile.open(whole) as shard:
        end = shard.getmember("5.mp4").offset_data + len(good["5.mp4"]) // 2
    whole.write_bytes(whole.read_bytes()[:end])
    source = Shards(str(tmp_path / "*.tar"), SQUARE)
    seen = {video for batch in read(source, 3, range(10)) for video in videos_of(batch)}
    assert seen == set(range(6))
    said = set(capsys.readouterr().err.splitlines())
    for message in (
        f"skipped: {tmp_path / 'a.tar'}, 6 cannot be decoded as a video",
        f"skipped: {tmp_path / 'a.tar'}, 7 holds no video (.mp4",
        f"skipped: {tmp_path / 'a.tar'}, 8 has 1 frames, a clip takes 2",
        f"skipped: {tmp_path / 'b.tar'} cannot be read to its end",
    ):
        assert any(line.startswith(message) for line in said), (message, said)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_nothing_to_read_is_an_error_of_one_line(tmp_path, shards, monkeypatch):
    with pytest.raises(DataError, match=r"no clip in .*\*.tar"):
        Shards(str(tmp_path / "*.tar"), SQUARE)
    write_tar(tmp_path / "a.tar", {"0.mp4": b"no video", "1.mp4": b"no video"})
    with pytest.raises(DataError, match=r"no clip in .* can be used"):
        next(read(Shards(str(tmp_path / "*.tar"), SQUARE)))
    with pytest.raises(DataError, match=r"no clip in .* can be used") as raised:
        next(read(Shards(str(tmp_path / "*.tar"), SQUARE), workers=2))
    assert len(str(raised.value).splitlines()) == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DataError, match="1 shards are too few for 2 processes"):
        next(read(Shards(str(tmp_path / "*.tar"), SQUARE)))
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(DataError, match="shards need webdataset: pip install webdataset"):
        opened(shards)


def test_wrong_calls_of_the_command_are_one_line(data, shards, tmp_path, capsys):
    before = sorted(os.listdir(shards))
    for arguments, message in (
        ([data, shards], "holds shards: give another folder"),
        ([tmp_path / "none", tmp_path / "out"], "no such file or folder"),
        ([data, tmp_path / "out", "--strict-data"], "broken.mp4 cannot be decoded"),
        ([data / "run", tmp_path / "out"], "can be used"),
    ):
        with pytest.raises(SystemExit, match="2"):
            make_shards.main([str(argument) for argument in arguments])
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert sorted(os.listdir(shards)) == before
