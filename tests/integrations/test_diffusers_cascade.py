import json
import math

import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet, inflate
from make_a_video_pytorch.cascade import Cascade, Decoder, Interpolation, SuperResolution
from tests.image_models import small_text_unet
from tests.integrations.small import missing
from tests.zoo import ONE_STAGE, randomize

pytest.importorskip("diffusers", reason=missing("diffusers"))

import diffusers

from make_a_video_pytorch.integrations.diffusers import (
    InflatedDiffusersModel,
    SpaceTimeUnetModel,
    load_cascade,
    save_cascade,
)

TEXT = torch.linspace(-1, 1, 2 * 4 * 5).view(2, 4, 5)
OPTIONS = ONE_STAGE | dict(temporal_compression=(False,))


def cascade() -> Cascade:
    """Of an inflated model, a U-Net and a model of diffusers."""
    inflated = inflate(small_text_unet(), heads=2, dim_head=4)
    randomize(inflated.temporal, 0.1)
    more = randomize(SpaceTimeUnet(**OPTIONS, cond_channels=4), 0.1)
    larger = SpaceTimeUnetModel(**OPTIONS, cond_channels=3, condition_on_noise_level=True)
    config = dict(clip_sample=False, prediction_type="v_prediction")
    return Cascade(
        {
            "decoder": Decoder(
                InflatedDiffusersModel(inflated), diffusers.DDIMScheduler(**config),
                size=(8, 8), frames=3, steps=2, takes=["encoder_hidden_states"],
            ),
            "interpolation": Interpolation(
                more, diffusers.DPMSolverMultistepScheduler(prediction_type="v_prediction"),
                size=(8, 8), factor=2, window=4, overlap=2, steps=2,
            ),
            "super resolution": SuperResolution(
                randomize(larger, 0.1), diffusers.DDIMScheduler(**config), size=(16, 16),
                size_before=(8, 8), window=4, enable_time=False, noise_level=3,
                most_noise_level=9, steps=2, alpha=math.inf,
            ),
        }
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers', with numpy 2
def test_what_is_saved_is_loaded(tmp_path):
    before = cascade()
    save_cascade(before, tmp_path / "cascade")
    after = load_cascade(tmp_path / "cascade", prior=lambda texts: {"encoder_hidden_states": TEXT})
    assert list(after.stages) == list(before.stages)
    for name, stage in before.stages.items():
        again = after.stages[name]
        assert type(again) is type(stage)
        assert type(again.model) is type(stage.model)
        assert type(again.scheduler) is type(stage.scheduler)
        assert again.settings == stage.settings
        for key in ("prediction_type", "beta_schedule", "num_train_timesteps"):
            assert again.scheduler.config[key] == stage.scheduler.config[key]
    wanted = before(encoder_hidden_states=TEXT, seed=3)
    assert wanted.shape == (2, 3, 5, 16, 16)
    torch.testing.assert_close(after(["a dog", "a cat"], seed=3), wanted)
    folders = sorted(path.name for path in (tmp_path / "cascade").iterdir())
    assert folders == ["cascade.json", "decoder", "interpolation", "super resolution"]


def test_a_stage_is_a_model_of_diffusers_in_its_folder(tmp_path):
    save_cascade(cascade(), tmp_path)
    unet = SpaceTimeUnetModel.from_pretrained(tmp_path / "interpolation" / "unet")
    assert unet.config.cond_channels == 4
    half = load_cascade(tmp_path, torch_dtype=torch.bfloat16)
    dtypes = {p.dtype for stage in half.stages.values() for p in stage.model.parameters()}
    assert dtypes == {torch.bfloat16}
    assert json.loads((tmp_path / "cascade.json").read_text())["decoder"]["stage"] == "Decoder"


def test_what_cannot_be_saved_is_refused(tmp_path):
    whole = cascade()
    kept = whole.stages["interpolation"].model
    whole.stages["interpolation"].model = lambda x, timestep, **told: x
    with pytest.raises(
        TypeError, match=r"`stages\['interpolation'\].model` \(a function\) must be"
    ):
        save_cascade(whole, tmp_path)
    whole.stages["interpolation"].model = kept
    whole.stages["interpolation"].scheduler = 3
    with pytest.raises(TypeError, match=r"`stages\['interpolation'\].scheduler` \(a int\) must be"):
        save_cascade(whole, tmp_path)

    class Mine(Decoder):
        pass

    mine = Mine(kept, diffusers.DDIMScheduler(), size=(8, 8))
    with pytest.raises(TypeError, match=r"`stages\['mine'\]` \(a Mine\) is not known in loading"):
        save_cascade(Cascade({"mine": mine}), tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"cascade\.json"):
        load_cascade(tmp_path)
