import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.ops.layout import (
    as_given,
    fold_frames,
    fold_pixels,
    in_layout,
    is_planar,
    memory_format_of,
    unfold_frames,
    unfold_pixels,
)
from tests.zoo import EVERY, UNET, each, randomize

LAST_3D = torch.channels_last_3d


def lies_in_layout(video):
    """Whether b f h w c is the order in memory, strides of single dimensions included."""
    pixels = video.movedim(1, -1)
    return pixels.stride() == torch.empty(pixels.shape, device="meta").stride()


@pytest.mark.parametrize(
    "video",
    [
        torch.randn(2, 3, 5, 7, 11),
        torch.randn(2, 3, 5, 7, 11).contiguous(memory_format=LAST_3D),
        torch.randn(1, 1, 5, 7, 11),
        torch.randn(3, 5, 7, 11).expand(1, 3, 5, 7, 11),
        torch.randn(2, 1, 3, 1, 11),
        torch.randn(2, 3, 5, 11, 7).transpose(3, 4),
        torch.randn(4, 6, 5, 7, 11)[::2, ::2],
    ],
    ids=lambda v: f"{tuple(v.shape)}-{v.stride()}",
)
def test_a_video_in_any_memory_format_comes_out_in_the_layout(video):
    out = in_layout(video)
    assert torch.equal(out, video)
    assert lies_in_layout(out)


def test_no_copy_of_what_is_in_the_layout():
    video = torch.randn(2, 3, 5, 7, 11).contiguous(memory_format=LAST_3D)
    out = in_layout(video)
    assert out.data_ptr() == video.data_ptr()
    image = torch.randn(2, 3, 7, 11).contiguous(memory_format=torch.channels_last)
    out = in_layout(image)
    assert out.data_ptr() == image.data_ptr()
    assert as_given(out, image).shape == image.shape


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("frames", [1, 5])
def test_folding_is_a_view_that_convolutions_take_as_it_is(batch, frames):
    video = in_layout(torch.randn(batch, 3, frames, 7, 11))
    images, pixels = fold_frames(video), fold_pixels(video)
    assert images.stride() == (7 * 11 * 3, 1, 11 * 3, 3)
    assert pixels.stride() == (frames * 7 * 11 * 3, 1, 7 * 11 * 3, 3)
    assert torch.equal(images[-1], video[-1, :, -1])
    assert torch.equal(pixels[..., 11 + 2], video[..., 1, 2])
    for back in (unfold_frames(images, frames), unfold_pixels(pixels, 7, 11)):
        assert torch.equal(back, video)
        assert back.data_ptr() == video.data_ptr()
        assert back.stride() == video.stride()


def test_planar_is_one_order_in_memory_and_no_other():
    image = torch.randn(2, 3, 5, 7)
    assert is_planar(image)
    assert not is_planar(image.contiguous(memory_format=torch.channels_last))
    assert not is_planar(image[:, :1])  # it is both
    assert not is_planar(image.transpose(2, 3))


def test_the_answer_comes_in_the_memory_format_that_was_given():
    unet = SpaceTimeUnet(**UNET)
    video = torch.randn(2, 3, 3, 8, 12)
    for x, last in ((video, LAST_3D), (video[:, :, 0].contiguous(), torch.channels_last)):
        assert memory_format_of(x) is torch.contiguous_format
        assert unet(x, 5).is_contiguous()
        x = x.contiguous(memory_format=last)
        assert memory_format_of(x) is last
        out = unet(x, 5)
        assert out.is_contiguous(memory_format=last)
        assert not out.is_contiguous()


@each({name: entry for name, entry in EVERY.items() if "unet" not in name})
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_module_answers_in_the_layout(entry, batch, dtype):
    module, video = entry.build().to(dtype), entry.video(dtype=dtype)[:batch]
    assert lies_in_layout(module(video))
    assert lies_in_layout(module(video[:, :, 0])[:, :, None])


class Copies(TorchDispatchMode):
    """Counts copies of whole pictures from one memory order into another."""

    def __init__(self, numel):
        super().__init__()
        self.numel, self.count = numel, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("clone", "copy_", "_to_copy", "contiguous"):
            source = args[1] if name == "copy_" else args[0]
            self.count += source.numel() >= self.numel
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("conv", 0),
        ("conv-causal", 0),  # its pad is no copy of layout
        ("resnet", 0),
        ("resnet-same", 0),
        ("block", 0),
        ("feed-forward", 0),
        ("attention-plain", 0),
        ("attention-rotary", 0),
        ("down-space", 1),  # the shuffle itself
        ("up-space", 1),
        ("down-both", 2),
        ("up-both", 2),
    ],
)
def test_modules_copy_nothing_but_what_they_shuffle(name, allowed, batch):
    entry = EVERY[name]
    module = randomize(entry.build())
    video = entry.video()[:batch].contiguous(memory_format=LAST_3D)
    for x in (video, video[:, :, 0].contiguous(memory_format=torch.channels_last)):
        with torch.no_grad(), Copies(x.numel()) as copies:
            module(x)
        assert copies.count <= allowed
