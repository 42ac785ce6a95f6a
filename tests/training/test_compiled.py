"""What torch's default compiler makes of the U-Net, which takes it minutes."""

import json
import shutil

import pytest
import torch
import train
from accelerate.state import AcceleratorState
from packaging.version import Version

from make_a_video_pytorch import SpaceTimeUnet
from tests.zoo import ONE_STAGE, randomize

TORCH_2_6 = Version(torch.__version__).release < (2, 7)


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")
@pytest.mark.filterwarnings("ignore:Skipping serialization of skipfiles")  # torch 2.6, its own
def test_the_default_compiler_gives_the_same_outputs_and_gradients(dynamo):
    # Inductor of torch 2.6 has no CPU code for the gradient of a gathered bias.
    unet = randomize(SpaceTimeUnet(**ONE_STAGE, attn_pos_bias=not TORCH_2_6), 0.1)
    compiled = torch.compile(unet, fullgraph=True)
    video, timestep = torch.randn(1, 3, 2, 4, 6), torch.tensor([5])
    results = []
    for model in (unet, compiled):
        unet.zero_grad()
        out = model(video, timestep)
        out.square().sum().backward()
        results.append([out, *(p.grad.clone() for p in unet.parameters())])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")
def test_a_training_that_is_compiled_has_the_losses_of_one_that_is_not(dynamo, tmp_path):
    """In both phases, whose batches have other shapes."""
    config = tmp_path / "unet.json"
    config.write_text(json.dumps({
        "dim": 4, "dim_mult": [1], "self_attns": [False], "temporal_compression": [False],
        "resnet_block_depths": [1],
    }))  # fmt: skip
    found = []
    for compiled in ([], ["--compile"]):
        out = tmp_path / f"run-{len(found)}"
        train.main([
            "--config", str(config), "--out", str(out), "--size", "8", "--frames", "4",
            "--batch-images", "4", "--batch-video", "2", "--steps-images", "2",
            "--steps-video", "2", "--clips", "1", "--sampling-steps", "1",
            "--cache", str(tmp_path), *compiled,
        ])  # fmt: skip
        AcceleratorState._reset_state(reset_partial_state=True)
        lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        found.append([line["loss"] for line in lines if "loss" in line])
    assert len(found[0]) == 4
    assert found[1] == pytest.approx(found[0], rel=1e-4)
