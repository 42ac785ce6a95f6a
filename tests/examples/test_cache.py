"""A name follows from what made a thing, and a file appears whole."""

import multiprocessing
import os

import cache
import keys
import pytest
import torch
from errors import DataError
from safetensors.torch import load_file


def test_a_fingerprint_changes_when_a_model_does(tmp_path):
    (tmp_path / "deep").mkdir()
    config, weights = tmp_path / "config.json", tmp_path / "deep" / "model.safetensors"
    config.write_text("{}")
    weights.write_bytes(b"abc")
    seen = [cache.fingerprint(tmp_path)]
    os.utime(config, (1, 1))  # of settings the contents count
    assert cache.fingerprint(tmp_path) == seen[0]
    for change in (
        lambda: config.write_text("[]"),
        lambda: weights.write_bytes(b"abcd"),
        lambda: os.utime(weights, (5, 5)),
        lambda: (tmp_path / "vocab.txt").write_text("a"),
        lambda: weights.rename(tmp_path / "model.safetensors"),
        lambda: (tmp_path / "model.safetensors").unlink(),
    ):
        change()
        seen.append(cache.fingerprint(tmp_path))
    assert len(set(seen)) == 7
    with pytest.raises(DataError, match="no such folder"):
        cache.fingerprint(tmp_path / "none")


def test_a_fingerprint_sees_through_links_and_not_what_is_hidden(tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "model"
    for path in (elsewhere, folder):
        path.mkdir()
    (elsewhere / "config.json").write_text("{}")
    (folder / "linked").symlink_to(elsewhere, target_is_directory=True)
    (folder / "broken.json").symlink_to(tmp_path / "none")
    seen = cache.fingerprint(folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "download.json").write_text("1")
    (folder / ".gitattributes").write_text("1")
    assert cache.fingerprint(folder) == seen
    (elsewhere / "config.json").write_text("[]")
    assert cache.fingerprint(folder) != seen


def test_keys_differ_where_what_they_say_does():
    made = [keys.key_of(what) for what in (["a", "b"], ["ab"], ["a", ["b"]], "a", 1, "1", None)]
    assert len(set(made)) == len(made)


def fill(path, value):
    for _ in range(20):
        cache.write(path, {"a": torch.full((500, 100), value)})


def test_two_processes_may_write_the_same(tmp_path):
    path = tmp_path / "new" / "a.safetensors"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fill, args=(path, float(n))) for n in range(2)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        if path.exists():
            assert len(load_file(path)["a"].unique()) == 1
    assert [process.exitcode for process in processes] == [0, 0]
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_an_interrupted_write_leaves_nothing_and_keeps_what_was(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    cache.write(path, {"a": torch.ones(3)})

    def half(tensors, file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "save_file", half)
    with pytest.raises(KeyboardInterrupt):
        cache.write(path, {"a": torch.zeros(3)})
    assert load_file(path)["a"].tolist() == [1, 1, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_two_writes_never_share_a_file(tmp_path, monkeypatch):
    # a second write of the same process, or of one of the same number on another machine
    path, files = tmp_path / "a.safetensors", []
    save = cache.save_file

    def between(tensors, file):
        save(tensors, file)
        files.append(file)
        if len(files) == 1:
            cache.write(path, {"a": torch.zeros(3)})

    monkeypatch.setattr(cache, "save_file", between)
    cache.write(path, {"a": torch.ones(3)})
    assert len(set(files)) == 2
    assert load_file(path)["a"].tolist() == [1, 1, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/a cannot be written: ") as raised:
        cache.write(tmp_path / "file" / "a", {"a": torch.ones(1)})
    assert len(str(raised.value).splitlines()) == 1
