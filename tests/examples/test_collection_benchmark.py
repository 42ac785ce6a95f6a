"""The benchmark of collections runs, small."""

import re
import sys

from benchmarks import collection


def test_a_collection_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["collection.py", "--files", "2", "--steps", "6"])
    monkeypatch.setattr(collection, "COUNT", 2)
    monkeypatch.setattr(collection, "stepping", lambda: lambda batch: None)
    assert collection.main() == 0
    printed = capsys.readouterr().out
    assert re.search(r"start-up with 2 files: [\d.]+ s, with an index [\d.]+ s", printed)
    assert len(re.findall(r"with [012] workers: [\d.]+ clips a second", printed)) == 3
