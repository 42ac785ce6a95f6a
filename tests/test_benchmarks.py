import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import inflated, measure, peers, run
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


def test_calls_take_turns():
    calls = []
    times = measure.medians(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, "cpu"
    )
    assert times.keys() == {"a", "b"}
    assert "".join(calls) == "aabb" + "ab" * 3


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
