import random

import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet, temporal_parameters
from tests.integrations.small import UNET, trained

WHY = 'imagen-pytorch is missing: pip install -c constraints.txt -e ".[test-integrations]"'
imagen_pytorch = pytest.importorskip("imagen_pytorch", reason=WHY)

from imagen_pytorch import ElucidatedImagen, Imagen, ImagenTrainer, Unet3D  # noqa: E402

from make_a_video_pytorch.integrations.imagen import SpaceTimeUnetForImagen  # noqa: E402

TEXT = {"text_embed_dim": 5, "cond_on_text": True}
KINDS = {"ddpm": (Imagen, {"timesteps": 4}), "edm": (ElucidatedImagen, {"num_sample_steps": 3})}


def unet(**arguments):
    return SpaceTimeUnetForImagen(**UNET, **arguments)


def imagen(*unets, kind=Imagen, **arguments):
    arguments = {"text_embed_dim": 5, "image_sizes": (8, 16)[: len(unets)]} | arguments
    if kind is Imagen:
        arguments.setdefault("timesteps", 4)
    return kind(unets, **arguments)


@pytest.fixture
def text(text_encodings):
    return text_encodings


def test_it_is_one_of_the_librarys_own():
    assert isinstance(unet(), Unet3D)


def test_imagen_turns_on_what_it_needs():
    first, second = imagen(unet(), unet()).unets
    assert first.cond_on_text
    assert not first.lowres_cond
    assert second.lowres_cond
    assert second.text_embed_dim == 5
    unconditional = imagen(unet(text_embed_dim=9), condition_on_text=False).unets[0]
    assert not unconditional.cond_on_text


@pytest.mark.parametrize(
    ("settings", "updates"),
    [
        ({}, {}),
        ({}, {"cond_on_text": True, "text_embed_dim": 5}),
        (TEXT, {"lowres_cond": True}),
        ({"lowres_cond": True}, {"cond_on_text": True, "text_embed_dim": 5}),
        ({"self_cond": True}, {"lowres_cond": True, "channels_out": 6}),
    ],
)
def test_weights_survive_a_cast(settings, updates, text):
    old = trained(unet(**settings))
    asked = ["lowres_cond", "text_embed_dim", "channels", "channels_out", "cond_on_text"]
    new = old.cast_model_parameters(**{name: getattr(old, name) for name in asked} | updates)
    assert (new is old) == (not updates)
    x, time = torch.randn(2, 3, 3, 8, 8), torch.tensor([-1.5, 7.0])

    def given(model):
        every = {"text_embeds": text, "text_mask": text.ne(0).any(-1)}
        if model.lowres_cond:
            every |= {"lowres_cond_img": x + 2, "lowres_noise_times": time + 1}
        if model.self_cond:
            every["self_cond"] = x + 1
        return model(x, time, **every)

    out = given(new)
    torch.testing.assert_close(out[:, :3], given(old))
    assert out[:, 3:].eq(0).all()
    trained(new)
    given(new).square().sum().backward()
    for name, parameter in new.unet.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.any() or not name.endswith((".to_out.weight", "to_cond.weight"))


def test_what_cannot_be_is_named(text):
    with pytest.raises(ValueError, match=r"`text_embed_dim` \(=5\) must be 9, as this U-Net was"):
        imagen(unet(text_embed_dim=9, cond_on_text=True))
    with pytest.raises(ValueError, match=r"`cond_on_text` \(=False\) must be True"):
        imagen(unet(**TEXT), condition_on_text=False)
    with pytest.raises(ValueError, match=r"`text_embed_dim` must be given, as `cond_on_text`"):
        unet(cond_on_text=True)
    with pytest.raises(ValueError, match=r"`max_text_len` \(=0\) must be at least 1"):
        unet(max_text_len=0)
    with pytest.raises(TypeError, match="`cond_channels` must be left out"):
        unet(cond_channels=3)
    x, time = torch.randn(2, 3, 3, 8, 8), torch.tensor([-1.5, 7.0])
    with pytest.raises(ValueError, match="`text_embeds` must be given, as `cond_on_text` is True"):
        unet(**TEXT)(x, time)
    for name in ("cond_images", "cond_video_frames", "post_cond_video_frames"):
        with pytest.raises(NotImplementedError, match=f"`{name}` must be left out: this U-Net"):
            unet()(x, time, **{name: x})
    model = imagen(unet())
    with pytest.raises(NotImplementedError, match="`cond_video_frames` must be left out"):
        model(x.sigmoid(), text_embeds=text, cond_video_frames=x[:, :, :1])


def test_it_predicts_as_the_unet_it_is_made_of(text):
    own = trained(SpaceTimeUnet(**UNET, cond_dim=5, context_dim=5))
    adapter = SpaceTimeUnetForImagen.from_unet(own, **TEXT, lowres_cond=True)
    x, time = torch.randn(2, 3, 3, 8, 8), torch.tensor([-1.5, 7.0])
    mask = text.ne(0).any(-1)
    out = adapter(
        x, time, text_embeds=text, text_mask=mask.long(), lowres_cond_img=x, lowres_noise_times=time
    )
    mean = torch.stack([text[0].mean(0), text[1, :4].mean(0)])
    torch.testing.assert_close(out, own(x, time, cond=mean, context=text, context_mask=mask))


def test_a_dropped_text_has_no_say_and_guidance_goes_beyond_it(text):
    model = trained(unet(**TEXT))
    x, time = torch.randn(2, 3, 3, 8, 8), torch.tensor([-1.5, 7.0])
    conditioned = model(x, time, text_embeds=text)
    null = model(x, time, text_embeds=text, cond_drop_prob=1.0)
    assert not torch.equal(conditioned, model(x, time, text_embeds=text.flip(0)))
    assert torch.equal(null, model(x, time, text_embeds=text.flip(0), cond_drop_prob=1.0))
    out = model.forward_with_cond_scale(x, time, text_embeds=text, cond_scale=3.0)
    torch.testing.assert_close(out, null + 3 * (conditioned - null))


def test_padding_is_not_read(text):
    model = trained(unet(**TEXT, max_text_len=5))
    x, time = torch.randn(2, 3, 3, 8, 8), torch.tensor([-1.5, 7.0])
    mask = torch.arange(7) < torch.tensor([[5], [2]])
    garbage = text.masked_fill(~mask[..., None], torch.nan)
    out = model(x, time, text_embeds=garbage, text_mask=mask)
    torch.testing.assert_close(out, model(x, time, text_embeds=text, text_mask=mask))
    none = model(x, time, text_embeds=text, text_mask=torch.zeros_like(mask))
    assert none.isfinite().all()


def test_time_can_be_ignored():
    model = trained(unet())
    x, time = torch.randn(2, 3, 3, 8, 8), torch.tensor([-1.5, 7.0])
    frames = [model(x[:, :, i : i + 1], time) for i in range(3)]
    torch.testing.assert_close(model(x, time, ignore_time=True), torch.cat(frames, dim=2))
    assert not torch.allclose(model(x, time), torch.cat(frames, dim=2))


@pytest.mark.parametrize("kind", KINDS)
def test_images_and_videos_train_and_sample(kind, text):
    kind, arguments = KINDS[kind]
    model = imagen(trained(unet()), kind=kind, **arguments)
    temporal = temporal_parameters(model.unets)
    model(torch.rand(2, 3, 8, 8), text_embeds=text).backward()
    assert all(p.grad is None for p in temporal)
    model(torch.rand(2, 3, 3, 8, 8), text_embeds=text).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in temporal)
    video = model.sample(text_embeds=text, video_frames=5, cond_scale=3.0, use_tqdm=False)
    assert video.shape == (2, 3, 5, 8, 8)
    assert video.isfinite().all()
    assert not torch.equal(video[:, :, 0], video[:, :, 1])
    images = model.sample(text_embeds=text, video_frames=1, use_tqdm=False)
    assert images.shape == (2, 3, 1, 8, 8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("downsampled", [1, (2, 1)])
def test_a_cascade_trains_and_samples(kind, downsampled, text):
    kind, arguments = KINDS[kind]
    unets = unet(self_cond=True), unet()
    model = imagen(*unets, kind=kind, temporal_downsample_factor=downsampled, **arguments)
    trained(model.unets)
    random.seed(0)
    for _ in range(2):  # half the steps make an earlier prediction
        for number in (1, 2):
            model(torch.rand(2, 3, 4, 16, 16), text_embeds=text, unet_number=number).backward()
    if downsampled == 1:
        model(torch.rand(2, 3, 16, 16), text_embeds=text, unet_number=2).backward()
    outs = model.sample(
        text_embeds=text, video_frames=4, return_all_unet_outputs=True, use_tqdm=False
    )
    assert outs[0].shape == (2, 3, 4 if downsampled == 1 else 2, 8, 8)
    assert outs[1].shape == (2, 3, 4, 16, 16)


@pytest.mark.parametrize("objective", ["noise", "x_start", "v"])
def test_an_unconditional_one_trains_and_samples(objective):
    model = imagen(unet(), condition_on_text=False, pred_objectives=objective)
    model(torch.rand(2, 3, 3, 8, 8)).backward()
    assert model.sample(batch_size=2, video_frames=3, use_tqdm=False).shape == (2, 3, 3, 8, 8)


def test_text_can_be_forced_off(text):
    model = imagen(unet(), unet())
    model.force_unconditional_()
    for number in (1, 2):
        model(torch.rand(2, 3, 3, 16, 16), unet_number=number).backward()


@pytest.mark.filterwarnings("ignore:.*GradScaler:FutureWarning")  # imagen-pytorch's own
def test_a_trainer_reloads_what_it_saved(text, tmp_path, monkeypatch):
    videos = torch.rand(4, 3, 3, 8, 8)
    texts = torch.randn(4, 7, 5)
    samples = []
    for index in range(2):
        monkeypatch.setattr(ImagenTrainer, "locked", False)  # one a process
        trainer = ImagenTrainer(imagen(unet()), lr=1e-2, ema_update_every=1, ema_beta=0.5)
        if index == 0:
            for _ in range(2):
                trainer(videos, text_embeds=texts, unet_number=1, max_batch_size=2)
                trainer.update(unet_number=1)
            trainer.save(tmp_path / "imagen.pt")
        else:
            trainer.load(tmp_path / "imagen.pt")
        torch.manual_seed(2)
        samples.append(trainer.sample(text_embeds=text, video_frames=3, use_tqdm=False))
    assert samples[0].shape == (2, 3, 3, 8, 8)
    assert torch.equal(*samples)
