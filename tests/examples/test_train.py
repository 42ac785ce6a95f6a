"""The training script as one runs it, small."""

import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time

import building
import control
import evaluation
import inflate as inflating
import interpolate
import judges
import make_shards
import measures
import numpy as np
import pytest
import sampling
import torch
import train
import training
from accelerate.state import AcceleratorState
from errors import DataError
from PIL import Image
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing import event_accumulator

from make_a_video_pytorch import SpaceTimeUnet, temporal_parameters
from make_a_video_pytorch.integrations.diffusers import SpaceTimeUnetModel
from tests.examples.media import number, write_numbers, write_picture, write_video
from tests.examples.models import autoencoder, cache, embedding_of_digits, text_encoder
from tests.examples.runs import SCRIPT, TINY, WEIGHTS, last, run
from tests.zoo import as_in_1_0_0

# The command lines


@pytest.mark.parametrize(
    "script", [train, interpolate, inflating, control], ids=lambda s: s.__name__
)
def test_help_shows_the_default_of_each_option_that_has_one(script, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        script.main(["--help"])
    shown = capsys.readouterr().out
    assert script.__doc__.strip() in shown  # as it is written
    _, *options = re.split(r"\n  --(?=[a-z])", shown)
    defaults = {}
    for option in options:
        name = re.match("[a-z-]+", option)[0].replace("-", "_")
        # a long help is wrapped
        default = re.search(r"\(default: (.+)\)$", " ".join(option.split()))
        defaults[name] = default[1] if default else None
    used = vars(script.parser().parse_args([]))
    # what is off unless it is asked for has no default to show
    assert defaults == {
        name: None if value is None or value is False else str(value)
        for name, value in used.items()
    }


# Training


def test_it_writes_samples_and_one_checkpoint(trained):
    assert sorted(path.name for path in trained.iterdir()) == [
        "checkpoint-000007",
        "losses.png",
        "metrics.jsonl",
        "samples",
        "samples.gif",
        "samples.mp4",
        "samples.png",
    ]
    # after the images; those at the end are the run's
    kinds = ("gif", "mp4", "png")
    assert {path.name for path in (trained / "samples").iterdir()} == {
        f"step-000003.{kind}" for kind in kinds
    }
    with Image.open(trained / "samples.png") as sheet, Image.open(trained / "samples.gif") as gif:
        assert sheet.size == (8 * (16 * 4 + 2), 3 * (16 * 4 + 2))
        assert gif.n_frames == 8
        assert np.asarray(sheet).std() > 10


def test_the_checkpoint_builds_the_unet(trained):
    unet = train.load_unet(last(trained), frames=8, size=16)
    assert unet.config == SpaceTimeUnetModel.from_pretrained(last(trained)).unet.config
    fresh = dict(SpaceTimeUnet(**unet.config).named_parameters())
    temporal = set(temporal_parameters(unet))
    moved = [
        n for n, p in unet.named_parameters() if p in temporal and not torch.equal(p, fresh[n])
    ]
    assert any("temporal_conv" in name for name in moved)


def test_sampling_from_a_checkpoint_gives_the_same_again(trained, tmp_path):
    """And overwrites neither what the run made nor what was sampled before."""
    run_folder = shutil.copytree(trained, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run_folder.glob("samples.*")}
    few = ["--sample", str(run_folder), "--clips", "3", "--sampling-steps", "2"]
    for count in (1, 2):
        assert train.main(few) == 0
        for kind in ("gif", "png"):
            again = (run_folder / f"sampled-{count}.{kind}").read_bytes()
            assert again == before[f"samples.{kind}"]
    assert {path.name: path.read_bytes() for path in run_folder.glob("samples.*")} == before
    # longer and larger clips than it was trained on, somewhere else
    assert train.main([*few, "--frames", "16", "--size", "24", "--out", str(tmp_path)]) == 0
    with Image.open(tmp_path / "sampled-1.gif") as gif:
        assert gif.n_frames == 16


def test_a_resumed_run_is_the_run_that_was_not_interrupted(trained, tmp_path, capsys):
    steps = ["--steps-images", 3, "--steps-video", 4]
    saved = training.save_checkpoint

    def save_and_stop(out, step, *args):
        saved(out, step, *args)
        if step == 4:
            raise KeyboardInterrupt

    training.save_checkpoint = save_and_stop
    try:
        assert run(*steps, "--save-every", 2, out=tmp_path) == 130
    finally:
        training.save_checkpoint = saved
    assert "checkpoint-000004 is kept" in capsys.readouterr().out
    assert last(tmp_path).name == "checkpoint-000004"
    assert run(*steps, "--resume", "--save-every", 100, out=tmp_path) == 0
    again, once = (load_file(last(out) / WEIGHTS) for out in (tmp_path, trained))
    for name, tensor in once.items():
        torch.testing.assert_close(again[name], tensor, msg=name)


def test_a_run_of_1_0_0_goes_on_with_a_new_optimizer(trained, tmp_path, capsys):
    shutil.copytree(last(trained), tmp_path / "checkpoint-000007")
    state = torch.load(last(tmp_path) / "training.pt", weights_only=True)
    for part in ("unet", "ema"):
        state[part] = as_in_1_0_0(state[part])
    # keys and values were one parameter
    group = state["optimizer"]["param_groups"][0]
    group["params"] = group["params"][:-1]
    torch.save(state, last(tmp_path) / "training.pt")
    # and the U-Net lay beside a table of both kinds of arguments
    unet, options = train.load_unet(last(tmp_path), 8, 16), train.options_of(last(tmp_path))
    for written in ("training.json", WEIGHTS):
        (last(tmp_path) / written).unlink()
    save_file(as_in_1_0_0(unet.state_dict()), last(tmp_path) / "unet.safetensors")
    config = json.dumps({"unet": unet.config, "training": options})
    (last(tmp_path) / "config.json").write_text(config)
    assert run("--resume", "--steps-images", 3, "--steps-video", 5, out=tmp_path) == 0
    assert (
        "is of an earlier version: the weights go on, the optimizer anew" in capsys.readouterr().out
    )
    assert last(tmp_path).name == "checkpoint-000008"
    again, before = (load_file(last(out) / WEIGHTS) for out in (tmp_path, trained))
    for name, tensor in before.items():
        torch.testing.assert_close(again[name], tensor, rtol=0.1, atol=0.05, msg=name)


def test_a_killed_run_leaves_a_complete_checkpoint_or_none(tmp_path):
    given = ["--out", str(tmp_path), "--cache", str(cache(tmp_path / "cache"))]
    command = [*SCRIPT, *TINY.split(), *given]
    steps = ["--steps-images", "100000", "--save-every", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, *steps], stderr=subprocess.DEVNULL, env=environment
    ) as process:
        deadline = time.monotonic() + 120
        while not train.checkpoints(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    for path in train.checkpoints(tmp_path):
        assert load_file(path / WEIGHTS)
        assert torch.load(path / "training.pt", weights_only=True)["step"] == int(path.name[-6:])
    assert train.checkpoints(tmp_path)
    assert run("--resume", "--steps-images", 1, "--steps-video", 0, out=tmp_path) == 0


def test_it_trains_on_a_video_file(tmp_path):
    video = write_video(tmp_path / "bar.mp4")
    out = tmp_path / "out"
    assert run("--data", video, "--steps-images", 1, "--steps-video", 1, out=out) == 0
    assert json.loads((last(out) / "config.json").read_text())["channels"] == 3


def test_a_resumed_run_remembers_what_it_was_told(tmp_path):
    video = write_video(tmp_path / "bar.mp4")
    out = tmp_path / "out"
    told = ["--data", video, "--size", 8, "--steps-images", 1, "--steps-video", 1]
    assert run(*told, out=out) == 0
    more = ["--out", str(out), "--resume", "--steps-video", "2", "--sampling-steps", "2"]
    assert train.main(more) == 0
    options = train.options_of(last(out))
    assert last(out).name == "checkpoint-000003"
    assert options["data"] == str(video)
    assert (options["size"], options["frames"]) == (8, 8)
    assert options["steps_video"] == 2


def test_a_finished_run_is_not_written_over(trained, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("--steps-images", 1, out=trained)
    assert stopped.value.code == 2
    assert "holds a run: go on with --resume, or give another --out" in capsys.readouterr().err
    assert last(trained).name == "checkpoint-000007"


# Bad input


def text(path):
    path.write_text("no video")
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda p: ["--data", p / "nothing.mp4"], "no such file or folder: .*nothing.mp4"),
        (lambda p: ["--data", text(p / "notes.txt")], r"notes.txt is no video \(.mp4"),
        (lambda p: ["--data", text(p / "fake.mp4")], "fake.mp4 cannot be decoded as a video"),
        (lambda p: ["--data", p], r"no video in .* \(.mp4"),
        (
            lambda p: ["--data", write_video(p / "short.mp4", 2)],
            "short.mp4 has 2 frames, a clip takes 8",
        ),
        (lambda p: ["--size", "18"], r"`height` \(=18\) must be divisible by 4"),
        (lambda p: ["--size", "0"], "argument --size: invalid positive value: '0'"),
        (lambda p: ["--steps-images", "many"], "argument --steps-images: invalid"),
        (
            lambda p: ["--device", "abacus"],
            "argument --device: `abacus` cannot be used: Expected one of cpu",
        ),
        (
            lambda p: ["--sampling-steps", "1001"],
            "argument --sampling-steps: 1001 must be at most 1000",
        ),
        (lambda p: ["--out", text(p / "file")], "file cannot be a folder"),
        (lambda p: ["--resume"], "no checkpoint in"),
        (lambda p: ["--sample", p / "nowhere"], "no checkpoint in .*nowhere"),
        (lambda p: ["--sizes", "3"], "--sizes"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_bad_input_is_one_line_and_code_2(arguments, message, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    with pytest.raises(SystemExit) as stopped:
        run(*arguments(folder), out=tmp_path / "out")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert error.count("error:") == 1
    assert re.search(message, error), error


# Collections


@pytest.fixture
def folder(tmp_path):
    """Three videos with captions, two files that are none, and pictures."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a", "b", "c"):
        write_numbers(data / f"{name}.mp4", 24)
        (data / f"{name}.txt").write_text(f"a clip {name}")
    (data / "broken.mp4").write_text("no video")
    write_numbers(data / "short.mp4", 1)
    (tmp_path / "pictures").mkdir()
    for n in range(3):
        write_picture(tmp_path / "pictures" / f"{n}.jpg", number(n))
    return data


FEW = "--dim 4 --frames 8 --size 16 --batch-images 2 --batch-video 2 --clips 2 --sampling-steps 2"
FEW += " --steps-images 2 --steps-video 2 --workers 0"


def on(folder, *arguments, out):
    given = [*FEW.split(), "--data", folder, "--out", out, *arguments]
    return train.main([str(argument) for argument in given])


def test_it_trains_on_a_folder_and_says_what_it_passes_over(folder, tmp_path, capsys):
    out = tmp_path / "out"
    pictures = ["--images", folder.parent / "pictures"]
    assert on(folder, *pictures, "--joint", "0.5", "--buckets", out=out) == 0
    skipped = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert len(skipped) == 2
    assert "broken.mp4 cannot be decoded as a video" in skipped[0]
    assert "short.mp4 has 1 frames, a clip takes 2" in skipped[1]
    assert json.loads((last(out) / "config.json").read_text())["condition_on_fps"] is True
    with Image.open(out / "samples.gif") as gif:
        assert gif.n_frames == 8
        assert gif.info["duration"] == 120  # 8 frames a second, in whole hundredths
    # and goes on with the same settings
    few = ["--clips", "2", "--sampling-steps", "1"]
    assert train.main(["--resume", "--steps-video", "3", "--out", str(out), *few]) == 0
    assert last(out).name == "checkpoint-000005"
    options = train.options_of(last(out))
    assert (options["joint"], options["buckets"], options["images"]) == (
        0.5,
        True,
        str(pictures[1]),
    )


def test_the_unet_is_told_the_rate(folder, tmp_path, monkeypatch):
    told = []
    forward = SpaceTimeUnet.forward

    def telling(self, x, *args, fps=None, **kwargs):
        told.append((x.ndim, fps))
        return forward(self, x, *args, fps=fps, **kwargs)

    monkeypatch.setattr(SpaceTimeUnet, "forward", telling)
    arguments = ["--fps", "5", "5", "--sample-fps", "2"]
    assert on(folder, *arguments, out=tmp_path / "out") == 0
    of_clips = [fps for ndim, fps in told if ndim == 5][1:]  # but for the first try
    trained, measured, sampled = of_clips[2:4], of_clips[4:-2], of_clips[-2:]
    assert [fps.tolist() for fps in trained] == [[5.0, 5.0]] * 2
    # 32 clips at eight levels; of what is held out of so short a video, a clip takes every frame
    assert [fps.tolist() for fps in measured] == [[10.0] * 8] * 32
    assert of_clips[:2] == sampled == [2.0, 2.0]
    with Image.open(tmp_path / "out" / "samples.gif") as gif:
        assert gif.info["duration"] == 500


def test_the_first_phase_takes_pictures_and_the_second_a_share_of_images(
    folder, tmp_path, monkeypatch
):
    shapes = []
    loss = evaluation.diffusion_loss

    def counting(model, x, **others):
        if torch.is_grad_enabled():  # and not of what is held out
            shapes.append(tuple(x.shape[:-2]))
        return loss(model, x=x, **others)

    monkeypatch.setattr(evaluation, "diffusion_loss", counting)
    assert on(folder, "--joint", "0.25", "--batch-video", "4", out=tmp_path / "out") == 0
    assert shapes == [(2, 3)] * 2 + [(3, 3, 8), (8, 3)] * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON: Expecting property name"),
        ("[1]", "must hold an object of arguments by name"),
        ('{"oops": 3}', "unexpected keyword argument 'oops'"),
        ('{"dim_mult": [1, 2]}', r"`self_attns` .* must have 2 entries"),
        ('{"channels": 4}', "the U-Net has `channels` 4, what it is to be trained on 1"),
        (
            '{"condition_on_fps": true}',
            "the U-Net has `condition_on_fps` True, what it is to be trained on False",
        ),
    ],
)
def test_a_config_that_is_none_is_one_line(tmp_path, capsys, content, message):
    file = tmp_path / "unet.json"
    file.write_text(content)
    with pytest.raises(SystemExit, match="2"):
        run("--config", file, out=tmp_path / "out")
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error


def test_a_config_is_the_arguments_of_the_unet(tmp_path):
    given = {"dim_mult": [1], "self_attns": [False], "temporal_compression": [True]}
    given |= {"resnet_block_depths": [2], "dim": 6}
    file = tmp_path / "unet.json"
    file.write_text(json.dumps(given))
    short = ["--steps-images", 1, "--steps-video", 1]
    assert run("--config", file, *short, out=tmp_path / "out") == 0
    config = train.load_unet(last(tmp_path / "out"), 8, 16).config
    assert config["dim_mult"] == (1,)
    assert config["temporal_compression"] == (True,)
    assert (config["dim"], config["channels"], config["cond_dim"]) == (6, 1, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dim", "8"], "--dim 8 contradicts the run, which has 4"),
        (["--config", "other.json"], "--config other.json contradicts the run, which has None"),
    ],
)
def test_what_contradicts_a_run_is_an_error(trained, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        train.main(["--resume", "--out", str(trained), *arguments])
    assert capsys.readouterr().err.endswith(f"error: {message}\n")
    assert last(trained).name == "checkpoint-000007"


def test_what_changes_the_rest_of_a_run_is_said(trained, tmp_path, capsys):
    out = shutil.copytree(trained, tmp_path / "run")
    more = ["--resume", "--out", str(out), "--steps-video", "5", "--lr", "0.001"]
    assert train.main([*more, "--clips", "1", "--sampling-steps", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        "--steps-video is 5 from here on; it was 4",
        "--lr is 0.001 from here on; it was 0.002",
    ]
    assert not any("--dim" in line or "--data" in line for line in said)


def test_options_that_do_nothing_are_said(folder, tmp_path, capsys):
    assert on(folder, "--frames", "1", "--guidance", "5", out=tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert (
        "--frames 1: a clip of one frame is an image, so that no temporal part is trained" in said
    )
    assert "--guidance 5.0 does nothing: the U-Net is told nothing to follow" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "pictures"], "--images is for videos: give them by --data"),
        (["--buckets"], "--buckets is for videos: give them by --data"),
        (["--fps", "9", "3"], "--fps 9.0 3.0 must be positive, the lowest first"),
        (["--sequence-fps", "0"], "--sequence-fps 0.0 must be positive"),
        (["--sample-fps", "-1"], "--sample-fps -1.0 must be positive"),
        (
            ["--data", "clips", "--inflate", "model", "--frames", "1"],
            "--frames 1 leaves nothing to train with --inflate, which trains motion",
        ),
        (["--joint", "1"], "--joint 1.0 must be at least 0, and less than 1"),
    ],
)
def test_options_that_do_not_go_together_are_an_error(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        run(*arguments, out=tmp_path)
    assert capsys.readouterr().err.endswith(f"error: {message}\n")


def test_bad_files_are_one_line_where_they_are_not_to_be(folder, tmp_path, capsys):
    for arguments, message in (
        (["--strict-data"], r"broken.mp4 cannot be decoded as a video"),
        (["--images", folder], r"no picture in .* \(.png"),
    ):
        with pytest.raises(SystemExit, match="2"):
            on(folder, *arguments, out=tmp_path / "out")
        error = capsys.readouterr().err.splitlines()[-1]
        assert re.search(f"error: .*{message}", error), error
    (folder / "metadata.jsonl").write_text('{"file_name": "a.mp4"}\noops\n')
    with pytest.raises(SystemExit, match="2"):
        on(folder, out=tmp_path / "out")
    assert "metadata.jsonl, line 2 is no JSON" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"dim": 4, "oops": 1}', "is not of a SpaceTimeUnet: "),
        ("{", "is not of a SpaceTimeUnet: "),
        ('{"dim": 4}', "is not of a SpaceTimeUnet: "),  # with other weights
    ],
)
def test_a_checkpoint_of_another_architecture_is_one_line(
    trained, tmp_path, capsys, config, message
):
    out = shutil.copytree(trained, tmp_path / "run")
    (last(out) / "config.json").write_text(config)
    for option in (["--resume", "--out", out], ["--sample", out]):
        with pytest.raises(SystemExit, match="2"):
            train.main([str(argument) for argument in option])
        error = capsys.readouterr().err.splitlines()[-1]
        assert re.search(f"error: .*{message}", error), error
    assert last(out).name == "checkpoint-000007"


def test_it_trains_on_shards(folder, tmp_path, capsys):
    assert make_shards.main([str(folder), str(tmp_path / "shards")]) == 0
    pattern = tmp_path / "shards" / "*.tar"
    assert on(pattern, out=tmp_path / "out") == 0
    few = ["--clips", "2", "--sampling-steps", "1", "--steps-video", "3"]
    assert train.main(["--resume", "--out", str(tmp_path / "out"), *few]) == 0
    for option in ("--buckets", "--vae", "--strict-data"):
        with pytest.raises(SystemExit, match="2"):
            on(pattern, option, *["x"] * (option == "--vae"), out=tmp_path / "other")
        error = capsys.readouterr().err
        assert error.endswith(f"error: {option} is for videos in files, and not in shards\n")


def test_captions_lead_by_a_text_encoder(folder, tmp_path, capsys, monkeypatch):
    out, cache = tmp_path / "out", tmp_path / "cache"
    (folder / "b.txt").unlink()  # a video may have none
    told = []
    forward = SpaceTimeUnet.forward

    def telling(self, x, *args, context=None, context_mask=None, **kwargs):
        if context is not None:
            told.append((context.shape, context_mask.sum(1).tolist()))
        return forward(self, x, *args, context=context, context_mask=context_mask, **kwargs)

    monkeypatch.setattr(SpaceTimeUnet, "forward", telling)
    monkeypatch.setattr(building, "drop_conditions", lambda dropped, null, **given: given)
    encoder = ["--text-encoder", text_encoder(tmp_path / "encoder"), "--cache", cache]
    prompts = ["--prompt", "a red ball", "a cat"]
    assert on(folder, *encoder, *prompts, "--batch-video", "3", out=out) == 0
    assert train.load_unet(last(out), 8, 16).config["context_dim"] == 12
    trained = next(lengths for _, lengths in told if len(lengths) == 3)
    assert sorted(trained) == [0, 5, 5]  # "a clip a", "a clip c", between two ends
    assert told[-1][1] == [5, 4, 0, 0]  # the prompts, and no token against them
    assert len(list((cache / "texts").iterdir())) == 4
    # other prompts for the trained U-Net
    capsys.readouterr()
    few = ["--clips", "2", "--sampling-steps", "1"]
    assert train.main(["--sample", str(out), "--prompt", "a dog", *few]) == 0
    assert told[-1][1] == [4, 4, 0, 0]
    assert "does nothing" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        train.main(["--resume", "--out", str(out), "--text-encoder", str(tmp_path)])
    assert "--text-encoder" in capsys.readouterr().err
    assert on(folder, *prompts, out=tmp_path / "without") == 0
    said = capsys.readouterr().out
    assert "2 captions are not used: there is no --text-encoder" in said
    assert "--prompt does nothing: there is no --text-encoder" in said


def test_it_trains_in_the_latents_of_an_autoencoder(folder, tmp_path, capsys):
    out, vae = tmp_path / "out", ["--vae", autoencoder(tmp_path / "vae")]
    vae += ["--cache", tmp_path / "cache"]
    assert on(folder, *vae, "--buckets", "--size", "32", out=out) == 0
    unet = train.load_unet(last(out), 8, 16)
    assert unet.channels == 3
    with Image.open(out / "samples.png") as sheet:
        assert sheet.size == (8 * (64 + 2), 2 * (64 + 2))  # 32 pixels, twice as large
    assert len(list((tmp_path / "cache" / "latents").iterdir())) == 3
    few = ["--clips", "2", "--sampling-steps", "1"]
    assert train.main(["--resume", "--steps-video", "3", "--out", str(out), *few]) == 0
    with pytest.raises(SystemExit, match="2"):
        on(folder, *vae, "--size", "17", out=tmp_path / "odd")
    assert "--size 17 must be divisible by 2, for --vae" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        on(folder, *vae, "--size", "20", out=tmp_path / "odd")
    assert "`height` (=10) must be divisible by 4" in capsys.readouterr().err


def test_what_goes_on_with_a_run_of_videos_is_told_the_rate(folder, tmp_path, monkeypatch, capsys):
    assert on(folder, out=tmp_path / "run") == 0
    told = []
    forward = SpaceTimeUnet.forward

    def telling(self, x, *args, fps=None, **kwargs):
        told.append(None if fps is None else [round(rate) for rate in fps.tolist()])
        return forward(self, x, *args, fps=fps, **kwargs)

    monkeypatch.setattr(SpaceTimeUnet, "forward", telling)
    few = ["--steps", "1", "--batch", "2", "--clips", "1", "--sampling-steps", "1"]
    for script in (interpolate, control):
        told.clear()
        out = ["--unet", str(tmp_path / "run"), "--out", str(tmp_path / script.__name__)]
        assert script.main([*out, *few]) == 0
        assert told[1:] == [[10, 10], *[[10]] * (len(told) - 2)]
    options = last(tmp_path / "run") / "training.json"
    options.write_text(json.dumps(json.loads(options.read_text()) | {"vae": "x"}))
    for script in (interpolate, control):
        with pytest.raises(SystemExit, match="2"):
            script.main([*out, *few])
        assert "was trained with --vae, which is not read here" in capsys.readouterr().err


# What is measured, and what goes wrong


def test_what_is_held_out_is_measured_while_it_runs_and_by_itself(
    trained, tmp_path, capsys, monkeypatch
):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 8))
    assert [line["phase"] for line in steps] == ["images"] * 3 + ["video"] * 4
    for line in steps:
        assert line["samples_per_second"] == pytest.approx(2 * line["steps_per_second"])
    held_out = {line["step"]: line for line in lines if "held_out_loss" in line}
    assert list(held_out) == [3, 7]
    levels = [f"held_out_loss_at_{t}" for t in (62, 187, 312, 437, 562, 687, 812, 937)]
    found = [held_out[7][level] for level in levels]
    assert held_out[7]["held_out_loss"] == pytest.approx(sum(found) / 8)
    assert len(set(found)) == 8

    monkeypatch.setattr(judges, "STEPS", 2)
    evaluating = ["--evaluate", str(trained), "--cache", str(tmp_path), "--sampling-steps", "1"]
    assert train.main(evaluating) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:9] == [
        *(
            f"held-out loss at timestep {level.split('_')[-1]}: {loss:.4f}"
            for level, loss in zip(levels, found, strict=True)
        ),
        f"held-out loss: {held_out[7]['held_out_loss']:.4f}",
    ]
    number = r"-?[0-9]+\.[0-9]{2}"
    shown_of = [measures.RIGHT, measures.SAME, measures.SPEED, measures.JERK,
                measures.DISPLACEMENT, measures.OFF_PATH, measures.FRECHET]  # fmt: skip
    line = rf"  (.+): {number} ± {number}; held-out real clips: {number}"
    assert (shown[9], shown[17]) == ("digits seen moving:", "digits never seen moving:")
    for half in (shown[10:17], shown[18:]):
        assert [re.fullmatch(line, said)[1] for said in half] == shown_of
    assert train.main(evaluating) == 0  # by the judges that were kept
    assert capsys.readouterr().out.splitlines() == shown
    assert train.main([*evaluating, "--frames", "3"]) == 0  # of which there is no jerk
    assert len(capsys.readouterr().out.splitlines()) == 9


def test_a_run_that_was_told_names_goes_on_so(tmp_path, monkeypatch, capsys):
    """As all did before there was an embedding: with clips of all digits, and no images beside."""
    with monkeypatch.context() as before:
        before.setattr(building, "embedding_of_digits", lambda size, cache: None)
        steps = ["--steps-images", 1, "--steps-video", 2, "--joint", 0]
        assert run(*steps, out=tmp_path) == 0
    options = json.loads((last(tmp_path) / "training.json").read_text())
    del options["joint"]
    (last(tmp_path) / "training.json").write_text(json.dumps(options))
    assert not (last(tmp_path) / "embedding.safetensors").exists()
    monkeypatch.setattr(judges, "STEPS", 2)
    few = ["--clips", "2", "--sampling-steps", "1", "--cache", str(tmp_path)]
    assert train.main(["--resume", "--steps-video", "3", "--out", str(tmp_path), *few]) == 0
    assert train.main(["--sample", str(tmp_path), *few]) == 0
    assert train.options_of(last(tmp_path))["joint"] == 0
    assert train.load_unet(last(tmp_path), 8, 16).cond_dim == 10
    capsys.readouterr()
    assert train.main(["--evaluate", str(tmp_path), *few]) == 0
    assert "digits:" in capsys.readouterr().out.splitlines()


def test_a_checkpoint_has_the_embedding_that_its_training_had(trained, tmp_path, monkeypatch):
    """Another machine would learn another one."""
    monkeypatch.setattr(building, "embedding_of_digits", None)
    kept = building.saved(last(trained) / "embedding.safetensors")
    pictures = torch.randn(3, 1, 16, 16)
    assert torch.equal(kept(pictures), embedding_of_digits()(pictures))
    out = shutil.copytree(trained, tmp_path / "run")
    few = ["--steps-video", "5", "--clips", "2", "--sampling-steps", "1"]
    assert train.main(["--resume", "--out", str(out), *few]) == 0
    again = load_file(last(out) / "embedding.safetensors")
    assert all(torch.equal(again[name], value) for name, value in kept.state_dict().items())

    (last(out) / "embedding.safetensors").write_bytes(b"half")
    with pytest.raises(SystemExit, match="2"):
        train.main(["--sample", str(out)])


def test_clips_are_of_some_digits_and_told_of_by_their_middle_frame(trained):
    args, checkpoint = train.arguments_of(train.parser(), ["--sample", str(trained)])
    encoders, unet = building.encoders_of(args, checkpoint), train.load_unet(checkpoint, 8, 16)
    images, clips, held_out = building.sources(args, encoders, unet)
    shown = [
        source(200, 5, torch.Generator().manual_seed(1)).names.argmax(-1).unique().tolist()
        for source in (images, clips, held_out)
    ]
    assert shown == [list(range(10)), list(range(5)), list(range(10))]
    batch = clips(3, 5, torch.Generator().manual_seed(2))
    told = building.conditions(unet, encoders, batch, "cpu", torch.tensor([False, True, False]))
    middle = encoders.embedding(batch.videos[:, :, 2])
    assert torch.equal(told["cond"], middle * torch.tensor([[1.0], [0.0], [1.0]]))
    assert middle.abs().sum(-1).min() > 0


def test_samples_are_asked_for_by_what_is_usual_for_a_digit(trained):
    args, checkpoint = train.arguments_of(train.parser(), ["--sample", str(trained)])
    args.clips, encoders = 13, building.encoders_of(args, checkpoint)
    lead = sampling.conditions_of_samples(args, encoders, train.load_unet(checkpoint, 8, 16))
    digits = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert torch.equal(lead["cond"], encoders.embedding.means[digits])


@pytest.mark.parametrize(("apart", "right"), [(True, ["1.00", "0.00"]), (False, ["0.50"])])
def test_digits_that_no_clip_showed_are_measured_apart(apart, right, monkeypatch, capsys):
    class Reads(torch.nn.Module):
        def seen(self, videos):
            return (videos.mean((1, 3, 4)) * 10).round().long()

    seeing = judges.Judges(1, 6, 10).requires_grad_(False)
    seeing.frame = Reads()
    monkeypatch.setattr(train, "judges_of_digits", lambda size, frames, cache: seeing)
    shown = torch.tensor([0, 1, 2, 3, 4, 0, 0, 0, 0, 0]).repeat(2)
    videos = (shown / 10).view(-1, 1, 1, 1, 1).expand(-1, 1, 6, 12, 12).clone()
    args = train.parser().parse_args(["--size", "12", "--frames", "6"])
    train.print_measures(args, videos, apart)
    said = capsys.readouterr().out
    assert re.findall(rf"{measures.RIGHT}: (\S+) ±", said) == right


@pytest.mark.parametrize(
    ("given", "share"),
    [
        ("", 0.5),
        ("--joint 0.25", 0.25),
        ("--data clips", 0.0),
        ("--data clips --images pictures", 0.5),
        ("--data clips --inflate model", 0.0),
    ],
)
def test_half_is_pictures_where_they_show_more_than_clips(given, share):
    args, _ = train.arguments_of(train.parser(), given.split())
    assert training.phases(args)[1].images == share


def test_where_nothing_is_held_out_nothing_is_measured(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    video = write_numbers(tmp_path / "data" / "a.mp4", 12)
    out = tmp_path / "out"
    assert on(video, out=out) == 0
    assert "no video is long enough to hold some out" in capsys.readouterr().out
    assert "held_out" not in (out / "metrics.jsonl").read_text()
    with pytest.raises(SystemExit, match="2"):
        train.main(["--evaluate", str(out)])
    assert capsys.readouterr().err.endswith(f"error: nothing of {video} is held out\n")


def test_a_tracker_gets_what_is_measured(tmp_path):
    short = ["--steps-images", 1, "--steps-video", 2, "--log", "tensorboard"]
    assert run(*short, out=tmp_path) == 0
    (events,) = tmp_path.rglob("events.out.tfevents.*.0")
    found = event_accumulator.EventAccumulator(str(events.parent)).Reload()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "lr", "held_out_loss"):
        logged = {event.step: event.value for event in found.Scalars(name)}
        kept = {line["step"]: line[name] for line in lines if name in line}
        assert logged == pytest.approx(kept)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mixed-precision", "fp16"], "fp16 needs a GPU; a CPU has bf16"),
        (["--log", "wandb"], "--log wandb needs wandb: pip install wandb"),
        (["--evaluate", "nowhere"], "no checkpoint in nowhere"),
    ],
)
def test_what_this_machine_does_not_do_is_one_line(
    arguments, message, tmp_path, capsys, monkeypatch
):
    find_spec = importlib.util.find_spec

    def without_wandb(name, *args):
        return None if name == "wandb" else find_spec(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", without_wandb)
    with pytest.raises(SystemExit, match="2"):
        run(*arguments, out=tmp_path)
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert message in error


def test_a_process_that_is_gone_while_a_checkpoint_is_written_is_not_taken_for_a_disk(
    tmp_path, capsys, monkeypatch
):
    """torch says so wherever the process is at the moment."""
    assert run("--steps-images", 1, "--steps-video", 1, out=tmp_path) == 0

    def gone(*args):
        raise RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed. ")

    monkeypatch.setattr(torch, "save", gone)
    more = ["--resume", "--out", str(tmp_path), "--clips", "1", "--sampling-steps", "1"]
    assert train.main([*more, "--steps-video", "3"]) == 143
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(
        r"^a process that reads files is gone: DataLoader .*; \S*checkpoint-000002 is kept$", error
    ), error
    assert not (tmp_path / ".checkpoint").exists()


def test_a_disk_that_is_full_loses_nothing_that_was_there(tmp_path, capsys):
    """A checkpoint is larger than files may be here, and the measures are not."""
    assert run("--steps-images", 1, "--steps-video", 1, out=tmp_path) == 0
    before = {path: path.read_bytes() for path in last(tmp_path).iterdir()}
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    more = ["--resume", "--out", str(tmp_path), "--clips", "1", "--sampling-steps", "1"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(SystemExit, match="2"):
            train.main([*more, "--steps-video", "3"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(
        r"error: \S*checkpoint-000004 cannot be written: .*; \S*checkpoint-000002 is kept$", error
    )
    assert {path: path.read_bytes() for path in last(tmp_path).iterdir()} == before
    assert not (tmp_path / ".checkpoint").exists()
    assert train.main([*more, "--steps-video", "3"]) == 0
    assert last(tmp_path).name == "checkpoint-000004"


def test_losses_that_are_not_finite_end_a_run_and_name_what_is_kept(tmp_path, capsys, monkeypatch):
    loss = evaluation.diffusion_loss
    calls = []

    def spoilt(*args, **others):
        if torch.is_grad_enabled():  # and not of what is held out
            calls.append(None)
        return loss(*args, **others) * (float("nan") if len(calls) > 3 else 1.0)

    monkeypatch.setattr(evaluation, "diffusion_loss", spoilt)
    with pytest.raises(SystemExit, match="2"):
        run("--steps-images", 50, "--save-every", 2, out=tmp_path)
    error = capsys.readouterr().err.splitlines()[-1]
    assert "not finite in 10 steps in a row, up to step 13; " in error
    # saved in the meantime, with the weights of the third step
    assert error.endswith("checkpoint-000012 is kept")
    kept = load_file(last(tmp_path) / WEIGHTS)
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_a_run_that_is_told_to_end_says_what_is_kept(tmp_path):
    """As a cluster does to the jobs that it stops."""
    given = ["--out", str(tmp_path), "--cache", str(cache(tmp_path / "cache"))]
    command = [*SCRIPT, *TINY.split(), *given, "--save-every", "1"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        deadline = time.monotonic() + 120
        while not train.checkpoints(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.terminate()
        said = process.stderr.read().splitlines()[-1]
    assert process.returncode == 143
    assert re.search("ended, as its launcher .*; .*checkpoint-[0-9]{6} is kept$", said)


def test_what_is_read_knows_nothing_of_lower_precision(folder, tmp_path, capsys):
    """Latents are in half precision, of which a CPU under autocast cannot stack any."""
    vae = ["--vae", autoencoder(tmp_path / "vae"), "--cache", tmp_path / "cache"]
    assert on(folder, *vae, "--mixed-precision", "bf16", "--size", 16, out=tmp_path / "out") == 0
    assert "cannot be read as latents" not in capsys.readouterr().err


def test_what_a_launcher_says_is_as_if_it_were_said(tmp_path, monkeypatch, capsys):
    """And counts once: Accelerate reads the same variables."""
    few = ["--steps-images", 2, "--steps-video", 0]
    assert run(*few, "--gradient-accumulation", 2, out=tmp_path / "said") == 0
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    assert run(*few, out=tmp_path / "launched") == 0
    said, launched = (
        [json.loads(line)["gradient_norm"] for line in lines if "gradient_norm" in line]
        for lines in (
            (tmp_path / name / "metrics.jsonl").read_text().splitlines()
            for name in ("said", "launched")
        )
    )
    assert launched == pytest.approx(said)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    AcceleratorState._reset_state(reset_partial_state=True)  # another run
    capsys.readouterr()
    more = ["--resume", "--steps-video", "1", "--clips", "1", "--sampling-steps", "1"]
    assert train.main([*more, "--out", str(tmp_path / "said")]) == 0
    assert "--mixed-precision is bf16 from here on; it was no" in capsys.readouterr().out


def test_samples_and_measures_need_no_tracker_and_no_gpu(trained, tmp_path, monkeypatch):
    out = shutil.copytree(trained, tmp_path / "run")
    options = last(out) / "training.json"
    of_another_machine = {"log": "wandb", "mixed_precision": "fp16", "shard": True}
    options.write_text(json.dumps(json.loads(options.read_text()) | of_another_machine))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None)
    assert train.main(["--sample", str(out), "--clips", "1", "--sampling-steps", "1"]) == 0
    assert train.main(["--evaluate", str(out), "--frames", "3"]) == 0


def test_a_share_of_images_that_cannot_be_shared_out_is_an_error(folder, tmp_path, capsys):
    uneven = ["--joint", "0.5", "--batch-video", "1", "--gradient-accumulation", "2"]
    with pytest.raises(SystemExit, match="2"):
        on(folder, *uneven, out=tmp_path / "out")
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith(
        "--joint 0.5 makes 1 samples of 8 frames in a step, and 2 shares cannot have as many each"
    )
    assert not (tmp_path / "out" / "metrics.jsonl").exists()  # before the images, too


@pytest.mark.parametrize(
    ("given", "processes", "expected"),
    [
        ("--batch-video 1", 2, (2, 1, 4)),  # of 1 clip and 8 images
        ("--batch-video 1 --gradient-accumulation 4", 1, (4, 1, 4)),  # of 2 and 16
        ("--batch-video 3", 2, (6, 2, 12)),  # of 3 and 24
        ("--batch-video 8", 8, (64, 4, 32)),
        ("--data clips --images pictures --batch-video 1", 8, (8, 1, 4)),  # of 4 and 32
    ],
)
def test_unless_a_share_of_images_is_said_any_number_of_clips_is_shared_out(
    given, processes, expected
):
    args, _ = train.arguments_of(train.parser(), given.split())
    args.processes = processes

    class Many:
        process_index, num_processes = 0, processes

    plan = training.plans(args, Many(), args.steps_images)[0]
    assert (plan.batch, plan.clips, plan.images) == expected


def test_a_default_run_goes_on_in_as_many_processes_as_it_has_clips():
    args = train.parser().parse_args([])
    args.processes = 1

    class Eight:
        process_index, num_processes = 3, 8

    plan = training.plans(args, Eight(), args.steps_images)[0]
    assert (plan.batch, plan.clips, plan.images) == (8, 1, 4)


def test_a_phase_that_is_done_need_not_be_shared_out(tmp_path):
    """Of three images in a step, two processes cannot have as many each."""
    given = "--batch-images 3 --batch-video 4 --steps-video 5 --joint 0"
    args = train.parser().parse_args(given.split())
    args.processes = 1

    class Two:
        process_index, num_processes = 1, 2

    with pytest.raises(DataError, match="2 processes cannot have as many each of the 3 samples"):
        training.plans(args, Two(), args.steps_images - 1)
    (plan,) = training.plans(args, Two(), args.steps_images)
    assert (plan.batch, plan.clips, plan.images, plan.share) == (4, 2, 0, (1, 2, 1))
