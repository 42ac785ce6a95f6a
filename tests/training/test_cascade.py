"""Stages of a cascade that are trained for a minute each beat what needs no training."""

import glyph_stages
import torch
from clips import MovingDigits
from diffusion import psnr, sampler
from glyph_measures import of_noise, of_super_resolution
from glyph_stages import Part, Phase, Plan, train
from glyphs import Glyphs
from interpolate import blend
from processes import join
from torch import Generator

from make_a_video_pytorch.cascade import Interpolation
from tests.training.digits import SIZE, small_unet


def test_frames_between_are_nearer_to_the_truth_than_a_blend():
    torch.manual_seed(0)
    stage = Interpolation(
        small_unet(cond_channels=2), sampler(), size=(SIZE, SIZE), factor=3, window=7, overlap=1,
        steps=1, alpha=2,
    )  # fmt: skip
    learned = Phase(1000, 3e-3, (Part(MovingDigits(SIZE), 8, 7),))
    train(Plan(stage, (learned,), stage), None, join("cpu"), name="between", seed=0, share=1.0)
    truth = MovingDigits(SIZE, held_out=True)(48, 13, Generator().manual_seed(1)).videos
    kept = torch.arange(13) % 3 == 0
    made = stage(stage.before(truth)).clamp(-1, 1)  # in two windows
    assert torch.equal(made[:, :, kept], truth[:, :, kept])
    ours, blended = (psnr(v[:, :, ~kept], truth[:, :, ~kept]) for v in (made, blend(truth, kept)))
    print(f"interpolation {ours:.1f} dB, blend {blended:.1f} dB")
    assert ours > blended + 0.5


def test_larger_frames_are_nearer_to_the_truth_than_bicubic_ones_and_do_not_flicker():
    torch.manual_seed(0)
    plan = glyph_stages.largest()
    train(plan, None, join("cpu"), name="largest", seed=0, share=0.4)
    clips = Glyphs(fps=(12.0, 12.0), held_out=True)(6, 8, Generator().manual_seed(1)).videos
    found = of_super_resolution("64x64", plan.stage, clips, {}, 0)
    found |= of_noise(plan.stage, clips, {}, 0)
    print(found)
    assert found["64x64, made: dB"] > found["64x64, bicubic: dB"] + 1
    assert found["flicker, still, one noise"] < 1e-4
    for kind in ("still", "moving"):
        assert found[f"flicker, {kind}, one noise"] < found[f"flicker, {kind}, a noise each"]
