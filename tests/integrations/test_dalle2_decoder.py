import random

import pytest
import torch

from make_a_video_pytorch import spatial_parameters, temporal_parameters
from tests.integrations.decoders import IMAGE, TEXT, SpaceTimeUnetForDalle2, decoder, unet
from tests.integrations.small import UNET, trained

from dalle2_pytorch import CLIP, Decoder, DecoderTrainer, Unet, VQGanVAE  # isort: skip


def loss_and_sample(model, data, seed=3, **conditions):
    """What a decoder gives for a seed, in training and in sampling."""
    for draw in (torch.manual_seed, random.seed):
        draw(seed)
    loss = model(data, **conditions)
    frames = {"video_frames": data.shape[2]} if data.ndim == 5 else {}
    return loss, model.sample(**conditions, **frames)


@pytest.mark.parametrize("learned_variance", [True, False])
def test_images_go_the_way_of_the_decoder_to_the_number(learned_variance, image_embed):
    ours = decoder(trained(unet(**IMAGE)), learned_variance=learned_variance)
    theirs = decoder(ours.unets[0], kind=Decoder, learned_variance=learned_variance)
    images = torch.rand(2, 3, 8, 8)
    results = [loss_and_sample(m, images, image_embed=image_embed) for m in (ours, theirs)]
    for out, expected in zip(*results, strict=True):
        assert torch.equal(out, expected)


def test_a_video_of_one_frame_is_an_image(image_embed):
    model = decoder(trained(unet(**IMAGE)))
    images = torch.rand(2, 3, 8, 8)
    loss, sample = loss_and_sample(model, images, image_embed=image_embed)
    clip_loss, clip = loss_and_sample(model, images[:, :, None], image_embed=image_embed)
    assert torch.allclose(clip_loss, loss)
    assert torch.allclose(clip[:, :, 0], sample, atol=1e-6)


OPTIONS = {
    "learned variance": {},
    "fixed variance": {"learned_variance": False},
    "ddim": {"sample_timesteps": 2},
    "ddim, not deterministic": {"sample_timesteps": 2, "ddim_sampling_eta": 1.0},
    "x_start": {"predict_x_start": True},
    "v": {"predict_v": True},
    "dynamic thresholding": {"use_dynamic_thres": True, "learned_variance": False},
    "unconditional": {"unconditional": True},
}
CASCADES = {
    "blur": {},
    "noise": {"use_blur_for_lowres_cond": False, "use_noise_for_lowres_cond": True},
    "both": {"use_noise_for_lowres_cond": True, "blur_sigma": (0.4, 0.8)},
    "crops": {"random_crop_sizes": (None, 12)},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_videos_train_and_sample(option, image_embed):
    arguments = OPTIONS[option]
    model = decoder(trained(unet(**IMAGE)), **arguments)
    conditions = {} if "unconditional" in arguments else {"image_embed": image_embed}
    sizes = {"batch_size": 2} if "unconditional" in arguments else {"cond_scale": 2.0}
    loss = model(torch.rand(2, 3, 3, 8, 8), **conditions)
    loss.backward()
    for parameter in temporal_parameters(model):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    sample = model.sample(video_frames=5, **conditions, **sizes)
    assert sample.shape == (2, 3, 5, 8, 8)
    assert sample.isfinite().all()
    assert not torch.equal(sample[:, :, 0], sample[:, :, 1])


@pytest.mark.parametrize("settings", [TEXT, {"self_cond": True}, {**TEXT, "self_cond": True}])
def test_a_text_and_an_earlier_prediction_join(settings, image_embed, text_encodings):
    model = decoder(unet(**IMAGE, **settings))
    trained(model.unets)
    conditions = {"image_embed": image_embed}
    if settings.keys() & TEXT:
        conditions["text_encodings"] = text_encodings
    for _ in range(3):  # half the steps make an earlier prediction
        model(torch.rand(2, 3, 3, 8, 8), **conditions).backward()
    assert model.sample(video_frames=3, cond_scale=2.0, **conditions).shape == (2, 3, 3, 8, 8)


@pytest.mark.parametrize("name", CASCADES)
def test_a_cascade_trains_and_samples(name, image_embed):
    model = decoder(trained(unet(**IMAGE)), trained(unet()), image_sizes=(8, 16), **CASCADES[name])
    videos = torch.rand(2, 3, 3, 16, 16)
    for number in (1, 2):
        model(videos, image_embed=image_embed, unet_number=number).backward()
        assert all(p.grad is not None for p in temporal_parameters(model.unets[number - 1]))
    sample = model.sample(image_embed=image_embed, video_frames=3)
    assert sample.shape == (2, 3, 3, 16, 16)
    first = model.sample(image_embed=image_embed, video_frames=3, stop_at_unet_number=1)
    assert first.shape == (2, 3, 3, 8, 8)
    later = model.sample(first, image_embed=image_embed, start_at_unet_number=2)
    assert later.shape == (2, 3, 3, 16, 16)
    images = model.sample(image_embed=image_embed)
    assert images.shape == (2, 3, 16, 16)


def seen_by(unet):
    """The calls of the U-Net in an adapter, as (x, arguments)."""
    calls = []
    unet.unet.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    return calls


def test_frames_share_their_crop_and_their_noise_level(image_embed):
    crops = {"random_crop_sizes": (None, 8), "blur_prob": 1.0, "learned_variance": False}
    model = decoder(unet(**IMAGE), unet(), image_sizes=(8, 24), **crops)
    calls = seen_by(model.unets[1])
    still = torch.rand(2, 3, 1, 24, 24).expand(-1, -1, 5, -1, -1)
    _, lowres = model(still, image_embed=image_embed, unet_number=2, return_lowres_cond_image=True)
    assert lowres.shape == (2, 3, 5, 8, 8)
    ((x, time, _), given) = calls[0]
    assert x.shape == (2, 3, 5, 8, 8)
    assert time.shape == (2,)
    pictures = given["cond_images"]
    assert torch.equal(pictures, pictures[:, :, :1].expand_as(pictures))
    assert not torch.equal(x[:, :, 0], x[:, :, 1])  # each frame has noise of its own
    assert torch.equal(model.normalize_img(lowres), pictures)


def test_frames_are_resized_one_by_one(image_embed):
    model = decoder(unet(**IMAGE), timesteps=1000)
    calls = seen_by(model.unets[0])
    videos = torch.rand(2, 3, 5, 16, 16)
    torch.manual_seed(0)
    model(videos, image_embed=image_embed)
    noisy = calls[0][0][0]
    assert noisy.shape == (2, 3, 5, 8, 8)
    torch.manual_seed(0)
    model(videos[..., ::2, ::2], image_embed=image_embed)
    assert torch.equal(calls[1][0][0], noisy)


def test_a_clip_embeds_a_video_by_its_first_frame():
    clip = CLIP(
        dim_text=8,
        dim_image=8,
        dim_latent=6,
        num_text_tokens=16,
        text_enc_depth=1,
        text_seq_len=4,
        text_heads=2,
        visual_enc_depth=1,
        visual_heads=2,
        visual_image_size=8,
        visual_patch_size=4,
    )
    model = decoder(unet(**IMAGE), clip=clip, image_cond_drop_prob=0.0)
    calls = seen_by(model.unets[0])
    video = torch.rand(2, 3, 5, 8, 8)
    assert model(video).isfinite()
    _, given = calls[0]
    expected = model.clip.embed_image(video[:, :, 0]).image_embed
    assert torch.equal(given["cond"], expected)


def test_what_cannot_be_done_with_videos_is_named(image_embed):
    model = decoder(unet(**IMAGE))
    with pytest.raises(NotImplementedError, match="`inpaint_image` must be left out for videos"):
        model.sample(
            image_embed=image_embed,
            video_frames=3,
            inpaint_image=torch.rand(2, 3, 8, 8),
            inpaint_mask=torch.ones(2, 8, 8, dtype=torch.bool),
        )
    vae = VQGanVAE(dim=16, image_size=16, layers=1, vq_codebook_size=8, use_vgg_and_gan=False)
    model = decoder(unet(**IMAGE, channels=vae.encoded_dim), vae=vae, image_size=16)
    images = torch.rand(2, 3, 16, 16)
    assert model(images, image_embed=image_embed).isfinite()
    with pytest.raises(NotImplementedError, match="`vae` must be left out for videos"):
        model(images[:, :, None].expand(-1, -1, 3, -1, -1), image_embed=image_embed)
    with pytest.raises(NotImplementedError, match="`vae` must be left out for videos"):
        model.sample(image_embed=image_embed, video_frames=3)


def test_wrong_videos_are_named(image_embed):
    with pytest.raises(TypeError, match=r"`unet` \(a Unet\) must be a SpaceTimeUnetForDalle2"):
        decoder(Unet(8, image_embed_dim=6))
    compressing = UNET | {"temporal_compression": (False, True)}
    model = decoder(SpaceTimeUnetForDalle2(**compressing, **IMAGE))
    with pytest.raises(ValueError, match=r"`frames` \(=3\) must be divisible by 2"):
        model(torch.rand(2, 3, 3, 8, 8), image_embed=image_embed)
    with pytest.raises(ValueError, match=r"`image` \(shape \(2, 4, 2, 8, 8\)\) must have 3 chan"):
        model(torch.rand(2, 4, 2, 8, 8), image_embed=image_embed)
    with pytest.raises(ValueError, match=r"`image` .* must be a video .* of `video_frames` = 4"):
        model.sample(torch.rand(2, 3, 8, 8), image_embed=image_embed, video_frames=4)
    with pytest.raises(ValueError, match=r"`video_frames` \(=0\) must be at least 1"):
        model.sample(image_embed=image_embed, video_frames=0)


# Training


def test_images_leave_temporal_parameters_alone_and_videos_move_them(image_embed):
    trainer = DecoderTrainer(decoder(unet(**IMAGE)), lr=1e-2, use_ema=False)
    model = trainer.decoder.unets[0]
    temporal = temporal_parameters(model)
    before = [p.detach().clone() for p in temporal]
    spatial = model.unet.conv_in.spatial_conv.weight.detach().clone()
    trainer(torch.rand(2, 3, 8, 8), image_embed=image_embed)
    trainer.update()
    assert all(map(torch.equal, temporal, before))
    assert not torch.equal(model.unet.conv_in.spatial_conv.weight, spatial)
    for _ in range(2):  # what a zero hides moves in the second step
        trainer(torch.rand(2, 3, 3, 8, 8), image_embed=image_embed)
        trainer.update()
    assert not any(map(torch.equal, temporal, before))


def test_training_on_two_clips_lowers_their_loss(image_embed):
    model = decoder(unet(**IMAGE), timesteps=100, image_cond_drop_prob=0.0)
    clips = torch.rand(2, 3, 3, 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def loss():
        return model(clips, image_embed=image_embed)

    def measured():
        torch.manual_seed(1)
        with torch.no_grad():
            return torch.stack([loss() for _ in range(20)]).mean()

    before = measured()
    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert measured() < 0.7 * before


def test_a_trainer_reloads_what_it_saved(image_embed, tmp_path):
    videos = torch.rand(4, 3, 3, 8, 8)
    embeds = torch.randn(4, 6)

    def trainer():
        return DecoderTrainer(decoder(unet(**IMAGE)), lr=1e-2, ema_update_every=1, ema_beta=0.5)

    first = trainer()
    for _ in range(2):
        first(videos, image_embed=embeds, max_batch_size=2)
        first.update()
    first.save(tmp_path / "decoder.pt")
    second = trainer()
    second.load(tmp_path / "decoder.pt")
    samples = []
    for one in (first, second):
        torch.manual_seed(2)
        samples.append(one.sample(image_embed=image_embed, video_frames=3, max_batch_size=1))
    assert samples[0].shape == (2, 3, 3, 8, 8)
    assert torch.equal(*samples)
    torch.manual_seed(2)
    raw = first.sample(image_embed=image_embed, video_frames=3, use_non_ema=True)
    assert not torch.equal(raw, samples[0])
    for one in (first, second):  # the optimizer goes on alike
        torch.manual_seed(3)
        one(videos, image_embed=embeds)
        one.update()
    assert all(map(torch.equal, first.decoder.parameters(), second.decoder.parameters()))


def test_accumulated_gradients_are_those_of_the_whole_batch(image_embed):
    model = decoder(unet(**IMAGE), learned_variance=False, timesteps=1, image_cond_drop_prob=0.0)
    trainer = DecoderTrainer(model, use_ema=False)
    videos = torch.rand(2, 3, 3, 8, 8)
    noise = torch.randn(2, 3, 3, 8, 8)
    draws = torch.randn_like
    try:
        torch.randn_like = lambda x: noise[: len(x)] if len(x) == 2 else noise[next(turns)][None]
        trainer(videos, image_embed=image_embed)
        whole = [p.grad.clone() for p in spatial_parameters(model) if p.grad is not None]
        model.zero_grad()
        turns = iter(range(2))
        trainer(videos, image_embed=image_embed, max_batch_size=1)
    finally:
        torch.randn_like = draws
    pieces = [p.grad for p in spatial_parameters(model) if p.grad is not None]
    for piece, expected in zip(pieces, whole, strict=True):
        torch.testing.assert_close(piece, expected, rtol=1e-4, atol=1e-4)
