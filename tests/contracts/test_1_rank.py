"""Contract 1: images and videos go in and out, and nothing else does."""

import inspect

import pytest
import torch

from make_a_video_pytorch import Upsample
from tests.zoo import EVERY, each, randomize


@each(EVERY)
def test_an_image_gives_an_image_and_a_video_a_video(entry):
    module, video = randomize(entry.build()), entry.video()
    assert module(video, **entry.extra()).ndim == 5
    assert module(video[:, :, 0], **entry.extra()).ndim == 4


@each(EVERY)
def test_without_time_a_video_is_its_frames(entry):
    module, video = randomize(entry.build()), entry.video()
    out = module(video, enable_time=False, **entry.extra())
    frames = [module(frame, **entry.extra()) for frame in video.unbind(2)]
    torch.testing.assert_close(out, torch.stack(frames, 2), rtol=1e-4, atol=1e-5)


@each(EVERY)
def test_a_video_of_one_frame_is_an_image(entry):
    module, image = randomize(entry.build()), entry.video()[:, :, 0]
    assert torch.equal(
        module(image[:, :, None], **entry.extra()), module(image, **entry.extra())[:, :, None]
    )


@each(EVERY)
def test_the_batch_may_be_one_or_empty(entry):
    module, video = randomize(entry.build()), entry.video()
    both, extra = module(video, **entry.extra()), entry.extra()
    one = {name: value[:1] for name, value in extra.items()}
    torch.testing.assert_close(module(video[:1], **one), both[:1], rtol=1e-4, atol=1e-5)
    none = {name: value[:0] for name, value in extra.items()}
    assert module(video[:0], **none).shape == (0, *both.shape[1:])


@each(EVERY)
@pytest.mark.parametrize("ndim", [2, 3, 6])
def test_other_ranks_are_refused(entry, ndim):
    with pytest.raises(
        ValueError, match=r"`x` \(shape .*\) must be an image \(b c h w\) or a video"
    ):
        entry.build()(torch.randn([entry.shape[1]] * ndim), **entry.extra())


@each(EVERY)
@pytest.mark.parametrize("axis", [2, 3, 4])
def test_no_frames_and_no_pixels_are_refused(entry, axis):
    with pytest.raises(ValueError, match=r"`x` \(shape .*\) must have frames and pixels"):
        entry.build()(entry.video().narrow(axis, 0, 0), **entry.extra())


def test_what_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match=r"`x` \(a list\) must be a tensor"):
        EVERY["conv"].build()([[0.0]])


@each(EVERY)
def test_other_channels_are_refused(entry):
    b, c, f, h, w = entry.shape
    with pytest.raises(
        ValueError, match=rf"`x` \(shape \({b}, {f}, .*must have {c} channels in dim"
    ):
        entry.build()(torch.randn(b, f, c + 1 if c == f else c, h, w), **entry.extra())


@each(EVERY)
def test_of_a_mixed_batch_each_sample_goes_its_own_way(entry):
    """Where frames are halved or doubled a clip lies in the first half of them."""
    module = randomize(entry.build(), 0.2)
    video, extra = entry.video(), entry.extra()
    if isinstance(module, Upsample):
        video = torch.cat((video, torch.randn_like(video)), dim=2)  # what lies behind is not seen
    out = module(video, **extra, enable_time=torch.tensor([True, False]))
    images = module(video[1:], **{k: v[1:] for k, v in extra.items()}, enable_time=False)
    torch.testing.assert_close(out[1:], images, rtol=1e-4, atol=1e-5)
    if isinstance(module, Upsample) and module.up_time is not None:
        video = video[:, :, : video.shape[2] // 2]
    clips = module(video[:1], **{k: v[:1] for k, v in extra.items()})
    torch.testing.assert_close(out[:1, :, : clips.shape[2]], clips, rtol=1e-4, atol=1e-5)
    assert not out[:1, :, clips.shape[2] :].any()


@each(
    {
        name: entry
        for name, entry in EVERY.items()
        if "frame_mask" in inspect.signature(entry.build().forward).parameters
    }
)
def test_padding_behind_a_clip_changes_nothing(entry):
    module = randomize(entry.build(), 0.2)
    clip, extra = entry.video(), entry.extra()
    multiple = getattr(module, "frame_multiple", 1)
    garbage = torch.full_like(clip[:, :, :1], torch.nan).repeat(1, 1, multiple, 1, 1)
    padded = torch.cat((clip, garbage), dim=2)
    frames = clip.shape[2]
    mask = (torch.arange(padded.shape[2]) < frames).expand(2, -1)
    out = module(padded, **extra, frame_mask=mask)[:, :, :frames]
    torch.testing.assert_close(out, module(clip, **extra), rtol=1e-4, atol=1e-5)
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)
