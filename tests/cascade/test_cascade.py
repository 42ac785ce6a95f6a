import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.cascade import Cascade
from tests.cascade.small import Told, decoder, interpolation, noise_scheduler, super_resolution
from tests.zoo import ONE_STAGE, randomize


def whole(model=None, **options):
    """A cascade of three stages, of one model in all of them or of U-Nets."""

    def of(channels):
        given = ONE_STAGE | dict(channels=2, temporal_compression=(False,), cond_dim=3)
        torch.manual_seed(channels)
        return randomize(SpaceTimeUnet(**given, cond_channels=channels), 0.1)

    first, second, third = (model,) * 3 if model else map(of, (0, 3, 5))
    scheduler = None if model else noise_scheduler()
    return Cascade(
        {
            "decoder": decoder(first, scheduler),
            "more frames": interpolation(second, scheduler),
            "larger": super_resolution(third, scheduler),
        },
        **options,
    )


COND = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.3, 2.0]])


def test_each_stage_goes_on_from_what_the_last_one_made():
    cascade = whole()
    video = cascade(cond=COND, seed=3)
    assert video.shape == (2, 2, 7, 8, 12)
    assert video.isfinite().all()
    assert torch.equal(video, cascade(cond=COND, seed=3))
    assert not torch.allclose(video, cascade(cond=COND, seed=4), atol=1e-3)
    names = list(cascade.stages)
    # by hand: parts of it are cascades, and a video may come from elsewhere
    few = Cascade({"decoder": cascade.stages["decoder"]})(cond=COND, seed=3)
    rest = Cascade({name: cascade.stages[name] for name in names[1:]})
    made = {}
    last = rest(video=few, cond=COND, seed=3, after_stage=made.__setitem__)
    torch.testing.assert_close(last, video)
    assert list(made) == names[1:]
    assert made["more frames"].shape == (2, 2, 7, 4, 6)
    assert made["larger"] is last


def test_conditions_go_to_the_stages_that_take_them_and_the_rate_is_that_of_what_they_make():
    model = Told(0.3)
    cascade = whole(model)
    cascade.stages["larger"].takes = ("fps",)
    cascade(cond=COND, fps=torch.tensor([4.0, 8.0]))
    steps = 2
    first, second, third = model.calls[0], model.calls[steps], model.calls[-1]
    assert first.keys() == {"x", "timestep", "cond", "fps"}
    assert second.keys() == {"x", "timestep", "cond", "fps", "cond_images"}
    assert third.keys() == {"x", "timestep", "fps", "cond_images"}
    assert [call["fps"].tolist() for call in (first, second, third)] == [[4, 8], [12, 24], [12, 24]]


def test_a_stage_can_be_put_in_the_place_of_another():
    cascade = whole(Told(0.3))
    cascade.stages["larger"] = super_resolution(Told(0.7), size=(16, 18))
    video = cascade(cond=COND)
    torch.testing.assert_close(video, torch.full((2, 2, 7, 16, 18), 0.7))
    cascade.stages["larger"] = super_resolution(Told(0.7), size_before=(6, 6))
    with pytest.raises(
        ValueError, match=r"`stages\['larger'\]` \(which takes \(6, 6\)\) must take"
    ):
        cascade(cond=COND)


def test_texts_reach_the_decoder_by_the_prior():
    asked = []

    def prior(texts):
        asked.append(list(texts))
        return torch.randn(len(texts), 3)

    model = Told(0.3)
    cascade = whole(model, prior=prior)
    state = torch.get_rng_state()
    cascade(["a red ball", "a dog"], seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    once = model.calls[0]["cond"]
    assert once.shape == (2, 3)
    cascade("a dog", seed=5)
    assert asked == [["a red ball", "a dog"], ["a dog"]]
    assert torch.equal(model.calls[-1]["x"][:, :, 0].isfinite().all(), torch.tensor(True))
    tokens = {"context": torch.randn(1, 4, 6), "context_mask": torch.ones(1, 4).bool()}
    model.calls.clear()
    whole(model, prior=lambda texts: tokens)("a dog")
    assert torch.equal(model.calls[0]["context"], tokens["context"])


def test_progress_is_told_step_by_step():
    heard = []
    whole(Told())(cond=COND, progress=lambda *said: heard.append(said))
    total = {"decoder": 2, "more frames": 2, "larger": 4}
    assert heard == [(name, n + 1, total[name]) for name in total for n in range(total[name])]


@pytest.mark.parametrize("stop", range(8))
def test_an_interrupted_run_goes_on_from_the_window_that_was_done(tmp_path, stop):
    def prior(texts):
        calls.append("prior")
        return torch.randn(len(texts), 3)

    def stopping(name, done, total):
        calls.append(name)
        if len(calls) == stop + 2:
            raise KeyboardInterrupt

    calls = []
    cascade = whole(prior=prior)
    wanted = cascade("a dog", seed=3)
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        cascade("a dog", seed=3, checkpoint=tmp_path, progress=stopping)
    before, stop = list(calls), 99
    calls.clear()
    heard = []
    again = whole(prior=prior)("a dog", seed=3, checkpoint=str(tmp_path),
                               progress=lambda *said: heard.append(said))  # fmt: skip
    assert torch.equal(again, wanted)
    assert calls == []  # the prior was not asked again
    # of the window that was stopped, the steps are taken again; those of others are counted at once
    assert heard[-1] == ("larger", 4, 4)
    assert len(before) + len(heard) >= 8
    # and once more, of files alone
    done = whole(prior=prior)
    for stage in done.stages.values():
        stage.model.forward = pytest.fail
    assert torch.equal(done("a dog", seed=3, checkpoint=tmp_path), wanted)


def test_a_checkpoint_is_of_one_run(tmp_path):
    cascade = whole(Told())
    cascade(cond=COND, seed=3, checkpoint=tmp_path)
    asked = [
        (dict(seed=4), "`seed` was 3 and is 4"),
        (dict(cond=COND + 1), "`cond` was .* and is"),
        (dict(fps=8), "`fps` was None and is 8"),
        (dict(dtype=torch.bfloat16), "`dtype` was None and is torch.bfloat16"),
    ]
    for other, message in asked:
        with pytest.raises(ValueError, match=f"`checkpoint` .* is of another run: {message}"):
            cascade(**{"cond": COND, "seed": 3, "checkpoint": tmp_path, **other})
    cascade.stages["larger"].steps = 5
    with pytest.raises(ValueError, match=r"`stages\['larger'\].steps` was 2 and is 5"):
        cascade(cond=COND, seed=3, checkpoint=tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 3
    assert sorted(os.listdir(tmp_path)) == ["decoder", "larger", "more frames", "run.json"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(text="a dog"), r"`text` \(='a dog'\) must be left out: there is no `prior`"),
        (dict(cond=COND, frames=3), "`frames` must be left out, since no stage takes it"),
        (dict(cond=COND, fps=torch.ones(3)), "`cond`, `fps` must be of as many videos: .*'fps': 3"),
        (dict(video=torch.zeros(1, 2, 3, 4, 6)), "`video` .* must be left out: a Decoder"),
    ],
)
def test_wrong_calls_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        whole(Told())(**given)


def test_a_run_goes_on_in_another_process_and_of_loaded_stages(tmp_path):
    """Where sets are in another order, and diffusers has noted where a scheduler is from."""
    script = (
        "import sys, torch; from tests.cascade.test_cascade import whole, COND; "
        "from diffusers import DDIMScheduler\n"
        "cascade = whole()\n"
        "if sys.argv[2] == 'loaded':\n"
        "    for stage in cascade.stages.values():\n"
        "        stage.scheduler.save_pretrained(sys.argv[1] + '-scheduler')\n"
        "        stage.scheduler = DDIMScheduler.from_pretrained(sys.argv[1] + '-scheduler')\n"
        "print(cascade(cond=COND, checkpoint=sys.argv[1]).double().sum().item())"
    )
    said = []
    for seed, how in (("1", "made"), ("2", "made"), ("3", "loaded")):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "run"), how], text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed}, cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        said.append(done.stdout)
    assert len({*said}) == 1


def test_a_call_that_is_refused_leaves_no_run(tmp_path):
    with pytest.raises(ValueError, match="`conds` must be left out"):
        whole(Told())(conds=COND, checkpoint=tmp_path)
    whole(Told())(cond=COND, checkpoint=tmp_path)


def test_the_rate_of_a_video_that_is_given_is_its_own():
    model = Told()
    Cascade({"more": interpolation(model)})(video=torch.zeros(1, 2, 3, 4, 6), fps=4.0)
    assert model.calls[0]["fps"] == 12


def test_stages_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"`stages\['b'\]` \(which takes None\) must take"):
        Cascade({"a": decoder(Told()), "b": decoder(Told())})
    with pytest.raises(ValueError, match=r"`stages` \(with 'a/b'\) must have names of letters"):
        Cascade({"a/b": decoder(Told())})


def test_what_is_no_condition_is_refused():
    with pytest.raises(TypeError, match=r"`cond` \(a list\) must be a number or a tensor"):
        whole(Told())(cond=[1.0])
    with pytest.raises(ValueError, match="`stages` must have one at least"):
        Cascade({})
    with pytest.raises(TypeError, match=r"`stages` .* must be of type"):
        Cascade([decoder(Told())])
