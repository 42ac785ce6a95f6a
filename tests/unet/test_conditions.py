"""What the U-Net is conditioned on: each condition, and all of them two by two."""

import itertools

import pytest
import torch

from make_a_video_pytorch import SpaceTimeUnet, temporal_parameters
from tests.zoo import CONDITIONS, EXTRA, ONE_STAGE, UNET, randomize

CLIP = (2, 3, 4, 8, 12)


def conditioned(**options) -> SpaceTimeUnet:
    return randomize(SpaceTimeUnet(**{**UNET, **options}), 0.2)


def assert_close(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cond", "context", "fps", "noise_level", "cond_images"])
def test_at_first_no_condition_changes_the_output_and_then_it_does(name):
    unet = SpaceTimeUnet(**UNET, **CONDITIONS)
    video, condition = torch.randn(CLIP), {name: EXTRA[name]()}
    assert_close(unet(video, 5, **condition), unet(video, 5))
    randomize(unet, 0.2)
    difference = unet(video, 5, **condition) - unet(video, 5)
    assert difference.abs().amax(dim=(1, 2, 3, 4)).min() > 1e-3


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("cond", "to_cond.weight"),
        ("context", "mid_attn.cross_attn.to_out.weight"),
        ("fps", "to_fps_cond.1.weight"),
        ("noise_level", "to_noise_level_cond.1.weight"),
        ("cond_images", "conv_in.spatial_conv.weight"),
    ],
)
def test_a_condition_is_learned_from_the_first_step(name, weight):
    unet = SpaceTimeUnet(**UNET, **CONDITIONS)
    unet(torch.randn(CLIP), 5, **{name: EXTRA[name]()}).square().sum().backward()
    grad = unet.get_parameter(weight).grad
    assert (grad[:, 3:] if name == "cond_images" else grad).abs().max() > 0


def test_without_a_timestep_there_is_an_embedding_all_the_same():
    unet = SpaceTimeUnet(**UNET, condition_on_timestep=False, cond_dim=4)
    video, cond = torch.randn(CLIP), EXTRA["cond"]()
    assert torch.equal(unet(video), unet(video, cond=cond))
    unet(video, cond=cond).square().sum().backward()
    assert unet.to_cond.weight.grad.abs().max() > 0
    randomize(unet, 0.2)
    assert not torch.allclose(unet(video), unet(video, cond=cond), atol=1e-3)


@pytest.mark.parametrize("compressed", [False, True])
def test_each_frame_has_a_noise_level_of_its_own(compressed):
    unet = conditioned(temporal_compression=(False, compressed))
    video, steps = torch.randn(CLIP), torch.tensor([3, 811])
    same = steps[:, None].expand(2, 4)
    assert_close(unet(video, same), unet(video, steps))
    each = torch.tensor([[0, 10, 500, 999], [999, 999, 3, 3]])
    for enable_time in (True, False):
        out = unet(video, each, enable_time)
        assert not torch.allclose(out, unet(video, steps, enable_time), atol=1e-3)
    for frame in range(4):  # without time it is each frame's own
        assert_close(out[:, :, frame], unet(video[:, :, frame], each[:, frame]))


@pytest.mark.parametrize("compression", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("videos", [(True, False, True), (False, False, True), (False,) * 3])
def test_images_and_videos_in_one_batch(compression, videos):
    unet = conditioned(temporal_compression=compression, **CONDITIONS)
    video, videos = torch.randn(3, 3, 4, 8, 12), torch.tensor(videos)
    steps = torch.tensor([[1, 5, 90, 400], [2, 2, 7, 999], [9, 0, 8, 3]])
    fps = torch.tensor([3.0, 8.0, 30.0])
    out = unet(video, steps, videos, fps=fps)
    for i, is_video in enumerate(videos.tolist()):
        one = slice(i, i + 1)
        assert_close(out[one], unet(video[one], steps[one], is_video, fps=fps[one]))


def test_images_of_a_mixed_batch_train_no_temporal_parameter():
    unet = conditioned(temporal_compression=(False, True))
    unet(torch.randn(CLIP), 5, torch.tensor([False, False])).square().sum().backward()
    for parameter in temporal_parameters(unet):
        assert parameter.grad is None or not parameter.grad.any()


MASKED = {
    "plain": dict(),
    "one-frame": dict(),
    "compressed": dict(temporal_compression=(True, False)),
    "twice": dict(temporal_compression=(True, True)),
    "causal": dict(causal=True),
    "window": dict(temporal_window=1),
    "rotary-explicit": dict(attn_rotary=True, attn_pos_bias=False, flash_attn=False),
    "conditions": CONDITIONS,
}


@pytest.mark.parametrize("name", MASKED)
def test_padded_clips_come_out_as_they_are_without_padding(name):
    unet = conditioned(**MASKED[name]).double()
    lengths = (8, 4) if name in ("compressed", "twice") else (7, 1 if name == "one-frame" else 3)
    frames = max(lengths) + (4 if name == "twice" else 2)
    video = torch.randn(2, 3, frames, 8, 12).double()
    mask = torch.arange(frames) < torch.tensor(lengths)[:, None]
    video = video.masked_fill(~mask[:, None, :, None, None], float("nan"))
    weight = torch.randn(1, unet.channels_out, frames, 8, 12).double()

    def results(clips_and_masks):
        unet.zero_grad()
        outs = []
        for clip, mask in clips_and_masks:
            clip = clip.clone().requires_grad_()
            out = unet(clip, 5, frame_mask=mask)
            (out * weight[:, :, : out.shape[2]]).sum().backward()
            outs.append((out.detach(), clip.grad))
        return outs, [p.grad.clone() for p in unet.parameters() if p.grad is not None]

    ((out, grad),), grads = results([(video, mask)])
    clips, wanted = results([(video[i : i + 1, :, :n], None) for i, n in enumerate(lengths)])
    for i, (n, (alone, alone_grad)) in enumerate(zip(lengths, clips, strict=True)):
        torch.testing.assert_close(out[i : i + 1, :, :n], alone)
        torch.testing.assert_close(grad[i : i + 1, :, :n], alone_grad)
        assert not out[i, :, n:].any()
        assert not grad[i, :, n:].any()
    for got, alone in zip(grads, wanted, strict=True):
        torch.testing.assert_close(got, alone)


def test_a_sample_of_padding_only_is_finite():
    unet = conditioned(**CONDITIONS)
    mask = torch.tensor([[False] * 4, [True] * 4])
    out = unet(torch.full(CLIP, float("inf")).where(mask[:, None, :, None, None], 0), 5,
               frame_mask=mask)  # fmt: skip
    assert not out[0].any()
    unet.zero_grad()
    unet(torch.randn(CLIP), 5, frame_mask=mask).sum().backward()
    assert all(p.grad.isfinite().all() for p in unet.parameters() if p.grad is not None)


def test_one_picture_stands_for_all_frames():
    unet = conditioned(**CONDITIONS)
    video, picture = torch.randn(CLIP), torch.randn(2, 2, 8, 12)
    clip = picture[:, :, None].expand(2, 2, 4, 8, 12)
    assert torch.equal(unet(video, 5, cond_images=picture), unet(video, 5, cond_images=clip))
    assert torch.equal(unet(video, 5), unet(video, 5, cond_images=torch.zeros_like(clip)))


OPTIONS = {
    "cond_images": dict(cond_channels=2),
    "cond": dict(cond_dim=4),
    "context": dict(context_dim=6),
    "context_mask": dict(context_dim=6),
    "fps": dict(condition_on_fps=True),
    "noise_level": dict(condition_on_noise_level=True),
    "channels_out": dict(channels_out=6),
    "per_frame": dict(),
    "enable_time": dict(),
    "frame_mask": dict(),
    "checkpointing": dict(gradient_checkpointing=True),
    "window": dict(temporal_window=1),
    "compressed": dict(temporal_compression=(True,)),
    "bfloat16": dict(),
    "compile": dict(),
}


def call(name):
    """The arguments that the option `name` adds to a call with CLIP."""
    given = {name: EXTRA[name]()} if name in EXTRA else {}
    if name == "context_mask":
        given["context"] = EXTRA["context"]()
    if name == "per_frame":
        given["timestep"] = torch.tensor([[3, 5, 7, 9], [811, 2, 1, 0]])
    if name == "enable_time":
        given["enable_time"] = torch.tensor([True, False])
    if name == "frame_mask":
        given["frame_mask"] = torch.arange(4) < torch.tensor([[4], [2]])
    return given


@pytest.mark.parametrize("pair", list(itertools.combinations(OPTIONS, 2)), ids="-".join)
def test_options_work_in_pairs(pair):
    """A batch equals its samples one by one, and the gradients are finite."""
    torch._dynamo.reset()
    options = {**OPTIONS[pair[0]], **OPTIONS[pair[1]]}
    unet = SpaceTimeUnet(**{**ONE_STAGE, "temporal_compression": (False,), **options})
    randomize(unet, 0.1)
    extra = {"timestep": torch.tensor([3, 811]), **call(pair[0]), **call(pair[1])}
    video = torch.randn(CLIP)
    dtype = torch.bfloat16 if "bfloat16" in pair else torch.float32
    alone = torch.cat(
        [unet(video[i : i + 1], **{k: v[i : i + 1] for k, v in extra.items()}) for i in (0, 1)]
    )
    unet.to(dtype)
    extra = {k: v.to(dtype) if v.is_floating_point() else v for k, v in extra.items()}
    model = unet
    if "compile" in pair:
        model = torch.compile(unet, fullgraph=True, dynamic=False, backend="eager")
    out = model(video.to(dtype), **extra)
    assert out.shape == (2, unet.channels_out, 4, 8, 12)
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(out.float(), alone, rtol=tolerance, atol=tolerance)
    out.float().square().sum().backward()
    for parameter in unet.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


WRONG = [
    ({"fps": 0}, r"`fps` \(=0\) must be positive"),
    (dict(cond=torch.zeros(2, 3)), r"`cond` \(shape \(2, 3\)\) must be \(b, cond_dim\) = \(2, 4\)"),
    (dict(cond=torch.zeros(1, 4)), r"`cond` \(shape \(1, 4\)\) must be .* = \(2, 4\)"),
    (
        dict(context=torch.zeros(2, 5, 7)),
        r"`context` \(shape \(2, 5, 7\)\) must be \(b, n, context_dim\), with b = 2 as in `x` and "
        r"`context_dim` = 6",
    ),
    (dict(context=torch.zeros(2, 6)), r"`context` \(shape \(2, 6\)\) must be \(b, n, context_dim"),
    (dict(context=torch.zeros(1, 5, 6)), r"`context` \(shape \(1, 5, 6\)\) must be .* b = 2"),
    (
        dict(context=torch.zeros(2, 5, 6), context_mask=torch.ones(2, 4, dtype=torch.bool)),
        r"`context_mask` \(shape \(2, 4\), torch.bool\) must be a bool tensor \(b, n\) = \(2, 5\)",
    ),
    (
        dict(context=torch.zeros(2, 5, 6), context_mask=torch.full((2, 5), -10000.0)),
        r"`context_mask` \(with -10000.0\) must be of bools, or hold only 0, for tokens that are "
        "not to be seen, and 1",
    ),
    (
        dict(context_mask=torch.ones(2, 5, dtype=torch.bool)),
        r"`context_mask` must be left out, since no `context` was given",
    ),
    (
        dict(cond_images=torch.zeros(2, 2, 3, 8, 12)),
        r"`cond_images` \(shape \(2, 2, 3, 8, 12\)\) must be \(b, cond_channels, \[f,\] h, w\) "
        r"with .* = \(2, 2, 4, 8, 12\)",
    ),
    (dict(cond_images=torch.zeros(2, 1, 8, 12)), r"`cond_images` \(shape \(2, 1, 8, 12\)\)"),
    (dict(fps=torch.zeros(3)), r"`fps` \(shape \(3,\)\) must be one number or \(b\), with b = 2,"),
    (
        dict(timestep=torch.zeros(2, 3)),
        r"`timestep` \(shape \(2, 3\)\) must be one number or \(b\), with b = 2 or \(b, f\), with "
        r"f = 4, as in `x`",
    ),
    (
        dict(enable_time=torch.ones(3, dtype=torch.bool)),
        r"`enable_time` \(shape \(3,\), torch.bool\) must be a bool tensor \(b\) = \(2,\)",
    ),
    (
        dict(enable_time=torch.ones(2)),
        r"`enable_time` \(shape \(2,\), torch.float32\) must be a bool tensor",
    ),
    (
        dict(frame_mask=torch.ones(2, 3, dtype=torch.bool)),
        r"`frame_mask` \(shape \(2, 3\), torch.bool\) must be a bool tensor \(b f\) = \(2, 4\)",
    ),
    (
        dict(frame_mask=torch.tensor([[True] * 4, [True, False, True, False]])),
        r"`frame_mask` \(=\[True, False, True, False\] for sample 1\) must have all its False at "
        "the end",
    ),
]  # fmt: skip

MISTYPED = {
    "enable_time": ([True, False], "bool or a bool tensor"),
    "timestep": ([3, 811], "number or a tensor"),
    "fps": ("8", "number or a tensor"),
    "cond": ([[0.0] * 4] * 2, "tensor"),
    "cond_images": ([0.0], "tensor"),
    "context": ([0.0], "tensor"),
    "frame_mask": ([[True] * 4] * 2, "tensor"),
}


@pytest.mark.parametrize("name", MISTYPED)
def test_what_is_no_tensor_is_refused(name):
    value, needed = MISTYPED[name]
    unet = SpaceTimeUnet(**UNET, **CONDITIONS)
    message = rf"`{name}` \(a {type(value).__name__}\) must be a {needed}"
    with pytest.raises(TypeError, match=message):
        unet(torch.randn(CLIP), **{"timestep": 5, name: value})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("name", ["cond", "context", "cond_images"])
def test_conditions_may_be_of_another_dtype(name, dtype):
    unet = randomize(SpaceTimeUnet(**UNET, **CONDITIONS), 0.2)
    video, condition = torch.randn(CLIP), (4 * EXTRA[name]()).round()
    expected = unet(video, 5, **{name: condition})
    assert torch.equal(unet(video, 5, **{name: condition.to(dtype)}), expected)


def test_a_padded_clip_must_be_a_multiple_as_a_clip_must_be():
    unet = SpaceTimeUnet(**{**UNET, "temporal_compression": (True, False)})
    video = torch.randn(CLIP)
    mask = torch.arange(4) < torch.tensor([[4], [3]])
    message = r"`frame_mask` \(with a clip of 3 frames\) must leave clips .* divisible by 2"
    with pytest.raises(ValueError, match=message):
        unet(video, 5, frame_mask=mask)
    with pytest.raises(ValueError, match=message):
        unet(video, 5, torch.tensor([False, True]), frame_mask=mask)
    unet(video, 5, torch.tensor([True, False]), frame_mask=mask)  # the images of one sample


def test_the_timestep_of_padding_may_be_anything():
    unet = SpaceTimeUnet(**UNET)
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    timestep = torch.full((2, 4), 5.0).masked_fill(~mask, torch.nan)
    out = unet(torch.randn(CLIP), timestep, frame_mask=mask)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in unet.parameters())


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_wrong_conditions_are_refused(wrong, message):
    unet = SpaceTimeUnet(**UNET, **CONDITIONS)
    with pytest.raises(ValueError, match=message):
        unet(torch.randn(CLIP), **{"timestep": 5, **wrong})


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("cond", "cond_dim"),
        ("context", "context_dim"),
        ("fps", "condition_on_fps"),
        ("noise_level", "condition_on_noise_level"),
        ("cond_images", "cond_channels"),
    ],
)
def test_conditions_that_were_not_built_are_refused(name, option):
    unet = SpaceTimeUnet(**UNET)
    with pytest.raises(ValueError, match=f"`{name}` must be left out, since no `{option}` was"):
        unet(torch.randn(CLIP), 5, **{name: EXTRA[name]()})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (dict(cond_channels=-1), r"`cond_channels` \(=-1\) must be at least 0"),
        (dict(cond_dim=0), r"`cond_dim` \(=0\) must be at least 1"),
        (dict(context_dim=0), r"`context_dim` \(=0\) must be at least 1"),
        (dict(channels_out=0), r"`channels_out` \(=0\) must be at least 1"),
        (dict(temporal_window=0), r"`temporal_window` \(=0\) must be at least 1"),
    ],
)
def test_wrong_options_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        SpaceTimeUnet(**{**UNET, **option})
