import pytest
import torch
from torch import nn

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.ops.decision import Temporal
from make_a_video_pytorch.unet.stages import Along, parts_of
from tests.zoo import UNET


def test_a_pair_of_frames_goes_on_with_the_mean_of_its_embeddings():
    emb = torch.randn(3, 4, 5)
    along = Along(Temporal(True), emb, {}, [], [])
    along.halve(4)
    torch.testing.assert_close(along.emb[:, 1], (emb[:, 2] + emb[:, 3]) / 2)
    assert along.emb.shape == (3, 2, 5)


def test_images_beside_clips_keep_their_embeddings():
    emb = torch.randn(2, 4, 5)
    along = Along(Temporal(True, torch.tensor([True, False])), emb, {}, [], [])
    along.halve(4)
    torch.testing.assert_close(along.emb[0, :2], emb[0].unflatten(0, (2, 2)).mean(1))
    assert torch.equal(along.emb[1], emb[1])
    assert along.temporal.real.tolist() == [[True, True, False, False], [True] * 4]


@pytest.mark.parametrize("emb", [None, torch.ones(3, 5)])
def test_what_is_no_number_a_frame_stays(emb):
    along = Along(Temporal(True), emb, {}, [], [])
    along.halve(4)
    assert along.emb is emb


def test_the_parts_of_a_stage():
    unet = SpaceTimeUnet(**UNET)
    block, blocks, attention, downsample = parts_of(unet.downs[0])
    assert (block, list(blocks)) == (unet.downs[0][0], [*unet.downs[0][1]])
    assert attention is None
    assert downsample is unet.downs[0][3]
    assert isinstance(parts_of(unet.ups[1])[2], nn.Module)
