import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """What the blocks define, run one after another as a reader would."""
    namespace = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), namespace)
    return namespace


def test_every_block_runs(names):
    assert len(BLOCKS) == 3
    model = names["video_model"]
    model(names["videos"]).square().sum().backward()
    learns = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert learns
    assert all(parameter.grad is not None for parameter in learns)


def test_the_line_of_proof_can_fail(names):
    unet, videos = names["unet"], names["videos"]
    torch.nn.init.normal_(unet.conv_in.temporal_conv.weight)
    assert not torch.equal(unet(videos, 500), unet(videos, 500, enable_time=False))


def test_it_is_read_in_two_minutes():
    assert len(README.splitlines()) <= 150
    assert len(BLOCKS[0].splitlines()) <= 18


def test_the_version_stands_in_one_place_and_heads_the_changelog():
    version = re.search(r'version="(.*?)"', (ROOT / "setup.py").read_text())[1]
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text()
