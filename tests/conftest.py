import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch._dynamo

from benchmarks import peers
from benchmarks.libraries import import_libraries

import_libraries(["torchvision"])  # without which diffusers fails where it is installed
torch.set_num_threads(1)  # far faster on tensors this small


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def dynamo():
    """The compiler, with nothing compiled before or after.

    Under it the lines of a test are not counted: that would take ten times as long.
    """
    coverage = sys.modules.get("coverage")
    counting = None if coverage is None else coverage.Coverage.current()
    torch._dynamo.reset()
    if counting is not None:
        counting.stop()
    yield torch._dynamo
    if counting is not None:
        counting.start()
    torch._dynamo.reset()


@pytest.fixture(scope="session")
def original(request) -> ModuleType:
    """The package this one is measured against, which has the same import name."""
    folder = Path(request.config.cache.mkdir("original"))
    try:
        return peers.original(folder)
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            pytest.fail(f"{peers.ORIGINAL} cannot be installed: {error.stderr}")
        pytest.skip(f"{peers.ORIGINAL} cannot be installed; `pip download {peers.ORIGINAL}`")
