import subprocess
import sys
from collections import Counter
from itertools import permutations
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import make_a_video_pytorch
from benchmarks import against, cascade_sizes, inflated, measure, peers, run
from make_a_video_pytorch import SpaceTimeUnet, SpatioTemporalAttention
from tests.zoo import UNET, randomize


def test_the_plain_layers_are_the_image_path():
    unet = randomize(SpaceTimeUnet(**UNET), 0.2)
    images, timestep = torch.randn(2, 3, 8, 12), torch.tensor([5, 811])
    out = peers.PlainImageUnet(unet)(images, timestep)
    torch.testing.assert_close(out, unet(images, timestep), rtol=1e-4, atol=1e-5)


def test_work_is_counted():
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    done = measure.work(lambda: (a @ b).relu())
    assert done.flops == 2 * 3 * 5 * 7
    assert done.bytes == 4 * (3 * 5 + 5 * 7 + 3 * 7)
    assert done.bound(measure.Limits(flops=1.0, bytes=1e9)) == (done.flops, "matmul")
    assert done.bound(measure.Limits(flops=1e9, bytes=1.0)) == (done.bytes, "memory")


def test_an_exponent_is_that_of_a_power():
    assert measure.exponent([2, 4, 8], [3 * 2**1.5, 3 * 4**1.5, 3 * 8**1.5]) == pytest.approx(1.5)


@pytest.fixture
def nothing_to_collect(monkeypatch):
    """A collection of all that a whole suite has made takes long."""
    monkeypatch.setattr(measure, "gc", SimpleNamespace(collect=lambda: None))


def test_calls_take_turns(nothing_to_collect):
    calls = []
    times = measure.medians(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, "cpu"
    )
    assert times.keys() == {"a", "b"}
    assert "".join(calls) == "aabb" + "ab" * 3


def test_no_place_in_a_turn_is_favoured(nothing_to_collect):
    """Nor is one run always before another."""
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    assert len(measure.rounds(runs, 4, 3, "cpu")) == 3
    assert "".join(calls[:6]) == "aabbcc"
    turns = Counter(zip(*[iter(calls[6:])] * 3, strict=True))
    assert turns == dict.fromkeys(permutations("abc"), 2)


def test_a_round_is_the_median_of_its_turns(monkeypatch, nothing_to_collect):
    now = 0.0

    def run_of(seconds):
        seconds = iter(seconds)

        def run():
            nonlocal now
            now += next(seconds)

        return run

    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: now))
    warm = [100.0, 100.0]
    runs = {"a": run_of([*warm, 1, 2, 9, 3, 3, 3]), "b": run_of([*warm, 5, 5, 4, 8, 6, 7])}
    assert measure.rounds(runs, 3, 2, "cpu") == [{"a": 2, "b": 5}, {"a": 3, "b": 7}]


@pytest.mark.parametrize(
    ("now", "ratio", "verdict"),
    [
        ((1.8, 4.0, 7.0), 1.75, "slower"),  # by the median: one round is faster
        ((1.7, 4.0, 5.0), 1.25, "within"),
        ((1.8, 1.8, 4.4), 0.9, "within"),
        ((1.7, 1.7, 8.0), 0.85, "faster"),
    ],
)
def test_a_verdict_is_given_outside_of_the_spread_of_the_commit(now, ratio, verdict):
    times = [
        {"then": then, "again": again, "now": now}
        for then, again, now in zip((2.0, 2.0, 4.0), (1.8, 2.0, 5.0), now, strict=True)
    ]
    found = against.compare(times)
    assert (found.lowest, found.highest, found.then) == (0.9, 1.25, 2.0)
    assert found.ratio == ratio
    assert found.verdict == verdict


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> ModuleType:
    """The package as it was at the last commit."""
    try:
        commit = peers.resolve("HEAD")
    except ValueError as error:
        pytest.skip(f"needs the repository: {error}")
    return peers.at_commit(commit, tmp_path_factory.mktemp("head"))


def test_a_commit_is_imported_aside(head):
    assert head.PseudoConv3d is not make_a_video_pytorch.PseudoConv3d
    assert sys.modules["make_a_video_pytorch"] is make_a_video_pytorch
    assert head.__name__ == f"commit_{peers.resolve('HEAD')}_make_a_video_pytorch"
    assert sys.modules[head.__name__] is head
    ours = sys.modules.get(head.PseudoConv3d.__module__)  # it may be elsewhere by now
    assert ours is None or Path(ours.__file__).is_relative_to(peers.ROOT)


@pytest.mark.parametrize("name", ["PseudoConv3d, 8 images", "the same, causal", against.INFLATED])
def test_outputs_of_then_and_now_are_compared(head, name):
    models, inputs = against.build(head, name)
    assert models["then"] is not models["again"]
    assert isinstance(models["again"], type(models["then"]))
    assert not isinstance(models["now"], type(models["then"]))
    for mode in ("forward", "training"):
        assert against.difference(models, inputs, mode) < 1e-4
    with torch.no_grad():
        next(models["now"].parameters()).mul_(1.1)
    with pytest.raises(AssertionError, match="not close"):
        against.difference(models, inputs, "forward")


def test_temporal_weights_are_perturbed_too(head):
    for name in against.names(head):
        if "SpaceTimeUnet" in name:
            continue
        models, inputs = against.build(head, name)
        with torch.no_grad():
            outs = {key: model(*inputs) for key, model in models.items()}
        assert torch.equal(outs["then"], outs["again"])
        if inputs[0].ndim == 5:
            still = inputs[0][:, :, :1].expand_as(inputs[0])
            assert not torch.equal(models["now"](still)[:, :, 0], models["now"](still[:, :, 0]))


def test_a_commit_is_measured(head, tmp_path: Path, monkeypatch, capsys):
    """Into no file, unless it is told."""
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(against, "ROUNDS", 2)
    monkeypatch.setattr(
        against, "memory", lambda name, variant, *rest: {"then": 4, "now": 5}[variant]
    )
    command = ["run.py", "--against", "HEAD", "--rows", "Conv3d, 8 im", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", command)
    assert run.main() == 0
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path / "against.md")])
    capsys.readouterr()
    assert run.main() == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "against.md").read_text()
    about, _, header, rule, *rows = printed.splitlines()
    assert "float32, medians of 2 rounds of 1 turns" in about
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| PseudoConv3d, 8 images", mode] for mode in ("forward", "training")
    ]
    assert all("] | 4.0 | 5.0 | 1.25 | " in row for row in rows)
    assert {line.count("|") for line in (header, rule, *rows)} == {12}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "no-such-commit"], "--against: `commit` (='no-such-commit') must be a"),
        (["--against", "HEAD", "--compile"], "--compile is not for --against"),
        (["--rows", "PseudoConv3d"], "--rows is for --against"),
    ],
)
def test_what_cannot_be_measured_is_an_error_of_the_command(
    arguments, message, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        run.main()
    assert f"run.py: error: {message}" in capsys.readouterr().err.splitlines()[-1]


def test_rows_that_there_are_not_are_an_error(head, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", "--against", "HEAD", "--rows", "no such row"])
    with pytest.raises(SystemExit, match="2"):
        run.main()
    error = capsys.readouterr().err.splitlines()[-1]
    assert "--rows: 'no such row' is in none of: PseudoConv3d, 8 frames of 32x32; " in error


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux reports memory so")
def test_the_peak_is_that_of_the_call():
    """In a fresh process: this one has memory to spare, which would not be counted."""
    code = "import torch; from benchmarks.measure import MIB, peak_memory; "
    code += "print(peak_memory(lambda: torch.ones(64 * MIB // 4), 'cpu'))"
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    assert 60 < float(out) < 80


@pytest.mark.parametrize("flash", [True, False])
def test_attention_kernels_are_those_that_ran(flash):
    attention = SpatioTemporalAttention(4, dim_head=4, heads=2, flash=flash)
    video = torch.randn(1, 4, 3, 5, 2)
    with torch.no_grad():
        counts = measure.attention_kernels(lambda: attention(video), "cpu")
    name = "aten::_scaled_dot_product_flash_attention_for_cpu"
    assert counts == ({name: 2} if flash else {})


def test_an_interval_spares_predictions(monkeypatch):
    samples = []

    def counting(frames, size, **changes):
        unet = SpaceTimeUnet(**UNET, **changes)
        unet.register_forward_pre_hook(lambda module, args: samples.append(len(args[0])))
        return {"ours": unet}, (torch.randn(1, 3, frames, 8, 8), torch.tensor([500]))

    monkeypatch.setattr(run, "alone", counting)
    rows = run.guided(SimpleNamespace(type=torch.float32, repeats=1)).splitlines()
    assert len(rows) == 3
    assert samples[-15:] == [1] * 5 + [2] * 5 + [1, 2, 2, 2, 1]


def test_a_streamed_frame_is_beside_those_it_sees(monkeypatch):
    monkeypatch.setattr(run, "UNET", run.UNET | {"dim": 4, "self_attns": (False,) * 4})
    timed = []

    def counted(runs, repeats, device):
        for name, call in runs.items():
            timed.append((name, call().shape[2]))
        return {name: float(frames) for name, frames in timed}

    monkeypatch.setattr(run, "medians", counted)
    table = run.streamed(SimpleNamespace(type=torch.float32, repeats=3), after=(16, 20))
    assert dict(timed) == {
        ("streamed", 16): 1, ("the last 17 again", 16): 17, ("all again", 16): 17,
        ("streamed", 20): 1, ("the last 17 again", 20): 17, ("all again", 20): 21,
    }  # fmt: skip
    rows = [row.split(" | ") for row in table.splitlines()[2:]]
    assert [row[:4] for row in rows] == [
        ["| 16 frames", "1000.0", "17000 (17.0 times)", "17000 (17.0 times)"],
        ["| 20 frames", "1000.0", "17000 (17.0 times)", "21000 (21.0 times)"],
    ]
    assert float(rows[0][4].strip(" |")) > 0


def test_the_record_keeps_the_other_device(tmp_path: Path, monkeypatch):
    record = tmp_path / "RESULTS.md"
    run.write("first", record)
    monkeypatch.setattr(run, "DEVICE", {"cpu": "cuda", "cuda": "cpu"}[run.DEVICE])
    run.write("second\n\n### with a heading", record)
    run.write("third\n\n### with a heading", record)
    text = record.read_text()
    assert "first" in text
    assert "third" in text
    assert "second" not in text
    assert text.count("### with a heading") == 1


def test_the_record_of_inflated_models_is_written(tmp_path: Path, monkeypatch):
    pytest.importorskip("diffusers")
    record = tmp_path / "inflated.md"
    arguments = ["--repeats", "1", "--out", str(record), "--models", "DiTTransformer2DModel"]
    monkeypatch.setattr(sys, "argv", ["inflated.py", *arguments])
    monkeypatch.setattr(inflated, "SCALE", 1)
    assert inflated.main() == 0
    text = record.read_text()
    assert "diffusers 0." in text
    assert "medians of 1 turns" in text
    start = "| diffusers | DiTTransformer2DModel | 1 + 2 | 0.00M / 0.01M | 0 | 0 | "
    assert text.count("\n| diffusers |") == text.count(start) == 1
    assert text.endswith("** | none |\n")
    assert inflated.difference([torch.ones(2)], [torch.tensor([1.0, 3.0])]) == 2


@pytest.mark.parametrize("window", [1, 4])
def test_what_a_stage_takes_is_what_it_does(window):
    arguments = UNET | {"cond_channels": 4, "cond_dim": 6, "condition_on_fps": True}
    cost = cascade_sizes.cost_of(cascade_sizes.Sized(arguments, 8, 9, window, window // 2))
    unet = SpaceTimeUnet(**arguments)
    assert cost.parameters == sum(parameter.numel() for parameter in unet.parameters())
    assert cost.calls == {1: 9, 4: 4}[window]  # frames 0 to 3, 2 to 5, 4 to 7, 5 to 8
    x = torch.randn(1, 3, window, 8, 8)
    given = {"cond": torch.randn(1, 6), "fps": 8.0}
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), torch.no_grad():
        done = measure.work(lambda: unet(x if window > 1 else x[:, :, 0], 5, **given))
    assert cost.call == done.flops
    assert cost.step == pytest.approx(3 * cost.call, rel=0.1)
    assert cost.memory > 16 * cost.parameters  # weights, their average, gradients, two moments


def test_the_sizes_of_a_cascade_are_a_table(monkeypatch, capsys):
    small = cascade_sizes.Sized(dict(UNET), 8, 9, 1)
    monkeypatch.setattr(cascade_sizes, "STAGES", {"per frame": small})
    assert cascade_sizes.main(["--tflops", "1e-6", "--steps", "10"]) == 0
    row = capsys.readouterr().out.splitlines()[2].split(" | ")
    cost = cascade_sizes.cost_of(small)
    assert row[0] == "| per frame"
    assert row[1] == "9x8x8"
    assert int(row[5]) == round(cost.call * 9 * 10 / 1e6)
