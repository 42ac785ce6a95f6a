"""What `integrations.diffusers` exports, and what its docstrings show."""

from pathlib import Path

import pytest
import torch

from make_a_video_pytorch import ControlBranch, SpaceTimeUnet, inflate
from tests.image_models import small_text_unet
from tests.integrations.small import missing
from tests.test_docstrings import arguments_of, explained_in, run_example
from tests.zoo import UNET, randomize

pytest.importorskip("diffusers", reason=missing("diffusers"))

from make_a_video_pytorch.integrations import diffusers as integration
from make_a_video_pytorch.integrations.diffusers import (
    ControlBranchModel,
    InflatedDiffusersModel,
    SpaceTimeUnetModel,
)

EXPORTS = {name: getattr(integration, name) for name in integration.__all__}
SHOWN = {name: thing for name, thing in EXPORTS.items() if not name.endswith("Output")}


@pytest.mark.parametrize("thing", SHOWN.values(), ids=SHOWN)
def test_every_argument_is_explained(thing):
    described = {*explained_in(thing.__doc__)}
    if "arguments" in described:
        described = {*described, *arguments_of(SpaceTimeUnet)} - {"arguments"}
    assert described == {*arguments_of(thing)}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("thing", SHOWN.values(), ids=SHOWN)
def test_its_example_runs(thing, tmp_path):
    assert run_example(thing, folder=Path(tmp_path), **EXPORTS) >= 1


def test_loading_finds_each_class_where_it_says_it_is():
    """diffusers writes the module of a class, and looks there for a base that it knows."""
    for name in ("SpaceTimeUnetModel", "InflatedDiffusersModel"):
        module = __import__(EXPORTS[name].__module__, fromlist=["ModelMixin"])
        assert getattr(module, name) is EXPORTS[name]
        assert issubclass(EXPORTS[name], module.ModelMixin)


def test_models_of_diffusers_stream():
    unet = randomize(SpaceTimeUnetModel(**UNET, causal=True, temporal_window=2), 0.1)
    branch = ControlBranchModel.from_branch(ControlBranch.from_unet(unet.unet, cond_channels=1))
    randomize(branch, 0.1)
    inflated = InflatedDiffusersModel(inflate(small_text_unet(), causal=True, heads=2, dim_head=4))
    randomize(inflated.video_model.temporal, 0.1)
    video, outlines = torch.randn(1, 3, 6, 8, 8), torch.rand(1, 1, 6, 8, 8)
    text = torch.randn(1, 4, 5)
    features = branch(video, 5, cond_images=outlines)
    whole = [unet(video, 5, features=features).sample, inflated(video, 5, text).sample]
    to_unet, to_branch, to_inflated = unet.stream(), branch.stream(), inflated.stream()
    made = [[], []]
    for x, pictures in zip(video.split(2, dim=2), outlines.split(2, dim=2), strict=True):
        features = to_branch(x, 5, cond_images=pictures)
        made[0].append(to_unet(x, 5, features=features).sample)
        made[1].append(to_inflated(x, 5, text, return_dict=False)[0])
    for chunks, wanted in zip(made, whole, strict=True):
        torch.testing.assert_close(torch.cat(chunks, dim=2), wanted, rtol=1e-4, atol=1e-5)
    for model in (SpaceTimeUnetModel(**UNET), InflatedDiffusersModel(inflate(small_text_unet()))):
        with pytest.raises(ValueError, match="must be causal, to be streamed"):
            model.stream()
