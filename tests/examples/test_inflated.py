"""An image model of diffusers learns motion from clips, and stays the image model that it was."""

import json
import re

import building
import evaluation
import pytest
import torch
import train
from checkpoints import load_unet
from diffusers import DDPMScheduler, UNet2DConditionModel, UNet2DModel
from diffusion import diffusion_loss
from draws import Draws
from errors import DataError
from inflated import Inflated

from make_a_video_pytorch import temporal_parameters
from tests.examples.media import write_two_clips
from tests.examples.models import pipeline, text_encoder
from tests.examples.runs import last

FEW = "--frames 4 --size 16 --batch-video 2 --clips 2 --sampling-steps 2 --steps-video 2 "
FEW += "--workers 0"


@pytest.fixture
def folder(tmp_path):
    return write_two_clips(tmp_path / "data")


def run(folder, *arguments, out):
    cache = folder.parent / "cache"
    given = [*FEW.split(), "--data", folder, "--out", out, "--cache", cache, *arguments]
    return train.main([str(argument) for argument in given])


def test_motion_is_trained_and_the_image_model_stays(folder, tmp_path, monkeypatch):
    made, out = pipeline(tmp_path / "pipeline"), tmp_path / "out"
    seen = []

    def seeing(model, scheduler, **others):
        if torch.is_grad_enabled():  # and not of what is held out
            seen.append((scheduler.config.prediction_type, scheduler.config.beta_schedule))
        return diffusion_loss(model, scheduler, **others)

    monkeypatch.setattr(evaluation, "diffusion_loss", seeing)
    assert run(folder, "--inflate", made, "--prompt", "a cat", out=out) == 0
    assert seen == [("epsilon", "scaled_linear")] * 2
    image_model = UNet2DConditionModel.from_pretrained(made / "unet")
    kept = UNet2DConditionModel.from_pretrained(last(out))
    for name, value in image_model.state_dict().items():
        assert torch.equal(kept.state_dict()[name], value), name
    unet = load_unet(last(out), 4, 8)
    fresh = dict(Inflated.of_images(made).named_parameters())
    moved = [n for n, p in unet.named_parameters() if not torch.equal(p, fresh[n])]
    assert moved
    assert {unet.get_parameter(name) for name in moved} <= set(temporal_parameters(unet))
    assert unet.schedule["beta_schedule"] == "scaled_linear"
    assert unet.schedule["prediction_type"] == "epsilon"
    # it goes on, and samples, with what it was made of
    few = ["--sampling-steps", "1", "--clips", "1"]
    assert train.main(["--resume", "--steps-video", "3", "--out", str(out), *few]) == 0
    assert last(out).name == "checkpoint-000003"
    assert train.main(["--sample", str(out), *few]) == 0
    options = json.loads((last(out) / "training.json").read_text())
    assert options["vae"] == options["text_encoder"] == options["inflate"] == str(made)


def test_no_text_is_the_empty_one_in_training_and_in_sampling(folder, tmp_path, monkeypatch):
    made, told = pipeline(tmp_path / "pipeline"), []
    forward = Inflated.forward

    def telling(self, x, timestep, *, context=None, context_mask=None):
        assert context_mask is None
        told.append(context)
        return forward(self, x, timestep, context=context)

    monkeypatch.setattr(Inflated, "forward", telling)
    monkeypatch.setattr(
        building,
        "drop_conditions",
        lambda share, *, context, null, **_: {
            "context": torch.stack([context[0], null["context"]])
        },
    )
    assert run(folder, "--inflate", made, "--prompt", "a cat", out=tmp_path / "out") == 0
    args = train.parser().parse_args(["--inflate", str(made), "--cache", str(tmp_path / "cache")])
    texts = building.encoders_of(args).texts
    empty, cat = (texts([text])[0][0] for text in (None, "a cat"))
    assert empty.shape == (8, 12)  # as many tokens as the tokenizer has, none hidden
    assert torch.equal(told[1][1], empty)
    assert torch.equal(told[-1], torch.stack([cat, cat, empty, empty]))


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_loss_is_of_what_the_scheduler_says(kind):
    scheduler = DDPMScheduler(prediction_type=kind, clip_sample=False)
    x, found = torch.randn(2, 3, 4, 8, 8), []

    def perfect(noisy, timesteps):
        a = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1, 1)
        noise = (noisy - a.sqrt() * x) / (1 - a).sqrt()
        found.append(noise)
        velocity = a.sqrt() * noise - (1 - a).sqrt() * x
        return {"epsilon": noise, "sample": x, "v_prediction": velocity}[kind]

    timesteps = torch.tensor([300, 900])
    loss = diffusion_loss(perfect, scheduler, x, Draws(0, 0), "cpu", timesteps)
    assert loss < 1e-8


def test_a_model_alone_is_trained_with_the_schedule_of_the_scripts(folder, tmp_path):
    model = UNet2DModel(
        in_channels=3, out_channels=6, block_out_channels=(4, 8), norm_num_groups=2,
        layers_per_block=1, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "model")  # which predicts a variance too
    assert run(folder, "--inflate", tmp_path / "model", out=tmp_path / "out") == 0
    unet = load_unet(last(tmp_path / "out"), 4, 16)
    assert unet.schedule["prediction_type"] == "v_prediction"
    assert unet(torch.randn(1, 3, 4, 16, 16), 5).shape == (1, 3, 4, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--joint", "0.5"], "--joint has no use with --inflate: the image model stays as it is"),
        (["--config", "a.json"], "--config has no use with --inflate"),
        (["--images", "x"], "--images has no use with --inflate"),
        (["--size", "17"], "--size 17 must be divisible by 2, for --vae"),
    ],
)
def test_options_that_do_not_go_with_it_are_an_error(folder, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        run(folder, "--inflate", pipeline(tmp_path / "p"), *arguments, out=tmp_path / "out")
    assert re.search(message, capsys.readouterr().err.splitlines()[-1])


def test_what_does_not_fit_is_one_line(folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no image model of diffusers"):
        Inflated.of_images(tmp_path / "empty")
    made = pipeline(tmp_path / "pipeline")
    for arguments, message in (
        (["--inflate", made / "unet"], "the U-Net has `context_dim` 12, what it is .* on None"),
        (["--inflate", made, "--data", "digits"], "--inflate is for videos: give them by --data"),
    ):
        with pytest.raises(SystemExit, match="2"):
            run(folder, *arguments, out=tmp_path / "out")
        assert re.search(message, capsys.readouterr().err.splitlines()[-1])
    # a text encoder of its own
    encoder = ["--text-encoder", text_encoder(tmp_path / "encoder")]
    assert run(folder, "--inflate", made / "unet", *encoder, out=tmp_path / "out") == 0
