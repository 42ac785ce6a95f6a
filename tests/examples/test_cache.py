"""A name follows from what made a thing, and a file appears whole."""

import multiprocessing
import os

import cache
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
    ):
        change()
        seen.append(cache.fingerprint(tmp_path))
    assert len(set(seen)) == 6
    with pytest.raises(DataError, match="no such folder"):
        cache.fingerprint(tmp_path / "none")


def test_keys_differ_where_what_they_say_does():
    keys = [cache.key_of(what) for what in (["a", "b"], ["ab"], ["a", ["b"]], "a", 1, "1", None)]
    assert len(set(keys)) == len(keys)


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
