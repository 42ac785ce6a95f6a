import pytest
import torch

from make_a_video_pytorch.recipes import every, kept_frames
from tests.cascade.small import Told, interpolation


def going_on(x, timestep, *, cond_images):
    """A model that goes on from the frames that it is told, as straight as they do."""
    values, mask = cond_images[:, :-1], cond_images[:, -1:, :, :1, :1]
    out = torch.empty_like(x)
    known = mask[0, 0, :, 0, 0].nonzero().flatten().tolist()
    assert len(known) > 1
    for place in range(x.shape[2]):
        first, second = sorted(known, key=lambda k: abs(k - place))[:2]
        share = (place - first) / (second - first)
        out[:, :, place] = torch.lerp(values[:, :, first], values[:, :, second], share)
    return out


@pytest.mark.parametrize(("window", "overlap"), [(7, 2), (7, 0), (10, 4), (40, 3), (5, 1)])
def test_frames_are_kept_and_windows_agree(window, overlap):
    keys = torch.linspace(-1, 1, 8)[:, None, None] * torch.rand(2, 2, 1, 4, 6, dtype=torch.float64)
    stage = interpolation(going_on, window=window, overlap=overlap)
    video = stage(keys, dtype=torch.float64)
    assert video.shape == (2, 2, 22, 4, 6)
    assert torch.equal(video[:, :, ::3], keys)
    steps = video.diff(dim=2)
    torch.testing.assert_close(steps, steps[:, :, :1].expand_as(steps))


def test_the_paper_makes_76_frames_of_16():
    stage = interpolation(Told(), factor=5, window=76, overlap=0)
    assert stage.frames_of(16) == 76
    assert stage.faster == 5
    assert stage.frames_of(1) == 1


def test_a_later_window_is_told_the_frames_of_the_one_before():
    model = Told(0.3)
    stage = interpolation(model, steps=1)  # windows of 7 with 2 in common
    keys = torch.linspace(-1, 1, 5)[:, None, None].expand(1, 2, 5, 4, 6)
    video = stage(keys)
    told = [call["cond_images"] for call in model.calls]
    kept = [pictures[0, -1, :, 0, 0].bool().tolist() for pictures in told]
    first = [True, False, False] * 2 + [True]  # frames 0 to 6
    second = [True, True, False, False, True, False, False]  # 5 to 11, of which 6 and 9 are keys
    second[:2] = True, True
    assert kept[0] == first
    assert kept[1] == [True, True, False, False, True, False, False]
    torch.testing.assert_close(told[1][0, :2, 0], torch.full((2, 4, 6), 0.3))  # made before
    torch.testing.assert_close(told[1][:, :2, 1], keys[:, :, 2])
    torch.testing.assert_close(told[1][:, :2, 4], keys[:, :, 3])
    assert torch.equal(video[:, :, ::3], keys)  # whatever the model makes of them
    others = torch.arange(13) % 3 != 0
    torch.testing.assert_close(video[:, :, others], torch.full((1, 2, 8, 4, 6), 0.3))


def test_it_learns_from_the_masks_that_it_meets():
    clips = torch.randn(900, 2, 7, 4, 6)
    stage = interpolation(Told())
    x, told = stage.example(clips, torch.Generator().manual_seed(0))
    assert torch.equal(x, clips)
    kept = told["cond_images"][:, -1, :, 0, 0].bool()
    torch.testing.assert_close(told["cond_images"], kept_frames(clips, kept))
    masks = {tuple(row) for row in kept.tolist()}
    assert tuple(every(7, 3).tolist()) in masks  # of the first window
    met = Told()
    interpolation(met)(torch.zeros(1, 2, 9, 4, 6))
    for call in met.calls:
        assert tuple(call["cond_images"][0, -1, :, 0, 0].bool().tolist()) in masks


def test_wrong_calls_are_refused():
    with pytest.raises(ValueError, match=r"`factor` \(=1\) must be at least 2"):
        interpolation(Told(), factor=1)
    for wrong in (torch.zeros(1, 2, 5, 8, 6), torch.zeros(1, 2, 4, 6), None):
        with pytest.raises(ValueError, match=r"`video` \(shape .*\) must be \(b c f h w\) with"):
            interpolation(Told())(wrong)
    with pytest.raises(ValueError, match=r"`clips` \(shape \(1, 2, 4, 6\)\) must be \(b c f h w\)"):
        interpolation(Told()).example(torch.zeros(1, 2, 4, 6))


def test_of_real_clips_it_would_be_given_every_third_frame():
    clips = torch.randn(2, 3, 7, 8, 12)
    stage = interpolation(Told(), factor=3)
    before = stage.before(clips)
    assert before.shape == (2, 3, 3, 4, 6)
    alone = stage.before(clips[:, :, 3:4])
    torch.testing.assert_close(before[:, :, 1:2], alone)
    assert stage.frames_of(before.shape[2]) == 7
    same = torch.randn(2, 3, 7, 4, 6)
    assert torch.equal(stage.before(same), same[:, :, ::3])
    with pytest.raises(
        ValueError, match=r"`clips` \(shape \(2, 3, 8, 12\)\) must be \(b c f h w\)"
    ):
        stage.before(torch.randn(2, 3, 8, 12))
