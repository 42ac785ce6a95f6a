import math

import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.cascade.frames import noise_of_frames, resized
from make_a_video_pytorch.recipes import head, kept_frames
from tests.cascade.small import Told, noise_scheduler, super_resolution
from tests.zoo import ONE_STAGE, randomize

VIDEO = torch.linspace(-1, 1, 2 * 2 * 9 * 4 * 6).view(2, 2, 9, 4, 6)


def larger(x, timestep, *, cond_images, **others):
    """A model that gives what it is told of."""
    return cond_images[:, : x.shape[1]]


def going_on(x, timestep, *, cond_images):
    """A model that adds a tenth to a frame, on from the last one that it is told."""
    mask = cond_images[0, -1, :, 0, 0]
    known = int(mask.sum())
    last = cond_images[:, 2:4, known - 1] if known else cond_images[:, :2, 0]
    counts = torch.arange(x.shape[2]) - max(known - 1, 0)
    return last.unsqueeze(2) + counts[:, None, None] / 10


@pytest.mark.parametrize(("window", "overlap"), [(5, 2), (5, 0), (4, 3), (20, 1)])
def test_what_comes_before_is_resized(window, overlap):
    stage = super_resolution(larger, window=window, overlap=overlap)
    torch.testing.assert_close(stage(VIDEO), resized(VIDEO, (8, 12)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("overlap", [1, 2, 4])
def test_windows_agree(overlap):
    """Each goes on from the one before, whatever the pictures say."""
    video = super_resolution(going_on, overlap=overlap)(torch.randn(2, 2, 17, 4, 6))
    steps = video.diff(dim=2)
    torch.testing.assert_close(steps, torch.full_like(steps, 0.1))


def test_the_model_is_told_pictures_noise_and_kept_frames():
    model = Told(0.3)
    stage = super_resolution(
        model, noise_scheduler(), noise_level=40, most_noise_level=300, steps=1, alpha=1.0
    )
    video = stage(VIDEO, seed=7, fps=8)
    first, second, third = model.calls  # frames 0 to 4, 3 to 7, 4 to 8
    assert first.keys() == {"x", "timestep", "cond_images", "noise_level", "fps"}
    assert first["noise_level"].tolist() == [40, 40]
    for call, start, done in ((first, 0, 0), (second, 3, 2), (third, 4, 4)):
        pictures = call["cond_images"]
        assert pictures.shape == (2, 5, 5, 8, 12)
        low = resized(VIDEO[:, :, start : start + 5], (8, 12))
        noise = noise_of_frames(low.shape, start, 1.0, 7, "SuperResolution, before")
        noisy = noise_scheduler().add_noise(low, noise, torch.tensor([40, 40]))
        torch.testing.assert_close(pictures[:, :2], noisy)
        kept = torch.arange(5) < done
        wanted = kept_frames(video[:, :, start : start + 5], kept)
        torch.testing.assert_close(pictures[:, 2:], wanted)


def test_without_time_windows_change_nothing_and_equal_noise_gives_a_still_clip():
    """The paper's reason to share it: what is made up agrees (section 3.2)."""
    options = ONE_STAGE | dict(channels=2, cond_channels=2, temporal_compression=(False,))
    unet = randomize(SpaceTimeUnet(**options, condition_on_noise_level=True), 0.2).double()
    still = torch.randn(1, 2, 1, 4, 6).double().expand(1, 2, 9, 4, 6)

    def made(**settings):
        return super_resolution(
            unet, noise_scheduler(), overlap=0, enable_time=False, noise_level=30,
            most_noise_level=50, **settings,
        )  # fmt: skip

    shared = made(alpha=math.inf)(still, dtype=torch.float64)
    torch.testing.assert_close(shared, shared[:, :, :1].expand_as(shared))
    own = made(alpha=0)(still, dtype=torch.float64)
    assert own.diff(dim=2).abs().mean() > 0.1
    for window in (2, 9):
        again = made(alpha=0, window=window)(still, dtype=torch.float64)
        torch.testing.assert_close(again, own)


def test_it_learns_from_pictures_of_every_noise_and_from_every_number_of_kept_frames():
    clips = torch.randn(400, 2, 5, 8, 12)
    stage = super_resolution(Told(), noise_scheduler(), noise_level=2, most_noise_level=3)
    x, told = stage.example(clips, torch.Generator().manual_seed(0))
    assert torch.equal(x, clips)
    assert set(told["noise_level"].tolist()) == {0, 1, 2, 3}
    kept = told["cond_images"][:, -1, :, 0, 0].bool()
    assert set(kept.sum(1).tolist()) == {0, 2, 3, 4}
    torch.testing.assert_close(told["cond_images"][:, 2:], kept_frames(clips, kept))
    # a timestep of at most 3 has noise of 0.02 at most
    low = resized(resized(clips, (4, 6)), (8, 12))
    error = (told["cond_images"][:, :2] - low).square().mean((1, 2, 3, 4)).sqrt()
    by_level = [error[told["noise_level"] == level].mean().item() for level in range(4)]
    alphas = noise_scheduler().alphas_cumprod
    assert by_level == pytest.approx([(1 - alphas[n]).sqrt().item() for n in range(4)], rel=0.05)


def test_images_have_no_kept_frames():
    stage = super_resolution(Told())
    x, told = stage.example(torch.randn(3, 2, 8, 12))
    assert x.shape == (3, 2, 8, 12)
    assert told.keys() == {"cond_images"}
    assert told["cond_images"].shape == (3, 5, 8, 12)
    assert not told["cond_images"][:, 2:].any()
    still = super_resolution(Told(), overlap=0, enable_time=False)
    assert still.example(torch.randn(3, 2, 8, 12)).conditions["enable_time"] is False


def test_kept_frames_are_what_head_says():
    model = Told()
    super_resolution(model, steps=1)(VIDEO)
    mask = model.calls[1]["cond_images"][0, -1, :, 0, 0].bool()
    assert torch.equal(mask, head(5, 2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(noise_level=-1), r"`noise_level` \(=-1\) must be at least 0"),
        (
            dict(most_noise_level=1000),
            r"`most_noise_level` \(=1000\) must be below 1000, the number",
        ),
        (dict(noise_level=9, most_noise_level=8), r"`noise_level` \(=9\) must be at most `most_n"),
        (dict(enable_time=False), r"`overlap` \(=2\) must be 0 without `enable_time`"),
        (dict(size_before=(4, 6, 1)), r"`size_before` \(=\(4, 6, 1\)\) must be height and width"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        super_resolution(Told(), **wrong)
    with pytest.raises(ValueError, match=r"must be \(b c f h w\) with \(h w\) = \(4, 6\)"):
        super_resolution(Told())(torch.zeros(1, 2, 5, 8, 12))


@pytest.mark.parametrize("shape", [(2, 3, 5, 8, 12), (2, 3, 8, 12)], ids=["clips", "images"])
def test_of_real_clips_it_would_be_given_smaller_ones(shape):
    stage = super_resolution(Told())
    flat = torch.full(shape, 0.25)
    torch.testing.assert_close(stage.before(flat), torch.full((*shape[:-2], 4, 6), 0.25))
    clips = torch.randn(shape)
    torch.testing.assert_close(stage.before(clips), stage.before(stage.before(clips)))
