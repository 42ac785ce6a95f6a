"""Latents are those of the autoencoder, made once, and not those of another."""

import pickle

import latents
import pytest
import torch
from buckets import Shape
from collection import Clips, Pictures
from errors import DataError
from latents import Autoencoder, read_latents

from tests.examples.media import number, write_numbers, write_picture
from tests.examples.models import autoencoder, text_encoder, tiny_autoencoder


@pytest.fixture
def folder(tmp_path):
    return autoencoder(tmp_path / "vae", shift=0.25)


def test_latents_are_scaled_as_the_settings_say(folder, tmp_path):
    vae = Autoencoder(folder, tmp_path / "cache")
    assert (vae.channels, vae.factor) == (3, 2)
    pixels = torch.rand(19, 3, 8, 12) * 2 - 1
    latents = vae.encode(pixels)
    assert latents.shape == (19, 3, 4, 6)
    own = vae.model.encode(pixels).latent_dist.mean
    torch.testing.assert_close(latents, (own - 0.25) * 0.5)
    videos = latents[:18].view(2, 9, 3, 4, 6).transpose(1, 2)
    decoded = vae.decode(videos)
    assert decoded.shape == (2, 3, 9, 8, 12)
    expected = vae.model.decode(own[9:18]).sample.clamp(-1, 1).transpose(0, 1)
    torch.testing.assert_close(decoded[1], expected, rtol=1e-4, atol=1e-5)


def test_what_is_kept_is_not_made_again_and_read_in_part(folder, tmp_path):
    vae, made = Autoencoder(folder, tmp_path / "cache"), []

    def parts():
        made.append(1)
        torch.manual_seed(0)
        yield from (torch.rand(16, 3, 8, 12), torch.rand(3, 3, 8, 12))

    path = vae.keep(["a", 1], parts())
    assert vae.keep(["a", 1], parts()) == path
    assert made == [1]
    torch.manual_seed(0)
    whole = vae.encode(torch.cat([torch.rand(16, 3, 8, 12), torch.rand(3, 3, 8, 12)]))
    few = read_latents(path, [2, 17])
    assert few.shape == (3, 2, 4, 6)
    assert torch.equal(few, whole[[2, 17]].transpose(0, 1).half().float())
    with pytest.raises(DataError, match="cannot be read as latents: "):
        read_latents(path, [19])
    # neither of another key nor by another model
    assert vae.keep(["a", 2], parts()) != path
    autoencoder(folder, seed=1, shift=0.25)
    assert Autoencoder(folder, tmp_path / "cache").keep(["a", 1], parts()) != path
    assert len(made) == 3


def test_a_collection_gives_the_latents_of_its_clips(folder, tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    write_numbers(data / "a.mp4", 20)
    write_picture(tmp_path / "one.png", number(3))
    vae = Autoencoder(folder, tmp_path / "cache")
    pixels, latent = Clips(data, [Shape(4, 16, 16)]), Clips(data, [Shape(4, 16, 16)])
    latent.into_latents(vae)
    clips = pixels.of_step(3, 2, 4, 0, 0.5).videos
    expected = vae.encode(clips.transpose(1, 2).flatten(0, 1)).view(2, 4, 3, 8, 8).transpose(1, 2)
    found = latent.of_step(3, 2, 4, 0, 0.5)
    torch.testing.assert_close(found.videos, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(found.fps, pixels.of_step(3, 2, 4, 0, 0.5).fps)
    pictures = Pictures(tmp_path / "one.png", [Shape(4, 16, 16)])
    pictures.into_latents(vae)
    assert pictures.of_step(0, 2, 1, 0, 0.0).videos.shape == (2, 3, 1, 8, 8)

    calls = []
    monkeypatch.setattr(vae, "encode", lambda part: calls.append(len(part)) or part[:, :, ::2, ::2])
    Clips(data, [Shape(4, 16, 16)]).into_latents(vae)
    assert calls == []
    write_numbers(data / "a.mp4", 22)  # a changed file, and another size
    Clips(data, [Shape(4, 16, 16)]).into_latents(vae)
    Clips(data, [Shape(4, 8, 8)]).into_latents(vae)
    assert calls == [16, 6] * 2


def test_an_autoencoder_without_a_distribution_serves_too(tmp_path):
    vae = Autoencoder(tiny_autoencoder(tmp_path / "tiny"), tmp_path / "cache")
    assert (vae.channels, vae.factor, vae.scale, vae.shift) == (3, 2, 0.5, 0)
    pixels = torch.rand(2, 3, 8, 12) * 2 - 1
    encoded = vae.encode(pixels)
    own = vae.model.encode(pixels).latents
    torch.testing.assert_close(encoded, own * 0.5)
    decoded = vae.decode(encoded.unsqueeze(2))
    expected = vae.model.decode(own).sample.clamp(-1, 1)
    torch.testing.assert_close(decoded.squeeze(2), expected, rtol=1e-4, atol=1e-5)


def test_it_goes_to_other_processes_without_a_model(folder, tmp_path, monkeypatch):
    vae, pixels = Autoencoder(folder, tmp_path / "cache"), torch.rand(2, 3, 8, 12)
    path = vae.keep("a", [pixels])
    sent = pickle.dumps(vae)
    assert len(sent) < 2000
    there, loads = pickle.loads(sent), []
    load = latents.AutoencoderKL.from_pretrained
    monkeypatch.setattr(
        latents.AutoencoderKL,
        "from_pretrained",
        lambda *args, **kwargs: loads.append(1) or load(*args, **kwargs),
    )
    assert there.keep("a", [pixels]) == path
    assert loads == []
    assert torch.equal(there.encode(pixels), vae.encode(pixels))
    assert torch.equal(there.encode(pixels), vae.encode(pixels))
    assert loads == [1]


def test_what_is_half_written_is_never_read(folder, tmp_path):
    vae, pixels = Autoencoder(folder, tmp_path / "cache"), torch.rand(2, 3, 8, 12)
    path = vae.path("a")

    def parts():
        yield pixels[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vae.keep("a", parts())
    with pytest.raises(DataError, match="cannot be read as latents: "):
        read_latents(path, [0])
    vae.keep("a", [pixels])
    whole = read_latents(path, [0, 1])
    assert torch.equal(whole, vae.encode(pixels).transpose(0, 1).half().float())
    path.write_bytes(path.read_bytes()[:50])  # as a full disk leaves a copy of a cache
    with pytest.raises(DataError, match="cannot be read as latents: ") as raised:
        read_latents(path, [0])
    assert len(str(raised.value).splitlines()) == 1


def test_a_changed_setting_is_another_autoencoder(folder, tmp_path):
    first = Autoencoder(folder, tmp_path / "cache").path("a")
    settings = (folder / "config.json").read_text()
    (folder / "config.json").write_text(settings.replace("0.25", "0.125"))
    assert Autoencoder(folder, tmp_path / "cache").path("a") != first
    (folder / "config.json").write_text(settings)
    assert Autoencoder(folder, tmp_path / "cache").path("a") == first


def test_a_pipeline_holds_one(tmp_path):
    autoencoder(tmp_path / "pipeline" / "vae")
    vae = Autoencoder(tmp_path / "pipeline", tmp_path / "cache")
    assert vae.shift == 0


def test_what_is_no_autoencoder_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"no such folder: .*none"):
        Autoencoder(tmp_path / "none", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no AutoencoderKL or Auto") as raised:
        Autoencoder(tmp_path / "empty", tmp_path)
    assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(DataError, match=r"text holds no AutoencoderKL or Auto"):
        Autoencoder(text_encoder(tmp_path / "text"), tmp_path)
    folder = autoencoder(tmp_path / "vae")
    settings = (folder / "config.json").read_text()
    (folder / "config.json").write_text(settings.replace('"AutoencoderKL"', '"AutoencoderKLWan"'))
    with pytest.raises(DataError, match=r"vae holds no .* of diffusers: it is AutoencoderKLWan"):
        Autoencoder(folder, tmp_path)
    (folder / "config.json").write_text(settings)
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(DataError, match=r"vae holds no .* of diffusers: ") as raised:
        Autoencoder(folder, tmp_path)
    assert len(str(raised.value).splitlines()) == 1
