"""The Python of the site's pages that needs other libraries."""

import pytest

from tests.integrations.small import missing
from tests.pages import PAGES, blocks_of, run

CASES = [
    pytest.param(page, index, id=f"{page}-{'-'.join(sorted(block.needs))}-{index}")
    for page in PAGES
    for index, block in enumerate(blocks_of(page))
    if block.needs
]


@pytest.mark.filterwarnings("ignore:.*GradScaler:FutureWarning")  # imagen-pytorch's own
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")  # torch's
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers', with numpy 2
@pytest.mark.parametrize(("page", "index"), CASES)
def test_a_block_runs_after_those_before_it(page, index, tmp_path, monkeypatch):
    blocks = blocks_of(page)
    block = blocks[index]
    for library in sorted(block.needs):
        module = pytest.importorskip(library, reason=missing(library))
        if library == "imagen_pytorch":
            monkeypatch.setattr(module.ImagenTrainer, "locked", False)  # one a process
    monkeypatch.chdir(tmp_path)
    run(page, [before for before in blocks[:index] if before.needs <= block.needs] + [block])
