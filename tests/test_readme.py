import inspect
import re
from pathlib import Path

import pytest
import torch

import make_a_video_pytorch as library

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = [
    block
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    if "integrations" not in block  # tests/integrations has those
]


@pytest.fixture(scope="module")
def names():
    """What the blocks define, run one after another as a reader would."""
    namespace = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), namespace)
    return namespace


def test_every_block_runs(names):
    assert len(BLOCKS) == 10
    assert names["frame_by_frame"].shape == names["video"].shape
    names["optimizer"].step()


def test_the_first_example_is_short():
    assert len(BLOCKS[0].splitlines()) <= 18


def test_the_loader_loads_a_checkpoint(names, tmp_path):
    unet = library.SpaceTimeUnet(dim=4, channels=1)
    names["save"](unet, tmp_path)
    loaded = names["load"](tmp_path)
    x = torch.randn(1, 1, 16, 16)
    assert torch.equal(loaded(x, 5), unet(x, 5))


def table_rows():
    """(name of the class, arguments, default) of every row of the argument tables."""
    classes = []
    for line in README.splitlines():
        if line.startswith("**`"):
            classes = re.findall(r"\*\*`(\w+)`\*\*", line)
        row = re.match(r"\| (`\w+`(?:, `\w+`)*) \| (?:`(.*?)`)? ?\|", line)
        if row and classes:
            yield classes, re.findall(r"\w+", row[1]), row[2]


def test_the_tables_hold_every_argument_with_its_default():
    seen = {name: set() for name in library.__all__ if inspect.isclass(getattr(library, name))}
    del seen["InflatedModel"]  # which is what `inflate` makes
    seen["inflate"] = set()
    for classes, arguments, default in table_rows():
        for name, argument in zip(classes, arguments * len(classes), strict=False):
            own = arguments[classes.index(name)] if len(arguments) > 1 else argument
            parameter = inspect.signature(getattr(library, name)).parameters[own]
            if default is None:
                assert parameter.default is inspect.Parameter.empty, (name, own)
            else:
                assert repr(parameter.default) == default, (name, own)
            seen[name].add(own)
    for name, arguments in seen.items():
        assert arguments == set(inspect.signature(getattr(library, name)).parameters), name


def test_the_picture_is_there_and_the_commands_name_what_exists():
    for target in re.findall(r"\]\((?!http)(.*?)\)", README):
        assert (ROOT / target).is_file(), target
    assert 'pip install -c constraints.txt -e ".[examples]" && python examples/train.py' in README
    assert 'pip install -c constraints.txt -e ".[test]" && pytest' in README


def test_the_version_stands_in_one_place_and_heads_the_changelog():
    version = re.search(r'version="(.*?)"', (ROOT / "setup.py").read_text())[1]
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text()
