"""Contract 1: images and videos go in and out, and nothing else does."""

import pytest
import torch

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
