"""What is an image, what is a video, and which samples and frames temporal parts run on."""

import pytest
import torch

from make_a_video_pytorch.ops.decision import Temporal, as_bools, as_video, decide, hide


def test_temporal_parts_run_on_a_clip_unless_decided_otherwise():
    clip, image = torch.zeros(1, 2, 3, 4, 5), torch.zeros(1, 2, 4, 5)
    assert as_video(clip, 2)[1] == Temporal(True)
    assert as_video(clip, 2, False)[1] == Temporal(False)
    assert as_video(image, 2)[1] == Temporal(False)
    assert as_video(clip[:, :, :1], 2)[1] == Temporal(False)
    assert as_video(clip[:, :, :1], 2, Temporal(True))[1] == Temporal(True)
    assert as_video(clip, 2, Temporal(False))[1] == Temporal(False)


def test_each_sample_and_each_clip_is_decided_for_itself():
    clips = torch.zeros(3, 2, 4, 5, 6)
    videos = torch.tensor([True, False, True])
    real = torch.arange(4) < torch.tensor([[4], [3], [1]])
    assert decide(clips, 2, videos, None).videos.tolist() == [True, False, True]
    decision = decide(clips, 2, True, real)
    assert decision.videos.tolist() == [True, True, False]  # a clip of one frame is an image
    assert decision.real is real
    assert decide(clips, 2, videos, real).videos.tolist() == [True, False, False]
    assert decide(clips, 2, False, real) == Temporal(False)


@pytest.mark.parametrize("batch", [1, 2])
def test_padding_becomes_zero_and_the_rest_stays_in_its_layout(batch):
    video, _ = as_video(torch.full((batch, 3, 4, 5, 7), torch.nan), 3)
    mask = (torch.arange(4) < 3).expand(batch, -1)
    video[:, :, :3] = torch.randn(batch, 3, 3, 5, 7)
    hidden = hide(video, mask)
    assert torch.equal(hidden[:, :, :3], video[:, :, :3])
    assert not hidden[:, :, 3].any()
    assert hidden.stride() == video.stride()


def test_halved_clips_fill_the_first_half():
    real = torch.tensor([[True] * 4, [True, True, False, False], [True] * 4])
    decision = Temporal(True, torch.tensor([True, True, False]), real)
    x = torch.arange(12.0).view(3, 4)
    halved = decision.halve(x, x[:, ::2])
    assert halved.tolist() == [[0, 2, 0, 0], [4, 6, 0, 0], [8, 9, 10, 11]]
    assert decision.halved(4).real.tolist() == [
        [True, True, False, False], [True, False, False, False], [True] * 4
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float32])
def test_a_mask_is_taken_as_tokenizers_give_it(dtype):
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert torch.equal(as_bools(mask=mask.to(dtype)), mask.bool())


@pytest.mark.parametrize("value", [-10000.0, float("-inf"), float("nan"), 0.5, 2, -1])
def test_a_mask_that_is_added_to_scores_is_refused(value):
    mask = torch.tensor([[0, value]])
    with pytest.raises(
        ValueError, match=rf"`mask` \(with {value}\) must be of bools, or hold only"
    ):
        as_bools(mask=mask)
    with pytest.raises(TypeError, match=r"`mask` \(a list\) must be a tensor"):
        as_bools(mask=[value])


def test_a_mask_is_not_looked_at_in_a_graph(dynamo):
    compiled = torch.compile(lambda mask: as_bools(mask=mask), fullgraph=True, backend="eager")
    assert compiled(torch.tensor([0, 1])).tolist() == [False, True]
    # one that is added to scores hides all, and is never its opposite
    assert compiled(torch.tensor([0.0, -1e4])).tolist() == [False, False]
