"""Several processes train as one does that has all their clips, whoever has which shares."""

import pytest
import torch
from safetensors.torch import load_file

from tests.examples.models import pipeline
from tests.examples.runs import WEIGHTS
from tests.processes.conftest import losses, run, spied

DATA = ["--joint", 0.5, "--data"]
MOTION = "motion.safetensors"


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """The folder of a training in one process."""
    out = tmp_path_factory.mktemp("alone")
    run(1, *DATA, folder, "--out", out, "--batch-images", 8, "--batch-video", 4)
    return out


def must_be_alike(out, alone, first=1):
    """The losses of training and of what is held out, the weights and the samples."""
    for name in ("loss", "held_out_loss"):
        one, other = losses(alone, name), losses(out, name)
        assert list(one) == list(other)
        assert list(other.values()) == pytest.approx(list(one.values()), rel=2e-4)
    once, again = (load_file(path / "checkpoint-000008" / WEIGHTS) for path in (alone, out))
    for name, tensor in once.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-2, atol=2e-4, msg=name)
    assert (out / "samples.png").exists()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "fsdp2-by-accelerate"])
def test_two_processes_have_the_losses_of_one_with_all_clips(folder, alone, tmp_path, strategy):
    sharded = strategy != "ddp"
    batches = ["--batch-images", 4, "--batch-video", 2, *["--shard"] * (strategy == "fsdp2")]
    asked = {"ACCELERATE_USE_FSDP": "true"} if strategy == "fsdp2-by-accelerate" else {}
    said = run(2, *DATA, folder, "--out", tmp_path, *batches, SPY=tmp_path, **asked)
    assert "Warning" not in said, said
    assert said.count("wrote ") == 1
    must_be_alike(tmp_path, alone)
    seen = spied(tmp_path)
    assert [kept["process"] for kept in seen] == [0, 1]
    assert [bool(kept["written"]) for kept in seen] == [True, False], seen[1]["written"]
    for kept in seen:
        assert (kept["processes"], kept["parts"]) == (2, 1)
        every = kept["parameters"] if sharded else 0
        assert kept["sharded"] == kept["sharded_average"] == every
        assert (kept["sharded_states"] > 0) == sharded
    whole = sum(t.numel() for t in load_file(tmp_path / "checkpoint-000008" / WEIGHTS).values())
    own = sum(kept["own"] for kept in seen)
    assert own == (whole if sharded else 2 * whole)


def test_gradients_that_are_accumulated_are_those_of_the_whole_batch(folder, alone, tmp_path):
    batches = ["--batch-images", 4, "--batch-video", 2, "--gradient-accumulation", 2]
    run(1, *DATA, folder, "--out", tmp_path, *batches, SPY=tmp_path)
    must_be_alike(tmp_path, alone)
    assert [kept["parts"] for kept in spied(tmp_path)] == [2]


@pytest.mark.parametrize(
    ("before", "after", "sharded"),
    [(2, 1, False), (1, 2, False), (2, 1, True)],
    ids=["ddp-2-1", "ddp-1-2", "fsdp2-2-1"],
)
def test_another_number_of_processes_goes_on_with_the_same_clips(
    folder, alone, tmp_path, before, after, sharded
):
    """Each has as many at once as before at most, and in as many parts as it then takes."""
    shard = ["--shard"] * sharded
    batches = ["--batch-images", 8 // before, "--batch-video", 4 // before, *shard]
    few = [*DATA, folder, "--out", tmp_path, *batches, "--save-every", 3]
    run(before, *few, code=130 if before == 1 else 1, STOP=6)  # a launcher has a code of its own
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-000006"]
    more = ["--resume", "--out", tmp_path, *shard, "--save-every", 2]
    said = run(after, *more, SPY=tmp_path)
    assert said.count("from here on") == 1  # by one process
    assert "--save-every is 2 from here on; it was 3" in said
    must_be_alike(tmp_path, alone)
    assert [kept["parts"] for kept in spied(tmp_path)] == [2] if after == 1 else [1, 1]


def test_lower_precision_trains_in_two_processes_too(folder, alone, tmp_path):
    batches = ["--batch-images", 4, "--batch-video", 2, "--mixed-precision", "bf16"]
    run(2, *DATA, folder, "--out", tmp_path, *batches)
    for name in ("loss", "held_out_loss"):
        assert losses(tmp_path, name) == pytest.approx(losses(alone, name), rel=3e-2)
        assert losses(tmp_path, name) != pytest.approx(losses(alone, name), rel=1e-4)


def test_motion_is_trained_in_two_processes_too(folder, tmp_path):
    """Of an image model of diffusers, with its text encoder and autoencoder, which stays frozen."""
    made = pipeline(tmp_path / "pipeline")
    for n in range(3):
        (folder / f"{n}.txt").write_text("a red ball")
    given = ["--data", folder, "--inflate", made, "--cache", tmp_path / "cache", "--joint", 0]
    run(1, *given, "--out", tmp_path / "alone", "--batch-video", 4)
    for name, shard in (("ddp", []), ("fsdp2", ["--shard"])):
        out = tmp_path / name
        said = run(2, *given, *shard, "--out", out, "--batch-video", 2, SPY=out)
        assert "Warning" not in said, said
        assert losses(out) == pytest.approx(losses(tmp_path / "alone"), rel=2e-4)
        assert len(losses(out)) == 4
        assert [kept["sharded"] > 0 for kept in spied(out)] == [bool(shard)] * 2
        runs = (tmp_path / "alone", out)
        one, other = (load_file(path / "checkpoint-000004" / MOTION) for path in runs)
        for key, tensor in one.items():
            torch.testing.assert_close(other[key], tensor, rtol=1e-2, atol=1e-4, msg=key)
