"""Stages of a cascade, trained by the training script."""

import json
import re

import numpy as np
import pytest
import torch
import train
from building import Encoders
from clips import MovingDigits
from draws import Draws
from evaluation import denoising_of
from PIL import Image
from torch import Generator

from make_a_video_pytorch import SpaceTimeUnet, temporal_parameters
from make_a_video_pytorch.cascade import Cascade
from make_a_video_pytorch.integrations.diffusers import load_cascade, save_cascade
from tests.examples import models
from tests.examples.runs import last, run

NAMES = ("decoder", "between", "larger", "largest")


@pytest.fixture
def folder(tmp_path):
    return models.cascade(tmp_path / "cascade")


def trained(folder, name, *arguments):
    out = folder.parent / f"run-{name}"
    given = ("--stage", folder / name, "--steps-images", 2, "--steps-video", 3, *arguments)
    assert run(*given, out=out) == 0
    return out


def weights(folder, name):
    return load_cascade(folder).stages[name].model.state_dict()


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_is_trained_and_has_the_result(folder, name):
    before = {other: weights(folder, other) for other in NAMES}
    out = trained(folder, name)
    after = {other: weights(folder, other) for other in NAMES}
    assert [other for other in NAMES if changed(before[other], after[other])] == [name]
    assert not changed(train.load_unet(last(out), 4, 16).state_dict(), after[name])
    assert not {*folder.glob("*/unet.*")}
    # the phases that it has, at its size
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    phases = {line["phase"] for line in lines}
    assert phases == {"between": {"video"}, "largest": {"images"}}.get(name, {"images", "video"})
    stage = load_cascade(folder).stages[name]
    with Image.open(out / "samples.png") as sheet:
        shown = max(64 // stage.size[0], 1) * stage.size[0] + 2
        assert sheet.size == (stage.window * shown, 3 * shown)
    unet = SpaceTimeUnet(**stage.model.config)
    temporal = {n for n, p in unet.named_parameters() if p in {*temporal_parameters(unet)}}
    moved = bool(temporal & changed(before[name], after[name]))
    assert moved is (name != "largest")


def test_an_interpolation_is_shown_between_frames_of_held_out_clips(folder):
    out = trained(folder, "between")
    with Image.open(out / "samples.png") as sheet:
        pictures = np.array(sheet).reshape(3, 66, 5, 66).swapaxes(1, 2)[:, :, 1:65:8, 1:65:8]
    held_out = MovingDigits(8, held_out=True)(3, 5, Draws(0, 0).generator).videos[:, 0]
    real = ((held_out + 1) * 127.5).round().byte().numpy()
    assert (pictures[:, ::2] == real[:, ::2]).all()
    assert (pictures[:, 1::2] != real[:, 1::2]).any()


def test_it_grows_from_a_stage_that_is_trained(folder):
    trained(folder, "decoder")
    decoder = weights(folder, "decoder")
    before = weights(folder, "between")
    out = folder.parent / "grown"
    few = ("--steps-video", 1, "--lr", 1e-9, "--grow", "decoder")
    assert run("--stage", folder / "between", *few, out=out) == 0
    after = weights(folder, "between")
    same = {name for name in decoder if decoder[name].shape == after[name].shape}
    assert len(same) > 20
    for name in same:
        torch.testing.assert_close(after[name], decoder[name], atol=1e-6, rtol=0)
    assert changed(before, after) & same


def test_a_run_goes_on_and_samples_again(folder, capsys):
    whole = trained(folder, "larger", "--save-every", 2)
    expected = weights(folder, "larger")
    part = folder.parent / "part"
    few = ("--stage", folder / "larger", "--steps-images", 2, "--steps-video", 1)
    models.cascade(folder)  # as before
    assert run(*few, "--save-every", 2, out=part) == 0
    capsys.readouterr()
    assert train.main(["--resume", "--out", str(part), "--steps-video", "3"]) == 0
    assert not changed(expected, weights(folder, "larger"))
    sheet = (whole / "samples.png").read_bytes()
    assert train.main(["--sample", str(whole), "--clips", "3"]) == 0
    assert (whole / "sampled-1.png").read_bytes() == sheet
    assert train.main(["--evaluate", str(whole)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"held-out loss: [\d.]+\n$", printed), printed


def test_the_loss_is_that_of_the_stage(folder):
    stage = load_cascade(folder).stages["between"]
    x = MovingDigits(8)(4, 5, Generator().manual_seed(3)).videos
    timesteps = torch.tensor([10, 300, 600, 990])
    asked = {"x": x, "device": "cpu", "timesteps": timesteps}
    loss = denoising_of(stage.model, stage)(stage.model, draws=Draws(1, 2), **asked)
    (generator,) = Draws(1, 2).generators(1)
    assert loss == stage.loss(x, timesteps=timesteps, generator=generator)
    shares = [denoising_of(stage.model, stage)(stage.model, draws=Draws(1, 2, n, 2), **asked)
              for n in range(2)]  # fmt: skip
    assert shares[0] != shares[1]


def test_it_is_told_what_the_stage_takes():
    told = {"cond": torch.ones(1), "fps": torch.ones(1)}
    assert Encoders(None, None).told(told) == told
    assert Encoders(None, None, taken=("fps",)).told(told).keys() == {"fps"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "nowhere/decoder"], "nowhere holds no cascade"),
        (["--stage", "{}/other"], "no stage 'other' in .*: there are decoder, between"),
        (["--stage", "{}/decoder", "--grow", "other"], "no stage 'other'"),
        (["--stage", "{}/largest", "--grow", "decoder"], "cannot grow from decoder: `cond_dim`"),
        (["--stage", "{}/larger", "--config", "x.json"], "--config has no use with --stage"),
        (["--stage", "{}/larger", "--data", "clips", "--vae", "x"], "--vae has no use with"),
        (["--grow", "decoder"], "--grow is of a --stage"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(folder, arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(*(str(a).format(folder) for a in arguments), out=folder.parent / "run")
    assert stopped.value.code == 2
    assert re.search(f"error: .*{message}", capsys.readouterr().err)


def test_frames_must_be_squares(folder, capsys):
    cascade = load_cascade(folder)
    decoder = cascade.stages["decoder"]
    decoder.size = (8, 16)
    save_cascade(Cascade({"decoder": decoder}), folder)
    with pytest.raises(SystemExit):
        run("--stage", folder / "decoder", out=folder.parent / "run")
    assert "makes frames of (8, 16), and clips are read as squares" in capsys.readouterr().err
