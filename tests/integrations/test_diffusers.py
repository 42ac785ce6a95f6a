"""What `integrations.diffusers` exports, and what its docstrings show."""

from pathlib import Path

import pytest

from make_a_video_pytorch import SpaceTimeUnet
from tests.integrations.small import missing
from tests.test_docstrings import arguments_of, explained_in, run_example

pytest.importorskip("diffusers", reason=missing("diffusers"))

from make_a_video_pytorch.integrations import diffusers as integration

EXPORTS = {name: getattr(integration, name) for name in integration.__all__}
SHOWN = {name: thing for name, thing in EXPORTS.items() if not name.endswith("Output")}


@pytest.mark.parametrize("thing", SHOWN.values(), ids=SHOWN)
def test_every_argument_is_explained(thing):
    described = {*explained_in(thing.__doc__)}
    if "arguments" in described:
        described = {*described, *arguments_of(SpaceTimeUnet)} - {"arguments"}
    assert described == {*arguments_of(thing)}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("thing", SHOWN.values(), ids=SHOWN)
def test_its_example_runs(thing, tmp_path):
    assert run_example(thing, folder=Path(tmp_path), **EXPORTS) >= 1


def test_loading_finds_each_class_where_it_says_it_is():
    """diffusers writes the module of a class, and looks there for a base that it knows."""
    for name in ("SpaceTimeUnetModel", "InflatedDiffusersModel"):
        module = __import__(EXPORTS[name].__module__, fromlist=["ModelMixin"])
        assert getattr(module, name) is EXPORTS[name]
        assert issubclass(EXPORTS[name], module.ModelMixin)
