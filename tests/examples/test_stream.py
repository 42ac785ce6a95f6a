"""A U-Net is made causal, learns chunks and rolls out a video."""

import re

import judges
import pytest
import stream
import torch
from checkpoints import load_unet

from make_a_video_pytorch import SpaceTimeUnet, temporal_parameters
from make_a_video_pytorch.integrations.diffusers import SpaceTimeUnetModel
from tests.examples.runs import last
from tests.zoo import UNET, randomize

SMALL = "--steps 2 --batch 2 --clips 3 --sampling-steps 2 --length 18"


def test_what_it_knows_of_pictures_stays():
    unet = randomize(SpaceTimeUnet(**UNET))
    causal = stream.made_causal(unet)
    images = torch.randn(2, 3, 8, 12)
    assert torch.equal(causal(images, 500), unet(images, 500))
    video = torch.randn(2, 3, 5, 8, 12)
    assert torch.equal(causal(video, 500), causal(video, 500, enable_time=False))
    assert causal.config["causal"]
    assert len(temporal_parameters(causal)) == len(temporal_parameters(unet))


def test_a_video_is_rolled_out_and_judged(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(judges, "STEPS", 2)
    where = ["--unet", str(trained), "--out", str(tmp_path), "--cache", str(tmp_path)]
    arguments = [*where, *SMALL.split()]
    assert stream.main(arguments) == 0
    printed = capsys.readouterr().out
    for row in ("streamed", "held-out real ones"):
        assert re.search(rf"{row}: right digit.* [\d.]+ [\d.]+; speed", printed), printed
    assert re.search(r"again, frames a second in one call behind \[16\] frames: \d+ \(", printed)
    assert (tmp_path / "over-time.png").stat().st_size > 10_000
    assert (tmp_path / "samples.gif").exists()
    unet = SpaceTimeUnetModel.from_pretrained(tmp_path / "unet").unet
    assert unet.stream().frames == 0
    images = torch.randn(2, 1, 16, 16)
    assert not torch.equal(unet(images, 5), load_unet(last(trained), 8, 16)(images, 5))


def test_a_streamed_chunk_costs_the_same_behind_more_frames():
    unet = SpaceTimeUnet(**{**UNET, "channels": 1}, causal=True, temporal_window=4)
    found = stream.costs(unet, [8, 32], 8, "cpu")
    (_, few), (_, many) = found["streamed"]
    assert many == pytest.approx(few, rel=0.05)
    (_, few), (_, many) = found["all frames again"]
    assert many > 2 * few


def test_quarters_are_the_means_of_parts():
    assert stream.quarters_of([1.0, 3.0, 5.0, 5.0, 0.0, 0.0, 2.0, 4.0]) == "2.00 5.00 0.00 3.00"
    assert stream.quarters_of([1.0, 3.0]) == "1.00 3.00"


def test_a_training_of_something_else_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        stream.main(["--unet", str(tmp_path)])
    assert stopped.value.code == 2
    assert "no checkpoint in" in capsys.readouterr().err
