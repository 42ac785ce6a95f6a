"""What the stages are measured by."""

import math

import glyph_measures
import glyph_stages
import pytest
import torch
from clips import resized
from glyph_measures import changes, compared, direction_of, made_of, measured, sharpness
from glyphs import DIRECTIONS, Glyphs
from torch import Generator

from make_a_video_pytorch.cascade import Cascade, SuperResolution
from tests.examples.test_glyphs import meant


def test_a_direction_is_that_of_real_clips():
    batch = Glyphs(32)(40, 6, Generator().manual_seed(0))
    said = torch.tensor([meant(text)[2] for text in batch.texts])
    assert torch.equal(direction_of(batch.videos), said)
    assert len(DIRECTIONS) == 4


def test_what_is_blurred_is_less_sharp():
    clips = Glyphs()(6, 2, Generator().manual_seed(1)).videos
    blurred = resized(resized(clips, (32, 32)), (64, 64), "bicubic")
    assert 0.4 < sharpness(blurred) / sharpness(clips) < 0.9
    assert sharpness(torch.full((1, 3, 2, 4, 4), 0.3)) == 0
    ramp = torch.arange(4.0).expand(1, 1, 1, 4, 4)
    assert sharpness(ramp) == pytest.approx(0.5**0.5)


def test_changes_are_of_brightness():
    clips = torch.tensor([-1.0, 1.0, 1.0]).view(1, 1, 3, 1, 1)
    assert changes(clips).flatten().tolist() == [1, 0]


def test_all_is_measured_of_a_cascade_that_knows_nothing(monkeypatch):
    monkeypatch.setattr(glyph_measures, "CLIPS", 2)
    monkeypatch.setattr(glyph_measures, "FRAMES", 4)
    torch.manual_seed(0)
    unet = glyph_stages.decoder(6).stage
    stages = {
        "decoder": unet,
        "interpolation": glyph_stages.interpolation(unet.model).stage,
        "larger": glyph_stages.larger(unet.model).stage,
        "largest": glyph_stages.largest().stage,
    }
    for stage in stages.values():
        stage.steps = 1
    cascade = Cascade(stages, prior=lambda texts: torch.zeros(len(texts), 6))
    monkeypatch.setattr(glyph_measures, "KINDS", range(0, 50, 25))
    monkeypatch.setattr(glyph_measures, "JUDGE_STEPS", 1)
    found = measured(cascade, 4.0, seed=0)
    assert all(math.isfinite(value) for value in found.values())
    assert len(found) == 3 * 4 + 6 + 9
    assert stages["largest"].alpha == math.inf
    assert found["right direction, real"] == 1
    # what nothing was learned of is worse than what needs no learning
    for title, other in (("interpolation", "blend"), ("64x64", "bicubic")):
        assert found[f"{title}, made: dB"] < found[f"{title}, {other}: dB"]
        assert found[f"{title}, {other}: sharpness"] < 1 < found[f"{title}, made: sharpness"]
    assert found["flicker, still, one noise"] < 1e-3
    assert found["flicker, still, a noise each"] > 0.05
    assert found["right colour, largest"] < 1


def test_a_stage_is_told_what_it_takes_and_no_more():
    class Model:
        def __init__(self):
            self.config = {"cond_dim": 3, "context_dim": None, "condition_on_fps": False}

        def __call__(self, x, timestep, **told):
            calls.append(told)
            return x

    calls = []
    scheduler = glyph_stages.sampler()
    stage = SuperResolution(
        Model(), scheduler, size=(8, 8), size_before=(4, 4), window=2, steps=1
    )  # fmt: skip
    told = {"cond": torch.randn(2, 3), "fps": torch.ones(2)}
    made = made_of(stage, torch.rand(2, 3, 2, 16, 16), told, seed=0)
    assert made.shape == (2, 3, 2, 8, 8)
    assert [set(call) for call in calls] == [{"cond_images", "cond"}]


def test_numbers_of_what_is_known():
    """A blur of a ramp, by hand: it is as sharp, but for where it is cut."""
    truth = torch.zeros(1, 1, 2, 4, 4)
    truth[..., 2:] = 1
    found = compared("x", truth, {"same": truth.clone(), "half": truth / 2})
    assert found["x, half: sharpness"] == pytest.approx(0.5)
    assert found["x, same: sharpness"] == 1
    assert found["x, half: dB"] == pytest.approx(10 * math.log10(4 / 0.125))
