"""The house: a folder imports only from lower ones, a file from those before it."""

import ast
import inspect
from pathlib import Path

import pytest

import make_a_video_pytorch

PACKAGE = Path(make_a_video_pytorch.__file__).parent
# The floors, and the files of each room in their order.
FLOORS = [
    {
        "ops": [
            "checks",
            "torch_internals",
            "parameters",
            "layout",
            "trees",
            "past",
            "decision",
            "gradients.by_hand",
            "gradients.convolution",
            "gradients.norm",
            "gradients.attention",
            "norm",
            "positions",
            "attention_kernels",
            "attend",
        ],
    },
    {
        "modules": [
            "stream",
            "conv",
            "resample",
            "feed_forward",
            "multihead",
            "attention",
            "timestep",
            "resnet",
        ],
        "guidance": ["nulls", "dropping", "scales", "guided", "__init__"],
        "recipes": ["kept", "noise", "rates", "levels", "denoising", "rolling", "__init__"],
    },
    {
        "unet": ["conditions", "growth", "stages", "unet", "control"],
        "inflation": [
            "foreign",
            "folding",
            "reasons",
            "clip",
            "temporal",
            "motion",
            "inflated",
            "inflate",
        ],
    },
    {
        "cascade": [
            "done",
            "frames",
            "asked",
            "settings",
            "stage",
            "decoder",
            "interpolation",
            "super_resolution",
            "cascade",
            "__init__",
        ],
    },
    {
        "integrations": [
            "adapter",
            "dalle2_decoder",
            "dalle2_prior",
            "dalle2",
            "imagen",
            "motion_file",
            "diffusers_unet",
            "diffusers_control",
            "diffusers_inflated",
            "diffusers_conditions",
            "diffusers_frames",
            "diffusers_pipeline",
            "diffusers_cascade",
            "diffusers",
        ],
    },
    {"top": ["__init__"]},
]
PLACES = {
    f"{room}.{name}".removeprefix("top.").lstrip("."): (floor, room, place)
    for floor, rooms in enumerate(FLOORS)
    for room, names in rooms.items()
    for place, name in enumerate(names)
}
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "make_a_video_pytorch":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def may_import(importer, imported):
    """Whether a file of a higher floor, or one further back in the same room, asks."""
    floor, room, place = PLACES[importer]
    if imported not in PLACES:
        imported += ".__init__"  # what a folder exports
    its_floor, its_room, its_place = PLACES[imported]
    return its_floor < floor or (its_room == room and its_floor == floor and its_place < place)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_import_from_lower_floors_only(path):
    name = name_of(path)
    for module in imports(path):
        package, _, imported = module.partition(".")
        if package == "make_a_video_pytorch":
            assert name in PLACES, "a folder says what it holds, and no more"
            assert may_import(name, imported), f"{name} imports {imported}"


def test_the_rule_of_the_house():
    assert may_import("modules.conv", "ops.layout")
    assert may_import("unet.unet", "modules.resnet")
    assert may_import("ops.norm", "ops.gradients.norm")
    assert not may_import("ops.gradients.norm", "ops.norm")
    assert not may_import("ops.layout", "modules.conv")
    assert not may_import("unet.unet", "inflation.temporal")
    assert not may_import("inflation.temporal", "unet.unet")


def test_every_file_has_a_place_and_a_test():
    folders = {f"{place.rpartition('.')[0]}.__init__" for place in PLACES if "." in place}
    assert {name_of(path) for path in FILES} == set(PLACES) | folders
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
        if inspect.ismodule(thing):
            continue
        call = "forward" if hasattr(thing, "forward") else "__call__"
        functions = [thing.__init__, getattr(thing, call)] if inspect.isclass(thing) else [thing]
        for function in functions:
            signature = inspect.signature(function)
            assert signature.return_annotation is not inspect.Signature.empty
            for parameter in list(signature.parameters.values())[inspect.isclass(thing) :]:
                assert parameter.annotation is not inspect.Parameter.empty, (name, parameter)
