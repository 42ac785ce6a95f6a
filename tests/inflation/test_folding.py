"""Frames go into the batch, in whatever an argument or a result is packed."""

import pytest
import torch
from torch import nn

from make_a_video_pytorch import per_frame
from make_a_video_pytorch.inflation.folding import clip_of, fold, map_arguments, unfold
from tests.image_models import Noise, folded, unfolded

CLIP = (2, 3)


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_video_is_folded_and_unfolded_in_its_memory_format(channels_last):
    video = torch.randn(2, 4, 3, 5, 7)
    formats = torch.contiguous_format, torch.contiguous_format
    if channels_last:
        formats = torch.channels_last_3d, torch.channels_last
    video = video.contiguous(memory_format=formats[0])
    images = fold(video, CLIP)
    assert torch.equal(images, folded(video))
    assert images.is_contiguous(memory_format=formats[1])
    back = unfold(images, CLIP)
    assert torch.equal(back, video)
    assert back.is_contiguous(memory_format=formats[0])
    assert (back.data_ptr() == video.data_ptr()) == channels_last  # no copy where none is needed


@pytest.mark.parametrize("shape", [(2,), (2, 4), (2, 4, 5), (2, 4, 5, 7)])
def test_what_a_sample_has_is_repeated(shape):
    x = torch.randn(shape)
    assert torch.equal(fold(x, CLIP), x.repeat_interleave(3, 0))
    assert fold(x, (2, 1)) is x


@pytest.mark.parametrize(
    "leaf", [None, 3, "b", torch.tensor(2), torch.randn(6, 4), torch.randn(1, 2), nn.Linear(2, 2)]
)
def test_anything_else_is_left_alone(leaf):
    assert fold(leaf, CLIP) is leaf


@pytest.mark.parametrize("shape", [(6,), (6, 4), (6, 4, 5), (6, 4, 5, 7)])
def test_rows_are_unfolded(shape):
    x = torch.randn(shape)
    assert torch.equal(unfold(x, CLIP), unfolded(x, 2))


@pytest.mark.parametrize("leaf", [None, 3, torch.tensor(2), torch.randn(5, 6), Noise, Noise(2)])
def test_other_results_are_left_alone(leaf):
    assert unfold(leaf, CLIP) is leaf


def test_an_object_is_copied_with_its_tensors_unfolded():
    noise = Noise(torch.randn(6, 4))
    result = unfold(noise, CLIP)
    assert result.mean.shape == (2, 3, 4)
    assert noise.mean.shape == (6, 4)
    layer = nn.Linear(4, 6)
    layer.buffer = torch.randn(6)
    assert unfold(layer, CLIP) is layer


def test_what_is_marked_is_a_leaf():
    marked, names = per_frame(torch.randn(2, 3)), []
    args, kwargs = map_arguments(
        lambda leaf, name: names.append(name) or leaf, (1, [marked]), {"pose": {"a": marked}}
    )
    assert names == ["args[0]", "args[1][0]", "pose['a']"]
    assert args == (1, [marked])
    assert kwargs == {"pose": {"a": marked}}


def test_the_clip_is_that_of_any_video():
    video, image = torch.randn(2, 4, 3, 5, 7), torch.randn(2, 4, 5, 7)
    assert clip_of((image, 3), {"given": [{"low_res": video}]}) == (2, 3)
    assert clip_of((image,), {}) is None
    assert clip_of((), {}) is None
    # what is marked has its own order of dimensions, and is no video
    assert clip_of((video, per_frame(torch.randn(2, 3, 4, 5, 7))), {}) == (2, 3)


def test_only_a_tensor_of_frames_can_be_marked():
    with pytest.raises(TypeError, match="tensor"):
        per_frame([1, 2])
    with pytest.raises(ValueError, match=r"`tensor` \(shape \(3,\)\) must be \(b, f, ...\)"):
        per_frame(torch.randn(3))
