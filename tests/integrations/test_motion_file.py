"""A motion module is a file that says what it belongs to."""

import json

import pytest
import torch
from torch import nn

from make_a_video_pytorch import inflate
from tests.image_models import ATTENTION, Net
from tests.integrations.small import differs, missing, video_model, waves

pytest.importorskip("diffusers", reason=missing("diffusers"))

from safetensors import safe_open
from safetensors.torch import save_file

from make_a_video_pytorch.integrations.diffusers import load_motion, save_motion

VIDEO = waves(2, 3, 4, 4, 6)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.SiLU(), nn.Conv2d(5, 3, 3, padding=1))


def test_what_is_written_is_read(tmp_path):
    moving, still = video_model(net()), inflate(net(), heads=2, dim_head=2)
    save_motion(moving, tmp_path / "motion.safetensors")
    assert differs(still(VIDEO), moving(VIDEO))
    load_motion(still, tmp_path / "motion.safetensors")
    assert torch.equal(still(VIDEO), moving(VIDEO))


def test_the_file_says_what_the_model_was_inflated_with(tmp_path):
    model = inflate(net(), temporal_kernel_size=5, where=lambda name, module: name == "2")
    save_motion(model, tmp_path / "motion.safetensors")
    with safe_open(tmp_path / "motion.safetensors", "pt") as file:
        said = json.loads(file.metadata()["inflation"])
    assert said == {
        "convs": ["2"], "attentions": [], "temporal_kernel_size": 5, "heads": None,
        "dim_head": None, "causal": False, "temporal_window": None,
    }  # fmt: skip


OTHERS = {
    "temporal_kernel_size": (
        {"temporal_kernel_size": 5}, r"`temporal_kernel_size` \(=5\) must be 3, with which"
    ),
    "causal": ({"causal": True}, r"`causal` \(=True\) must be False, with which"),
    "where": (
        {"where": lambda name, module: name == "0"},
        r"`where` must choose the convs of the motion in .*motion.safetensors: 1 of them are not "
        r"inflated here, and 0 were not inflated there, as `2`",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "message"), OTHERS.values(), ids=OTHERS)
def test_a_model_that_was_inflated_otherwise_is_told_by_which_argument(options, message, tmp_path):
    save_motion(inflate(net()), tmp_path / "motion.safetensors")
    other = inflate(net(), **options)
    before = other(VIDEO)
    with pytest.raises(ValueError, match=message):
        load_motion(other, tmp_path / "motion.safetensors")
    assert torch.equal(other(VIDEO), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, r"`heads` \(=3\) must be 2"),
        ({"dim_head": 4}, r"`dim_head` \(=4\) must be 2"),
        ({"temporal_window": 3}, r"`temporal_window` \(=3\) must be None"),
        ({"attention": []}, r"`heads` \(=None\) must be 2"),
    ],
    ids=["heads", "dim_head", "window", "attention"],
)
def test_attention_that_differs_is_told(options, message, tmp_path):
    save_motion(video_model(Net()), tmp_path / "motion.safetensors")
    given = {"attention": list(ATTENTION), "heads": 2, "dim_head": 2, **options}
    other = inflate(Net(), **given)
    with pytest.raises(ValueError, match=message):
        load_motion(other, tmp_path / "motion.safetensors")


def test_a_file_that_does_not_say_it_is_loaded_by_its_tensors(tmp_path):
    moving, still = video_model(net()), inflate(net())
    save_file(moving.temporal_state_dict(), tmp_path / "old.safetensors")
    load_motion(still, tmp_path / "old.safetensors")
    assert torch.equal(still(VIDEO), moving(VIDEO))
