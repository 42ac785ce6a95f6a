"""Frames that a pipeline keeps, and what a VAE makes of frames."""

from types import SimpleNamespace

import pytest
import torch

from tests.integrations.small import close, missing, waves

pytest.importorskip("diffusers", reason=missing("diffusers"))

from diffusers.video_processor import VideoProcessor

from make_a_video_pytorch.integrations.diffusers_frames import (
    Kept,
    decoded,
    encoded,
    frames_to_keep,
    put_back,
)

SHAPE = (2, 3, 4, 4, 6)


class Halving:
    """A VAE that halves and shifts, frame by frame."""

    dtype = torch.float32
    config = SimpleNamespace(scaling_factor=4.0, shift_factor=0.5)

    def encode(self, pictures):
        assert pictures.ndim == 4
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: pictures / 2))

    def decode(self, latents):
        return SimpleNamespace(sample=latents * 2)


def pipeline(vae=None):
    return SimpleNamespace(
        vae=vae, vae_scale_factor=1, video_processor=VideoProcessor(vae_scale_factor=1),
        unet=SimpleNamespace(dtype=torch.float32), _execution_device=torch.device("cpu"),
    )  # fmt: skip


def test_latents_are_shifted_and_scaled_and_come_back():
    videos = waves(*SHAPE)
    latents = encoded(pipeline(Halving()), videos)
    close(latents, (videos / 2 - 0.5) * 4)
    close(decoded(pipeline(Halving()), latents), videos)
    assert encoded(pipeline(), videos) is videos
    assert decoded(pipeline(), videos) is videos


def test_one_picture_is_the_first_frame_of_every_video():
    picture = (waves(1, 3, 4, 6) + 1) / 2
    keep = frames_to_keep(pipeline(), picture, None, None, SHAPE)
    assert keep.kept.tolist() == [[True, False, False, False]] * 2
    close(keep.clean[:, :, 0], (picture * 2 - 1).expand(2, -1, -1, -1))
    assert frames_to_keep(pipeline(), None, None, None, SHAPE) is None


def test_kept_frames_are_put_back_and_no_others():
    clean, latents = waves(*SHAPE), waves(*SHAPE) + 3
    kept = torch.tensor([[True, False, False, True], [False, False, True, False]])
    out = put_back(Kept(clean, kept), latents)
    for sample in range(2):
        assert torch.equal(out[sample][:, kept[sample]], clean[sample][:, kept[sample]])
        assert torch.equal(out[sample][:, ~kept[sample]], latents[sample][:, ~kept[sample]])
