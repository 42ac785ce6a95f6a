"""The stages of words to videos of glyphs, and their training."""

import math

import glyph_stages
import pytest
import torch
from draws import Draws
from embedding import Embedding
from glyph_stages import Part, Phase, Plan, cropped, embedded, loss_of
from glyphs import Glyphs
from processes import join
from torch import Generator

from make_a_video_pytorch.cascade import Cascade
from tests.zoo import randomize


@pytest.fixture(scope="module")
def embedding():
    torch.manual_seed(3)
    return Embedding(3, 50, 6).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def plans():
    torch.manual_seed(0)
    first = glyph_stages.decoder(6)
    unet = first.stage.model
    return {
        "decoder": first, "interpolation": glyph_stages.interpolation(unet),
        "larger": glyph_stages.larger(unet), "largest": glyph_stages.largest(),
    }  # fmt: skip


def test_they_make_of_an_embedding_15_frames_of_64x64(plans):
    stages = {name: plan.stage for name, plan in plans.items()}
    made = {}
    for stage in stages.values():
        stage.steps = 1
    cascade = Cascade(stages)
    video = cascade(cond=torch.randn(1, 6), fps=4.0, after_stage=made.__setitem__)
    assert video.shape == (1, 3, 16, 64, 64)
    assert [tuple(v.shape[2:]) for v in made.values()] == [
        (6, 16, 16), (16, 16, 16), (16, 32, 32), (16, 64, 64),
    ]  # fmt: skip
    told = {name: set(stage.taken) for name, stage in stages.items()}
    for name in ("decoder", "interpolation", "larger"):
        assert told[name] == {"cond", "fps"}
    assert told["largest"] == set()


def test_every_frame_that_is_made_is_between_two_that_are_kept(plans):
    stage = plans["interpolation"].stage
    for window in stage.parts(6):
        ends = (window.start + window.done - 1 if window.done else window.start, window.stop - 1)
        assert window.start % stage.factor == 0
        assert ends[1] % stage.factor == 0


@pytest.mark.parametrize("name", ["decoder", "interpolation", "larger", "largest"])
def test_the_loss_falls_where_a_batch_is_learned_by_heart(plans, embedding, name):
    plan = plans[name]
    few = Phase(1, 1e-3, tuple(p._replace(count=2) for p in plan.phases[-1].parts))
    parameters = [p for p in plan.stage.model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=2e-3)
    losses = []
    for _ in range(12):
        loss = loss_of(plan.as_what, embedding, few, plan.stage.model, Draws(0, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0], losses


def test_a_training_leaves_the_averaged_weights(embedding):
    torch.manual_seed(0)
    plan = glyph_stages.largest()
    before = {k: v.clone() for k, v in plan.stage.model.state_dict().items()}
    source = Glyphs(16)
    short = Plan(
        plan.stage, (Phase(20, 1e-3, (Part(source, 2),)), Phase(10, 1e-3, (Part(source, 2),))),
        plan.as_what,
    )  # fmt: skip
    glyph_stages.train(short, embedding, join("cpu"), name="largest", seed=0, share=0.1)
    after = plan.stage.model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert not plan.stage.model.training


def test_a_crop_is_of_the_picture_and_lies_anywhere():
    def source(count, frames, generator):
        rows, columns = torch.arange(64.0)[:, None], torch.arange(64.0)
        picture = (rows * 64 + columns).expand(count, 3, frames, 64, 64)
        return Glyphs()(count, frames, generator)._replace(videos=picture)

    crops = cropped(source)(200, 1, Generator().manual_seed(0)).videos
    assert crops.shape == (200, 3, 1, 32, 32)
    corners = crops[:, 0, 0, 0, 0].long()
    y, x = corners // 64, corners % 64
    for places in (y, x):
        assert set(places.tolist()) == set(range(0, 33, 2))
    inside = torch.arange(32.0)[:, None] * 64 + torch.arange(32.0)
    assert torch.equal(crops - crops[..., :1, :1], inside.expand_as(crops))


def test_an_embedding_is_of_the_middle_frame_made_small(embedding):
    videos = Glyphs()(3, 5, Generator().manual_seed(1)).videos
    small = Glyphs(16)(3, 5, Generator().manual_seed(1)).videos
    torch.testing.assert_close(embedded(embedding, videos), embedding(small[:, :, 2]))


def test_a_crop_is_learned_from_as_the_whole_is_sampled(plans):
    """Without attention a pixel sees those about it, and of the whole a mean and a variance."""
    plan = plans["largest"]
    whole, crops = plan.stage, plan.as_what
    assert crops.model is whole.model
    assert (crops.alpha, crops.enable_time) == (math.inf, False)
    model = randomize(glyph_stages.largest().stage.model, 0.2).eval()
    picture = torch.randn(1, 3, 64, 64)
    for stage in (whole, crops):
        assert stage.size[0] == 2 * stage.size_before[0]
    given = whole.example(picture).conditions["cond_images"]
    part = crops.example(picture[..., 16:48, 16:48]).conditions["cond_images"]
    inside = (..., slice(8, 24), slice(8, 24))
    torch.testing.assert_close(given[..., 16:48, 16:48][inside], part[inside])
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        out = model(x, 500, cond_images=given, enable_time=False)[..., 16:48, 16:48]
        of_part = model(x[..., 16:48, 16:48], 500, cond_images=part, enable_time=False)
    assert (out - of_part)[..., 15:17, 15:17].abs().max() < 0.1 * out.abs().max()
