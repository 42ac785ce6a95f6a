import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet, temporal_parameters
from tests.integrations.decoders import IMAGE, TEXT, SpaceTimeUnetForDalle2, decoder, unet
from tests.integrations.small import UNET, trained

from dalle2_pytorch import Unet  # isort: skip


def test_it_is_one_of_the_librarys_own():
    assert isinstance(unet(), Unet)


def test_a_decoder_turns_on_what_it_needs():
    cascade = decoder(unet(**IMAGE), unet(), image_sizes=(8, 16), use_noise_for_lowres_cond=True)
    first, second = cascade.unets
    assert first.channels_out == 6  # learned variance
    assert first.cond_on_image_embeds
    assert not first.lowres_cond
    assert second.channels_out == 3
    assert second.lowres_cond
    assert second.lowres_noise_cond
    assert not second.cond_on_image_embeds


SETTINGS = {
    "nothing": ({}, {}),
    "learned variance": ({}, {"channels_out": 6}),
    "image": (IMAGE, {"cond_on_image_embeds": True}),
    "low resolution": ({}, {"lowres_cond": True, "lowres_noise_cond": True}),
    "low resolution beside self": ({"self_cond": True}, {"lowres_cond": True}),
    "image before noise": (
        {**IMAGE, "lowres_cond": True, "lowres_noise_cond": True},
        {"cond_on_image_embeds": True},
    ),
    "noise after image": (
        {**IMAGE, "cond_on_image_embeds": True, "lowres_cond": True},
        {"lowres_noise_cond": True},
    ),
    "image beside text": (
        {**IMAGE, **TEXT, "num_image_tokens": 0},
        {"cond_on_image_embeds": True, "channels_out": 6},
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_survive_a_cast(name, image_embed, text_encodings):
    settings, updates = SETTINGS[name]
    old = trained(unet(**settings)).double().eval()  # wider products sum in another order
    asked = ["lowres_cond", "lowres_noise_cond", "channels", "channels_out"]
    asked += ["cond_on_image_embeds", "cond_on_text_encodings"]
    new = old.cast_model_parameters(**{name: getattr(old, name) for name in asked} | updates)
    assert (new is old) == (not updates)
    assert not new.training
    x, time = torch.randn(2, 3, 3, 8, 8).double(), torch.tensor([1, 7])

    def given(model):
        every = {
            "image_embed": image_embed,
            "text_encodings": text_encodings,
            "self_cond": x + 1 if model.self_cond else None,
            "lowres_cond_img": x + 2 if model.lowres_cond else None,
            "lowres_noise_level": time + 3 if model.lowres_noise_cond else None,
        }
        return model(x, time, **every)

    expected, out = given(old), given(new)
    torch.testing.assert_close(out[:, :3], expected)
    assert out[:, 3:].eq(0).all()
    for key, value in updates.items():
        assert getattr(new, key) == value
    # what is new is not dead: every parameter gets a gradient
    trained(new)
    given(new).square().sum().backward()
    for name, parameter in new.unet.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.any() or not name.endswith((".to_out.weight", "to_cond.weight"))


def test_a_cast_that_would_drop_weights_is_refused():
    with pytest.raises(ValueError, match=r"`channels_out` \(=3\) must be 6, as this U-Net was"):
        decoder(unet(**IMAGE, channels_out=6), learned_variance=False)
    with pytest.raises(ValueError, match=r"`cond_on_text_encodings` \(=False\) must be True"):
        decoder(unet(**TEXT), unconditional=True)
    with pytest.raises(ValueError, match=r"`channels` \(=4\) must be 3"):
        decoder(unet(), channels=4, unconditional=True)


def test_further_tokens_beside_a_learned_text_are_refused():
    fresh = decoder(unet(**IMAGE, **TEXT))
    assert fresh.unets[0].to_image_tokens is not None
    with pytest.raises(ValueError, match=r"`num_image_tokens` \(=4\) must be 0 for a U-Net that"):
        decoder(trained(unet(**IMAGE, **TEXT)))
    with pytest.raises(ValueError, match=r"`num_image_tokens` \(=4\) must be 0 for a U-Net that"):
        SpaceTimeUnetForDalle2.from_unet(
            trained(SpaceTimeUnet(**UNET, context_dim=5)),
            **IMAGE,
            **TEXT,
            cond_on_image_embeds=True,
        )


def test_it_predicts_as_the_unet_it_is_made_of(image_embed, text_encodings):
    x, time = torch.randn(2, 3, 3, 8, 8), torch.tensor([1, 7])
    own = trained(SpaceTimeUnet(**UNET, cond_dim=6, context_dim=5, cond_channels=3))
    for parameter in temporal_parameters(own):
        parameter.requires_grad_(False)
    adapter = SpaceTimeUnetForDalle2.from_unet(
        own,
        **IMAGE,
        **TEXT,
        cond_on_image_embeds=True,
        num_image_tokens=0,
        lowres_cond=True,
        lowres_noise_cond=True,
        channels_out=6,
    )
    out = adapter(
        x,
        time,
        image_embed=image_embed,
        text_encodings=text_encodings,
        lowres_cond_img=x + 1,
        lowres_noise_level=time,
    )
    mask = text_encodings.ne(0).any(-1)
    expected = own(
        x, time, cond=image_embed, context=text_encodings, context_mask=mask, cond_images=x + 1
    )
    assert torch.allclose(out[:, :3], expected, atol=1e-6)
    learn = [p.requires_grad for p in temporal_parameters(adapter.unet.mid_attn)]
    assert learn
    assert not any(learn)
    assert own(x, time).shape[1] == 3  # as it was


def test_a_unet_with_other_conditions_is_refused():
    with pytest.raises(ValueError, match=r"`unet` \(with `cond_dim`=9\) must have `cond_dim`=6"):
        SpaceTimeUnetForDalle2.from_unet(
            SpaceTimeUnet(**UNET, cond_dim=9), **IMAGE, cond_on_image_embeds=True
        )
    with pytest.raises(ValueError, match=r"`unet` \(with `cond_channels`=4\) must have"):
        SpaceTimeUnetForDalle2.from_unet(SpaceTimeUnet(**UNET, cond_channels=4))
    with pytest.raises(ValueError, match=r"`condition_on_timestep` \(=False\) must be True"):
        SpaceTimeUnetForDalle2.from_unet(SpaceTimeUnet(**UNET, condition_on_timestep=False))
    with pytest.raises(ValueError, match=r"`dim_mult` .* cannot grow"):
        SpaceTimeUnetForDalle2.from_unet(SpaceTimeUnet(**UNET), dim_mult=(2, 2))


def test_wrong_arguments_are_named(image_embed):
    with pytest.raises(TypeError, match="`cond_dim` must be left out: it follows from"):
        unet(cond_dim=3)
    with pytest.raises(TypeError, match="channel_out"):
        unet(channel_out=6)
    with pytest.raises(ValueError, match="`image_embed_dim` must be given, as `cond_on_image"):
        unet(cond_on_image_embeds=True)
    with pytest.raises(ValueError, match="`text_embed_dim` must be given, as `cond_on_text_enc"):
        unet(cond_on_text_encodings=True)
    with pytest.raises(ValueError, match=r"`max_text_len` \(=0\) must be at least 1"):
        unet(max_text_len=0)
    x, time = torch.randn(2, 3, 8, 8), torch.tensor([1, 7])
    with pytest.raises(ValueError, match="`image_embed` must be given, as `cond_on_image_embeds`"):
        unet(**IMAGE, cond_on_image_embeds=True)(x, time)
    with pytest.raises(ValueError, match="`text_encodings` must be given"):
        unet(**TEXT)(x, time)
    with pytest.raises(ValueError, match="`lowres_cond_img` must be given, as `lowres_cond`"):
        unet(lowres_cond=True)(x, time)
    with pytest.raises(ValueError, match="`lowres_noise_level` must be given"):
        unet(lowres_noise_cond=True)(x, time)
    with pytest.raises(ValueError, match="`lowres_cond_img` must be left out"):
        unet()(x, time, lowres_cond_img=x)
    with pytest.raises(ValueError, match="`self_cond` must be left out"):
        unet()(x, time, self_cond=x)


@pytest.mark.parametrize("condition", ["image_embed", "text_encodings"])
def test_a_dropped_condition_has_no_say(condition, image_embed, text_encodings):
    model = trained(unet(**IMAGE, **TEXT, cond_on_image_embeds=True))
    x, time = torch.randn(2, 3, 3, 8, 8), torch.tensor([1, 7])
    conditions = {"image_embed": image_embed, "text_encodings": text_encodings}
    others = {**conditions, condition: conditions[condition].flip(0)}
    probability = condition.split("_")[0] + "_cond_drop_prob"
    for dropped in (0.0, 1.0):
        outs = [model(x, time, **given, **{probability: dropped}) for given in (conditions, others)]
        assert torch.equal(*outs) == (dropped == 1.0)


def test_padding_and_what_is_beyond_the_longest_text_are_not_read(text_encodings):
    model = trained(unet(**TEXT, max_text_len=4))
    x, time = torch.randn(2, 3, 8, 8), torch.tensor([1, 7])
    out = model(x, time, text_encodings=text_encodings)
    assert torch.allclose(out, model(x, time, text_encodings=text_encodings[:, :4]), atol=1e-6)
    one = model(x[1:], time[1:], text_encodings=text_encodings[1:, :4])
    assert torch.allclose(out[1:], one, atol=1e-5)
    assert not torch.allclose(out, model(x, time, text_encodings=text_encodings[:, :3]))


def test_guidance_goes_beyond_the_condition(image_embed):
    model = trained(unet(**IMAGE, cond_on_image_embeds=True))
    x, time = torch.randn(2, 3, 3, 8, 8), torch.tensor([1, 7])
    conditioned = model(x, time, image_embed=image_embed)
    null = model(x, time, image_embed=image_embed, image_cond_drop_prob=1.0)
    out = model.forward_with_cond_scale(x, time, image_embed=image_embed, cond_scale=3.0)
    assert torch.allclose(out, null + 3 * (conditioned - null), atol=1e-5)


def test_a_width_that_is_left_out_is_named():
    with pytest.raises(TypeError, match="'dim'"):
        SpaceTimeUnetForDalle2(lowres_cond=True, lowres_noise_cond=True)
