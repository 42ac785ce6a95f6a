"""The training script as one runs it, small."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import control
import inflate as inflating
import interpolate
import numpy as np
import pytest
import torch
import train
from PIL import Image
from safetensors.torch import load_file, save_file

from make_a_video_pytorch import SpaceTimeUnet, temporal_parameters
from make_a_video_pytorch.integrations.diffusers import SpaceTimeUnetModel
from tests.examples.media import write_video
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
        "samples.gif",
        "samples.png",
    ]
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
    for number in (1, 2):
        assert train.main(few) == 0
        for kind in ("gif", "png"):
            again = (run_folder / f"sampled-{number}.{kind}").read_bytes()
            assert again == before[f"samples.{kind}"]
    assert {path.name: path.read_bytes() for path in run_folder.glob("samples.*")} == before
    # longer and larger clips than it was trained on, somewhere else
    assert train.main([*few, "--frames", "16", "--size", "24", "--out", str(tmp_path)]) == 0
    with Image.open(tmp_path / "sampled-1.gif") as gif:
        assert gif.n_frames == 16


def test_a_resumed_run_is_the_run_that_was_not_interrupted(trained, tmp_path, capsys):
    steps = ["--steps-images", 3, "--steps-video", 4]
    saved = train.save_checkpoint

    def save_and_stop(out, step, *args):
        saved(out, step, *args)
        if step == 4:
            raise KeyboardInterrupt

    train.save_checkpoint = save_and_stop
    try:
        assert run(*steps, "--save-every", 2, out=tmp_path) == 130
    finally:
        train.save_checkpoint = saved
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
    command = [*SCRIPT, *TINY.split(), "--out", str(tmp_path)]
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
