"""What the repository tells people to install: a clone of it, or another library by its name.

On the package index make-a-video-pytorch is another project's 0.4.0.
"""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
READ = ("*.md", "docs/*.md", "make_a_video_pytorch/**/*.py", "examples/*.py", "benchmarks/*.py",
        "tests/integrations/*.py")  # fmt: skip
COMMAND = re.compile(r'pip install ((?:-c \S+ |-e )*(?:"[^"\n]*"|[\w.-]+))')
LINES = sorted({
    line
    for pattern in READ
    for path in ROOT.glob(pattern)
    for line in COMMAND.findall(path.read_text())
})  # fmt: skip


def dry_run(line):
    """What pip says that it would install by `line`, with its extras: its metadata."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [*command, *offline, *shlex.split(line)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["install"]
    return found["metadata"], found.get("requested_extras", [])


@pytest.fixture(scope="module")
def libraries():
    """The names of those that the package and its extras need."""
    metadata, _ = dry_run(".")
    return {Requirement(needed).name for needed in metadata["requires_dist"]}


@pytest.mark.parametrize("line", LINES)
def test_an_install_line_installs_the_clone_or_a_library_that_it_needs(line, libraries):
    if re.fullmatch(r"[\w-]+", line):
        assert line in libraries
        return
    metadata, extras = dry_run(line)
    assert metadata["name"] == "make-a-video-pytorch"
    assert metadata["version"] != "0.4.0"
    assert set(extras) <= set(metadata["provides_extra"])


def test_the_lines_are_found():
    assert {".", '".[integrations]"', '-c constraints.txt -e ".[test]"'} <= set(LINES)


def test_nothing_is_published_under_the_name_of_the_index():
    for path in (ROOT / ".github").rglob("*.yml"):
        assert not re.search(r"pypi|twine", path.read_text()), path
