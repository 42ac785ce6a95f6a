"""A branch is trained on outlines."""

import re

import control
import torch
from checkpoints import load_unet

from make_a_video_pytorch.integrations.diffusers import ControlBranchModel
from tests.examples.runs import last


def test_an_outline_surrounds_what_is_light():
    clip = torch.full((1, 3, 2, 9, 9), -1.0)
    clip[:, :, 1, 3:6, 4:6] = 1.0
    drawn = control.outlines(clip)
    assert drawn.shape == (1, 1, 2, 9, 9)
    assert not drawn[:, :, 0].any()
    inside = torch.zeros(9, 9)
    inside[2:7, 3:7] = 1
    inside[3:6, 4:6] = 0
    assert torch.equal(drawn[0, 0, 1], inside)


def test_a_branch_is_trained_and_saved_and_samples_follow(trained, tmp_path, capsys):
    few = ["--steps", "3", "--batch", "2", "--clips", "3", "--sampling-steps", "2"]
    assert control.main(["--unet", str(trained), "--out", str(tmp_path), *few]) == 0
    assert re.search(
        r"with the outlines: -?\d+.\d\d dB\nwithout them: -?\d+.\d\d dB\n", capsys.readouterr().out
    )
    branch = ControlBranchModel.from_pretrained(tmp_path / "branch").branch
    unet = load_unet(last(trained), 8, 16)
    x, drawn = torch.randn(2, 1, 8, 16, 16), torch.rand(2, 1, 8, 16, 16)
    out = control.controlled(unet, branch, drawn, x, torch.tensor([5, 500]))
    assert not torch.equal(out, unet(x, torch.tensor([5, 500])))
