"""The house: a file imports only from lower floors."""

import ast
import inspect
from pathlib import Path

import pytest

import make_a_video_pytorch

PACKAGE = Path(make_a_video_pytorch.__file__).parent
FLOORS = [
    {"attend", "checks", "foreign", "gradients", "layout", "norm", "parameters", "positions"}
    | {"torch_internals"},
    {"conditions", "conv", "feed_forward", "folding", "growth", "guidance", "multihead"}
    | {"recipes", "resample"},
    {"attention", "resnet", "temporal"},
    {"motion", "unet"},
    {"inflated", "integrations.adapter"},
    {"inflate", "integrations.dalle2_decoder", "integrations.imagen"},
    {"integrations.dalle2"},
    {"__init__", "integrations.__init__"},
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
GROUND = ["checks", "torch_internals", "gradients"]  # of floor 0, in their order
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_import_from_lower_floors_only(path):
    for module in imports(path):
        package, _, name = module.partition(".")
        if package != "make_a_video_pytorch":
            continue
        if FLOOR_OF[name_of(path)] == 0:
            earlier = GROUND[: GROUND.index(path.stem)] if path.stem in GROUND else GROUND
            assert name in earlier
        else:
            assert FLOOR_OF[name] < FLOOR_OF[name_of(path)]


def test_every_file_has_a_floor_and_a_test():
    assert {name_of(path) for path in FILES} == set(FLOOR_OF)
    for path in FILES:
        folder = Path(__file__).parent / path.relative_to(PACKAGE).parent
        assert path.stem == "__init__" or (folder / f"test_{path.stem}.py").is_file()


@pytest.mark.parametrize("path", FILES, ids=name_of)
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
