import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = {
    library: block
    for library in ("dalle2_pytorch", "imagen_pytorch")
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    if f"from {library}" in block
}


@pytest.mark.filterwarnings("ignore:.*GradScaler:FutureWarning")  # imagen-pytorch's own
@pytest.mark.parametrize("library", ["dalle2_pytorch", "imagen_pytorch"])
def test_the_readmes_block_runs(library, monkeypatch):
    why = f'{library} is missing: pip install -c constraints.txt -e ".[test-integrations]"'
    module = pytest.importorskip(library, reason=why)
    if library == "imagen_pytorch":
        monkeypatch.setattr(module.ImagenTrainer, "locked", False)  # one a process
    namespace = {}
    exec(compile(BLOCKS[library], "README.md", "exec"), namespace)
    assert namespace["sampled"].isfinite().all()
    assert namespace["loss"] > 0
