"""A ControlBranch as a model of diffusers."""

import pytest
import torch

from make_a_video_pytorch import ControlBranch
from tests.integrations.small import close, differs, missing, waves
from tests.zoo import CONDITIONS, ONE_STAGE, randomize

pytest.importorskip("diffusers", reason=missing("diffusers"))

from make_a_video_pytorch.integrations.diffusers import ControlBranchModel, SpaceTimeUnetModel

VIDEO, PICTURES, TEXT = waves(2, 3, 4, 4, 6), waves(2, 1, 4, 4, 6), waves(2, 5, 6)
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
FURTHER = {"cond": waves(2, 4), "fps": 8, "noise_level": 90}


def pair() -> tuple[SpaceTimeUnetModel, ControlBranchModel]:
    unet = randomize(SpaceTimeUnetModel(**{**ONE_STAGE, **CONDITIONS}), 0.2).eval()
    branch = ControlBranch.from_unet(unet.unet, cond_channels=1)
    return unet, ControlBranchModel.from_branch(randomize(branch, 0.2))


def predicted(unet, branch, **kwargs):
    with torch.no_grad():
        features = branch(VIDEO, 5, TEXT, MASK, cond_images=PICTURES, **FURTHER, **kwargs)
        return unet(VIDEO, 5, TEXT, MASK, features=features, **FURTHER).sample


def test_it_is_the_branch_called_as_diffusers_calls():
    unet, model = pair()
    features = model(VIDEO, 5, TEXT, MASK, cond_images=PICTURES, **FURTHER)
    given = {"context": TEXT, "context_mask": MASK.bool(), **FURTHER}
    for ours, theirs in zip(
        features, model.branch(VIDEO, 5, cond_images=PICTURES, **given), strict=True
    ):
        assert torch.equal(ours, theirs)
    out = predicted(unet, model)
    assert differs(out, unet(VIDEO, 5, TEXT, MASK, **FURTHER).sample)
    assert differs(predicted(unet, model, conditioning_scale=0.5), out)


def test_what_is_saved_is_loaded(tmp_path):
    unet, model = pair()
    model.save_pretrained(tmp_path)
    loaded = ControlBranchModel.from_pretrained(tmp_path)
    assert loaded.branch.config == model.branch.config
    close(predicted(unet, loaded), predicted(unet, model))


def test_gradient_checkpointing_is_switched_by_diffusers():
    _, model = pair()
    model.enable_gradient_checkpointing()
    assert model.is_gradient_checkpointing
    assert model.branch.unet.gradient_checkpointing
