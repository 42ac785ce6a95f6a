"""The house: a file imports only from lower floors."""

import ast
import inspect
from pathlib import Path

import pytest

import make_a_video_pytorch

PACKAGE = Path(make_a_video_pytorch.__file__).parent
FLOORS = [
    {"attend", "checks", "layout", "norm", "parameters", "positions"},
    {"conditions", "conv", "feed_forward", "growth", "guidance", "multihead"}
    | {"recipes", "resample"},
    {"attention", "resnet"},
    {"unet"},
    {"__init__"},
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_files_import_from_lower_floors_only(path):
    for module in imports(path):
        package, _, name = module.partition(".")
        if package != "make_a_video_pytorch":
            continue
        if FLOOR_OF[path.stem] == 0:
            assert name == "checks"
            assert path.stem != "checks"
        else:
            assert FLOOR_OF[name] < FLOOR_OF[path.stem]


def test_every_file_has_a_floor_and_a_test():
    files = {path.stem for path in PACKAGE.glob("*.py")}
    assert files == set(FLOOR_OF)
    tests = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    assert {f"test_{name}" for name in files - {"__init__"}} <= tests


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_no_file_is_over_250_lines(path):
    assert len(path.read_text().splitlines()) <= 250


def test_everything_public_is_documented_and_annotated():
    for name in make_a_video_pytorch.__all__:
        thing = getattr(make_a_video_pytorch, name)
        assert thing.__doc__
        functions = [thing.__init__, thing.forward] if inspect.isclass(thing) else [thing]
        for function in functions:
            signature = inspect.signature(function)
            assert signature.return_annotation is not inspect.Signature.empty
            for parameter in list(signature.parameters.values())[inspect.isclass(thing) :]:
                assert parameter.annotation is not inspect.Parameter.empty, (name, parameter)
