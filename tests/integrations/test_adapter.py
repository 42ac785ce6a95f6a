"""The adapter without a library: a U-Net conditioned on a vector, pictures and tokens."""

import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.integrations.adapter import Adapter
from tests.integrations.small import UNET, trained


class Adapted(Adapter):
    def __init__(
        self,
        *,
        dim,
        channels=3,
        vector=None,
        noise=False,
        lowres_cond=False,
        self_cond=False,
        **unet,
    ):
        settings = dict(vector=vector, noise=noise, lowres_cond=lowres_cond, self_cond=self_cond)
        sizes = dict(dim=dim, channels=channels, vector_dim=vector or 0, context_dim=None)
        super().__init__(settings, unet, noise_cond=noise, **sizes)

    def forward(self, x, time, **given):
        names = ("vector", "context", "context_mask", "self_cond", "lowres_cond_img", "noise_level")
        return self.predict(x, time, **{name: given.get(name) for name in names})


@pytest.fixture
def x():
    return torch.randn(2, 3, 3, 8, 8)


TIME = torch.tensor([1, 7])


def test_conditions_have_their_order(x):
    adapter = trained(Adapted(vector=6, noise=True, lowres_cond=True, self_cond=True, **UNET))
    vector = torch.randn(2, 6)
    given = dict(vector=vector, self_cond=x + 1, lowres_cond_img=x + 2, noise_level=TIME + 3)
    out = adapter(x, TIME, **given)
    cond = torch.cat((vector, adapter.noise_emb(TIME + 3)), dim=1)
    expected = adapter.unet(x, TIME, cond=cond, cond_images=torch.cat((x + 1, x + 2), dim=1))
    assert torch.equal(out, expected)
    del given["self_cond"]
    pictures = torch.cat((torch.zeros_like(x), x + 2), dim=1)
    expected = adapter.unet(x, TIME, cond=cond, cond_images=pictures)
    assert torch.equal(adapter(x, TIME, **given), expected)
    del given["vector"]
    given["vector"] = torch.zeros_like(vector)
    without = adapter(x, TIME, lowres_cond_img=x + 2, noise_level=TIME + 3)
    assert torch.equal(without, adapter(x, TIME, **given))


def test_the_noise_level_keeps_its_weights_where_a_vector_comes_before_it(x):
    old, x = trained(Adapted(noise=True, **UNET)).double(), x.double()
    new = old.cast_model_parameters(vector=6)
    weight = new.unet.to_cond.weight
    assert not weight[:, :6].any()
    assert torch.equal(weight[:, 6:], old.unet.to_cond.weight)
    out = new(x, TIME, vector=torch.randn(2, 6, dtype=x.dtype), noise_level=TIME)
    torch.testing.assert_close(out, old(x, TIME, noise_level=TIME))


def test_a_cast_is_of_the_same_kind(x):
    old = Adapted(**UNET).double().eval()
    old.unet.mid_attn.requires_grad_(False)
    new = old.cast_model_parameters(channels_out=6, lowres_cond=True)
    assert type(new) is Adapted
    assert not new.training
    assert not any(p.requires_grad for p in new.unet.mid_attn.parameters())
    out = new(x.double(), TIME, lowres_cond_img=x.double())
    torch.testing.assert_close(out[:, :3], old(x.double(), TIME), rtol=1e-12, atol=1e-12)
    assert old.cast_model_parameters(channels_out=3, lowres_cond=False) is old


def test_what_would_predict_otherwise_is_refused(x):
    with pytest.raises(ValueError, match=r"`vector` \(=9\) must be 6, as this U-Net was built"):
        Adapted(vector=6, **UNET).cast_model_parameters(vector=9)
    with pytest.raises(ValueError, match=r"`lowres_cond` \(=False\) must be True, as this U-Net"):
        Adapted(lowres_cond=True, **UNET).cast_model_parameters(lowres_cond=False)
    with pytest.raises(ValueError, match=r"`unet` \(with `cond_dim`=9\) must have `cond_dim`=6"):
        Adapted.from_unet(SpaceTimeUnet(**UNET, cond_dim=9), vector=6)
    with pytest.raises(ValueError, match=r"`dim_mult` .* cannot grow"):
        Adapted.from_unet(SpaceTimeUnet(**UNET), dim_mult=(2, 2))
    with pytest.raises(ValueError, match=r"`condition_on_timestep` \(=False\) must be True"):
        Adapted(condition_on_timestep=False, **UNET)
    with pytest.raises(TypeError, match="`cond_dim` must be left out: it follows from"):
        Adapted(cond_dim=3, **UNET)
    with pytest.raises(TypeError, match="`condition_on_noise_level` must be left out: it follows"):
        Adapted(condition_on_noise_level=True, **UNET)
    with pytest.raises(ValueError, match="`lowres_cond_img` must be given, as `lowres_cond` is"):
        Adapted(lowres_cond=True, **UNET)(x, TIME)
    with pytest.raises(ValueError, match="`lowres_noise_level` must be given"):
        Adapted(noise=True, **UNET)(x, TIME)
    with pytest.raises(ValueError, match="`self_cond` must be left out, since no `self_cond`"):
        Adapted(**UNET)(x, TIME, self_cond=x)


def test_it_starts_from_a_unet_alone(x):
    unet = trained(SpaceTimeUnet(**UNET, cond_dim=6, condition_on_fps=True))
    adapter = Adapted.from_unet(unet, vector=6, noise=True, lowres_cond=True)
    vector = torch.randn(2, 6)
    out = adapter(x, TIME, vector=vector, lowres_cond_img=x, noise_level=TIME)
    torch.testing.assert_close(out, unet(x, TIME, cond=vector))
    with torch.no_grad():
        adapter.unet.conv_in.spatial_conv.weight.zero_()
    assert unet.conv_in.spatial_conv.weight.any()  # a copy
