"""An image model of diffusers learns to move."""

import re

import inflate as inflating
import numpy as np
import pytest
import torch
from PIL import Image

from make_a_video_pytorch import inflate, temporal_parameters
from make_a_video_pytorch.integrations.diffusers import InflatedDiffusersModel


def test_an_image_model_is_inflated_and_keeps_its_images(tmp_path, capsys):
    tiny = "--steps-images 2 --steps-video 2 --batch-images 2 --batch-video 2 --clips 3 "
    tiny += "--frames 3 --sampling-steps 2"
    assert inflating.main([*tiny.split(), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "the same bit for bit" in printed
    assert re.search(r"convs=\d+, attentions=4", printed), printed
    with Image.open(tmp_path / "samples.png") as sheet:
        pictures = np.array(sheet).reshape(6, 62, 3, 62).swapaxes(1, 2)
    assert not (pictures[:3] == pictures[3:]).all()  # it has learned something
    video_unet = InflatedDiffusersModel.from_pretrained(tmp_path)
    assert video_unet.config.inflation["heads"] == 4
    assert any(p.any() for p in temporal_parameters(video_unet))


def test_inflating_refuses_a_clip_of_one_frame(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        inflating.main(["--frames", "1", "--out", str(tmp_path)])
    assert capsys.readouterr().err.endswith(
        "error: --frames 1 must be 2 or more, for anything to move\n"
    )


def test_an_inflated_model_that_changes_images_is_an_error(tmp_path, monkeypatch):
    def spoil(model, **kwargs):
        model.conv_out.bias.data += 1
        return inflate(model, **kwargs)

    monkeypatch.setattr(inflating, "inflate", spoil)
    tiny = "--steps-images 1 --steps-video 1 --batch-images 1 --batch-video 1 --clips 1 "
    tiny += "--frames 2 --sampling-steps 1"
    with pytest.raises(RuntimeError, match="other images"):
        inflating.main([*tiny.split(), "--out", str(tmp_path)])


def test_the_change_from_frame_to_frame_is_that_of_pixels():
    clips = torch.tensor([0.0, 1.0, -1.0]).view(1, 1, 3, 1, 1)
    assert inflating.change(clips) == pytest.approx(1.5)
