"""Latents are those of the autoencoder, made once, and not those of another."""

import pytest
import torch
from buckets import Shape
from collection import Clips, Pictures
from errors import DataError
from latents import Autoencoder, read_latents

from tests.examples.media import number, write_numbers, write_picture
from tests.examples.models import autoencoder


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
    torch.testing.assert_close(few, whole[[2, 17]].transpose(0, 1), rtol=1e-3, atol=1e-3)
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


def test_a_pipeline_holds_one(tmp_path):
    autoencoder(tmp_path / "pipeline" / "vae")
    vae = Autoencoder(tmp_path / "pipeline", tmp_path / "cache")
    assert vae.shift == 0


def test_what_is_no_autoencoder_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"no such folder: .*none"):
        Autoencoder(tmp_path / "none", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no AutoencoderKL of diffusers") as raised:
        Autoencoder(tmp_path / "empty", tmp_path)
    assert len(str(raised.value).splitlines()) == 1
