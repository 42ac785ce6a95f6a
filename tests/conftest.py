import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

torch.set_num_threads(1)  # far faster on tensors this small

ROOT = Path(__file__).parent.parent
ORIGINAL = "make-a-video-pytorch==0.4.0"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def original(request) -> ModuleType:
    """The package this one is measured against, which has the same import name."""
    folder = Path(request.config.cache.mkdir("original"))
    if not (folder / "make_a_video_pytorch").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(folder)]
        done = subprocess.run([*pip, ORIGINAL], capture_output=True, text=True, check=False)
        if done.returncode:
            if os.environ.get("CI"):
                pytest.fail(f"{ORIGINAL} cannot be installed: {done.stderr}")
            pytest.skip(f"{ORIGINAL} cannot be installed; `pip download {ORIGINAL}` says why")

    def ours() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] == "make_a_video_pytorch"]
        return {name: sys.modules.pop(name) for name in names}

    kept = ours()
    sys.path.insert(0, str(folder))
    try:
        package = importlib.import_module("make_a_video_pytorch")
        ours()
    finally:
        sys.path.remove(str(folder))
        sys.modules.update(kept)
    assert Path(package.__file__).is_relative_to(folder)
    return package
