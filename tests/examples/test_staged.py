"""Stages of a cascade, trained by the training script."""

import json
import re

import numpy as np
import pytest
import torch
import train
from building import SMALL, Encoders
from clips import MovingDigits
from diffusion import sampler
from draws import Draws
from evaluation import denoising_of
from PIL import Image
from staged import made_by
from torch import Generator

from make_a_video_pytorch import SpaceTimeUnet, temporal_parameters
from make_a_video_pytorch.cascade import Cascade, Decoder
from make_a_video_pytorch.integrations.diffusers import load_cascade, save_cascade
from tests.examples import models
from tests.examples.media import write_two_clips
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
        frames = 1 if name == "largest" else stage.window  # that see no other frame
        assert sheet.size == (frames * shown, 3 * shown)
    unet = SpaceTimeUnet(**stage.model.config)
    temporal = {n for n, p in unet.named_parameters() if p in {*temporal_parameters(unet)}}
    moved = bool(temporal & changed(before[name], after[name]))
    assert moved is (name != "largest")


def test_an_interpolation_is_shown_between_frames_of_held_out_clips(folder):
    out = trained(folder, "between")
    with Image.open(out / "samples.png") as sheet:
        pictures = np.array(sheet).reshape(3, 66, 5, 66).swapaxes(1, 2)[:, :, 1:65:8, 1:65:8]
    held_out = MovingDigits(8, held_out=True)(3, 5, Draws(0, 1).generator).videos[:, 0]
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
        (["--grow", "decoder"], "--grow is how a training of a --stage begins"),
        (["--stage", "{}/largest", "--steps-images", "0"], "leave the stage nothing to learn"),
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


def test_a_result_that_was_half_put_in_its_place_is_there_in_the_next_run(folder):
    (folder / "larger" / "unet").rename(folder / "larger" / "unet.older")  # and was stopped
    before = weights(models.cascade(folder.parent / "other"), "larger")
    few = ("--steps-images", 1, "--steps-video", 0, "--lr", 1e-9)
    assert run("--stage", folder / "larger", *few, out=folder.parent / "run") == 0
    after = weights(folder, "larger")
    for name in before:
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)


def test_a_run_that_has_nothing_left_to_do_leaves_the_stage_alone(folder):
    out = trained(folder, "larger")
    models.cascade(folder)
    before = weights(folder, "larger")
    assert train.main(["--resume", "--out", str(out)]) == 0
    assert not changed(before, weights(folder, "larger"))


@pytest.mark.parametrize("multiple", [False, True])
def test_a_window_that_does_not_end_with_a_kept_frame_is_shown_whole(folder, multiple):
    cascade = load_cascade(folder)
    stage = cascade.stages["between"]
    if multiple:  # frames that come in twos
        config = {**stage.model.config, "temporal_compression": (True, False)}
        stage.model = SpaceTimeUnet(**config)
    stage.window = 4
    save_cascade(Cascade({"between": stage}), folder)
    out = trained(folder, "between")
    with Image.open(out / "samples.png") as sheet:
        assert sheet.size == (4 * 66, 3 * 66)


@pytest.fixture
def clips(tmp_path):
    return write_two_clips(tmp_path / "clips")


def test_a_decoder_of_texts_is_trained_on_clips_and_guided_if_it_is_told(clips, tmp_path, capsys):
    """Its schedule does not clip what it makes, which lies in [-1, 1] though."""
    small = {**SMALL, "dim": 4, "attn_dim_head": 4, "attn_heads": 1}
    unet = SpaceTimeUnet(context_dim=12, condition_on_fps=True, **small)
    stage = Decoder(unet, sampler(clamped=False), size=(8, 8), frames=4, steps=1, guidance=9.0)
    save_cascade(Cascade({"decoder": stage}), tmp_path / "cascade")
    encoder = models.text_encoder(tmp_path / "encoder")
    out, cache = tmp_path / "run", tmp_path / "cache"
    given = ("--data", clips, "--text-encoder", encoder, "--workers", 0, "--cache", cache)
    steps = ("--steps-images", 1, "--steps-video", 1)
    assert run("--stage", tmp_path / "cascade" / "decoder", *given, *steps, out=out) == 0
    plain = (out / "samples.png").read_bytes()  # nothing was asked for
    again = ["--sample", str(out), "--clips", "3"]
    assert train.main([*again, "--prompt", "a red ball"]) == 0
    assert (out / "sampled-1.png").read_bytes() != plain
    assert train.main([*again, "--guidance", "2"]) == 0
    assert (out / "sampled-2.png").read_bytes() == plain
    assert "--guidance 2.0 does nothing" in capsys.readouterr().out
    args = train.parser().parse_args([])
    args.device, args.frames, stage.guidance = "cpu", 4, 1
    videos = made_by(stage, unet, None, [0, 1], {"fps": 8.0}, args)
    assert videos.abs().max() == 1


def test_what_embeddings_a_decoder_is_told_must_be_known(clips, folder, capsys):
    stage = load_cascade(folder).stages["decoder"]
    stage.model = SpaceTimeUnet(**{**stage.model.config, "channels": 3})
    save_cascade(Cascade({"decoder": stage}), folder)
    with pytest.raises(SystemExit, match="2"):
        run("--stage", folder / "decoder", "--data", clips, out=folder.parent / "run")
    assert "`cond_dim` 16, what it is to be trained on None" in capsys.readouterr().err
