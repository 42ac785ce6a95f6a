"""The examples can be imported, and one of their runs is there to start from."""

import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))


@pytest.fixture(autouse=True)
def _another_run():
    """What Accelerate knows of a process is of one run, and here one process has many."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True, scope="package")
def _embedding():
    """None of them waits for an embedding to learn something."""
    import building

    from tests.examples.models import embedding_of_digits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "embedding_of_digits", embedding_of_digits)
        yield


@pytest.fixture(scope="package")
def trained(tmp_path_factory):
    """The folder of a short training on digits."""
    from tests.examples.runs import run

    out = tmp_path_factory.mktemp("run")
    assert run("--steps-images", 3, "--steps-video", 4, "--save-every", 2, out=out) == 0
    return out
