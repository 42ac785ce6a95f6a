"""The training script as one runs it, small; and the clips it trains on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from make_a_video_pytorch import SpaceTimeUnet, inflate, temporal_parameters
from make_a_video_pytorch.integrations.diffusers import (
    ControlBranchModel,
    InflatedDiffusersModel,
    SpaceTimeUnetModel,
)
from tests.zoo import as_in_1_0_0

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

clips = pytest.importorskip("clips")
diffusion = pytest.importorskip("diffusion")
train = pytest.importorskip("train")
interpolate = pytest.importorskip("interpolate")
inflating = pytest.importorskip("inflate")
control = pytest.importorskip("control")

WEIGHTS = "diffusion_pytorch_model.safetensors"
TINY = "--dim 4 --frames 8 --size 16 --batch-images 2 --batch-video 2 --clips 3 --sampling-steps 2"


def run(*arguments, out):
    return train.main([*TINY.split(), "--out", str(out), *map(str, arguments)])


def write_video(path, frames=11, width=40, height=24):
    """A white bar that moves to the right by two pixels a frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            picture = np.zeros((height, width, 3), dtype=np.uint8)
            picture[:, 8 + 2 * index : 12 + 2 * index] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_gif(path, frames=5):
    pictures = [Image.fromarray(np.full((20, 30, 3), 40 * i, np.uint8)) for i in range(frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, loop=0)
    return path


def last(out):
    return train.last_checkpoint(out)


# The clips


def test_digits_move_and_keep_their_shape():
    digits = clips.MovingDigits(32)
    videos, names = digits(6, 5, torch.Generator().manual_seed(0))
    assert names.shape == (6, 10)
    assert videos.shape == (6, 1, 5, 32, 32)
    assert videos.min() == -1
    assert 0.9 < videos.max() <= 1
    light = (videos + 1) / 2
    # nothing is cut off at the sides, and the digit is the same in every frame
    mass = light.sum((1, 3, 4))
    assert (mass / mass[:, :1] - 1).abs().max() < 0.05
    across = torch.arange(32.0)
    centre = torch.stack([(light.sum(d) * across).sum(-1)[:, 0] / mass for d in (3, 4)], -1)
    # 0.05 to 0.1 of half the width a frame, less only where it bounces
    steps = centre.diff(dim=1).norm(dim=-1)
    assert steps.max() < 1.7
    assert (steps > 0.75).float().mean() > 0.8


def test_digits_follow_from_the_generator():
    digits = clips.MovingDigits(16)
    one, same, other = (digits(2, 3, torch.Generator().manual_seed(s))[0] for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_video_is_cut_into_successive_frames(tmp_path):
    videos = clips.VideoFiles(write_video(tmp_path / "bar.mp4"), 24, 4)
    batch, names = videos(5, 4, torch.Generator().manual_seed(0))
    assert names is None
    assert batch.shape == (5, 3, 4, 24, 24)
    assert batch.abs().max() <= 1
    bright = ((batch + 1) / 2).mean((1, 3))  # b f w
    centre = (bright * torch.arange(24.0)).sum(-1) / bright.sum(-1)
    torch.testing.assert_close(centre.diff(dim=1), torch.full((5, 3), 2.0), rtol=0, atol=0.7)
    whole = clips.read_video(tmp_path / "bar.mp4", 12)
    assert whole.shape == (11, 12, 12, 3)


def test_every_clip_of_every_video_is_drawn(tmp_path):
    write_video(tmp_path / "a.mp4", frames=5)
    write_gif(tmp_path / "b.gif", frames=4)
    (tmp_path / "notes.txt").write_text("not a video")
    videos = clips.VideoFiles(tmp_path, 8, 4)
    assert [len(video) for video in videos.videos] == [5, 4]
    batch, _ = videos(200, 4, torch.Generator().manual_seed(0))
    assert len({tuple(clip.flatten()[:500].tolist()) for clip in batch}) == 3


def test_digits_have_their_names():
    """With digits that are even squares, each of a brightness of its own."""
    digits = clips.MovingDigits(32)
    brightness = torch.linspace(0.1, 1, len(digits.digits))
    digits.digits = brightness.view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    videos, names = digits(30, 1, torch.Generator().manual_seed(0))
    light = (videos[:, 0, 0] + 1) / 2
    mass, across = light.sum((1, 2)), torch.arange(32.0)
    x, y = ((light.sum(d) * across).sum(-1) / mass for d in (1, 2))
    middle = light[range(30), y.round().long(), x.round().long()]
    chosen = (middle[:, None] - brightness).abs().argmin(1)
    assert torch.equal(names.argmax(1), digits.names[chosen])
    assert torch.equal(digits.names[:10], torch.arange(10))  # scanned in order


def test_what_is_held_out_is_never_trained_on(tmp_path):
    trained, held_out = clips.MovingDigits(8), clips.MovingDigits(8, held_out=True)
    assert len(trained.digits) + len(held_out.digits) == 1797
    for path, frames, lengths in [
        (write_video(tmp_path / "long.mp4", frames=40), 3, [36, 4]),
        (write_video(tmp_path / "middle.mp4", frames=8), 4, [4, 4]),
    ]:
        parts = [clips.VideoFiles(path, 8, frames, held_out) for held_out in (False, True)]
        assert [len(part.videos[0]) for part in parts] == lengths
        whole = clips.read_video(path, 8)
        assert torch.equal(torch.cat([part.videos[0] for part in parts]), whole)
    with pytest.raises(clips.DataError, match=r"short.mp4 has 5 frames, too few to hold some out"):
        clips.VideoFiles(write_video(tmp_path / "short.mp4", frames=5), 8, 4, held_out=True)


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
    off = {"resume": False, "sample": None} if script is train else {}
    assert {name: used.pop(name) for name in off} == off
    assert defaults == {name: str(value) for name, value in used.items()} | dict.fromkeys(off)


# Training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert run("--steps-images", 3, "--steps-video", 4, "--save-every", 2, out=out) == 0
    return out


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
    before = (trained / "samples.png").read_bytes()
    (trained / "samples.png").unlink()
    few = ["--sample", str(trained), "--clips", "3", "--sampling-steps", "2"]
    assert train.main(few) == 0
    assert (trained / "samples.png").read_bytes() == before
    # longer and larger clips than it was trained on, somewhere else
    assert train.main([*few, "--frames", "16", "--size", "24", "--out", str(tmp_path)]) == 0
    with Image.open(tmp_path / "samples.gif") as gif:
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
    command = [sys.executable, str(EXAMPLES / "train.py"), *TINY.split(), "--out", str(tmp_path)]
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


def test_the_frames_of_a_video_share_noise_and_each_is_standard_normal():
    noise = diffusion.noise_of((64, 1, 3, 16, 16), torch.Generator().manual_seed(0))
    frames = noise.transpose(0, 2).flatten(1)
    torch.testing.assert_close(
        frames @ frames.T / frames.shape[1], 0.8 + 0.2 * torch.eye(3), rtol=0, atol=0.03
    )


def test_weight_decay_spares_norms_biases_and_temporal_parts():
    unet = SpaceTimeUnet(dim=4)
    groups = diffusion.optimizer_for(unet).param_groups
    names = dict(map(reversed, unet.named_parameters()))
    (decayed,) = [group for group in groups if group["weight_decay"] > 0]
    for parameter in decayed["params"]:
        assert parameter.ndim > 1
        assert "temporal" not in names[parameter]
    assert sum(len(group["params"]) for group in groups) == len(names)


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


# Interpolation

SMALL = "--steps 3 --batch 2 --clips 3 --sampling-steps 2"


def test_frames_are_filled_in_and_compared(trained, tmp_path, capsys):
    out = tmp_path / "filled"
    arguments = ["--unet", str(trained), "--out", str(out), *SMALL.split()]
    assert interpolate.main(arguments) == 0
    printed = capsys.readouterr().out
    assert re.search(r"U-Net: -?[\d.]+ dB\nblend: [\d.]+ dB", printed), printed
    with Image.open(out / "samples.png") as sheet:
        pictures = np.array(sheet).reshape(9, 66, 8, 66).swapaxes(1, 2)
    for clip in range(0, 9, 3):
        for row in (clip + 1, clip + 2):  # the kept frames are those of the clip
            assert (pictures[row, [0, 7]] == pictures[clip, [0, 7]]).all()


def test_the_blend_is_linear_between_the_nearest_kept_frames():
    clip = torch.tensor([5.0, 1, 1, 1, 9, 2, 2]).view(1, 1, 7, 1, 1)
    kept = torch.tensor([False, True, False, False, True, False, True])
    expected = torch.tensor([1.0, 1, 1 + 8 / 3, 1 + 16 / 3, 9, 5.5, 2])
    torch.testing.assert_close(interpolate.blend(clip, kept).flatten(), expected)


def test_the_signal_to_noise_ratio_is_that_of_its_definition():
    truth = torch.rand(2, 1, 3, 4, 4) * 2 - 1
    assert diffusion.psnr(truth + 0.2, truth) == pytest.approx(20.0)  # 2^2 / 0.2^2 = 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keep", "0", "8"], r"--keep \[0, 8\] must be among the 8 frames of a clip"),
        (["--keep", *map(str, range(8))], "leaves no frame to fill in"),
        (["--unet", "nowhere"], "no checkpoint in nowhere"),
    ],
)
def test_interpolation_refuses_bad_input_in_one_line(trained, arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        interpolate.main(["--unet", str(trained), *SMALL.split(), *arguments])
    assert stopped.value.code == 2
    assert re.search(f"error: .*{message}", capsys.readouterr().err)


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
    unet = train.load_unet(last(trained), 8, 16)
    x, drawn = torch.randn(2, 1, 8, 16, 16), torch.rand(2, 1, 8, 16, 16)
    out = control.controlled(unet, branch, drawn, x, torch.tensor([5, 500]))
    assert not torch.equal(out, unet(x, torch.tensor([5, 500])))


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
