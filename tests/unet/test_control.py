"""A ControlNet over frames: what it adds, to what, and how strongly."""

import copy

import pytest
import torch

from make_a_video_pytorch import ControlBranch, SpaceTimeUnet, temporal_parameters
from tests.zoo import CONDITIONS, EXTRA, UNET, randomize

VIDEO, OUTLINES = (2, 3, 4, 8, 12), (2, 1, 4, 8, 12)
COMPRESSED = {"temporal_compression": (True, False)}


def controlled(trained=True, **options):
    """A U-Net, a branch for it, and what both are given."""
    unet = randomize(SpaceTimeUnet(**{**UNET, **CONDITIONS, **options}), 0.2)
    branch = ControlBranch.from_unet(unet, cond_channels=1)
    if trained:
        randomize(branch, 0.2)
    extra = {name: make() for name, make in EXTRA.items() if name != "cond_images"}
    return unet, branch, extra


@pytest.mark.parametrize("options", [{}, COMPRESSED, {"causal": True}], ids=str)
@pytest.mark.parametrize("mixed", [False, True])
def test_at_first_nothing_changes_and_then_it_does(options, mixed):
    unet, branch, extra = controlled(trained=False, **options)
    video, outlines = torch.randn(VIDEO), torch.rand(OUTLINES)
    time = torch.tensor([True, False]) if mixed else True
    features = branch(video, enable_time=time, cond_images=outlines, **extra)
    plain = unet(video, enable_time=time, **extra)
    assert torch.equal(unet(video, enable_time=time, features=features, **extra), plain)
    randomize(branch, 0.2)
    features = branch(video, enable_time=time, cond_images=outlines, **extra)
    out = unet(video, enable_time=time, features=features, **extra)
    assert (out - plain).abs().amax((1, 2, 3, 4)).min() > 1e-3
    others = branch(video, enable_time=time, cond_images=1 - outlines, **extra)
    assert not torch.allclose(unet(video, enable_time=time, features=others, **extra), out)


def test_it_is_a_copy_of_the_way_down_and_of_the_middle():
    unet, branch, _ = controlled(trained=False)
    names = dict(unet.named_parameters())
    for name, parameter in branch.unet.named_parameters():
        if name == "conv_in.spatial_conv.weight":  # which sees no pictures of the U-Net's own
            assert torch.equal(parameter, names[name][:, :3])
        else:
            assert torch.equal(parameter, names[name])
        assert parameter is not names[name]
    left = {name.partition(".")[0] for name, _ in unet.named_parameters()} - {
        name.partition(".")[0] for name, _ in branch.unet.named_parameters()
    }
    assert left == {"ups", "conv_out"}


@pytest.mark.parametrize("options", [{}, COMPRESSED], ids=str)
def test_features_are_added_to_the_skips_and_to_the_middle(options, monkeypatch):
    unet, _, extra = controlled(**options)
    video, kept = torch.randn(VIDEO), {}
    real = SpaceTimeUnet.up

    def up(self, middle, along):
        kept["added"] = [*along.skips, middle]
        return real(self, middle, along)

    monkeypatch.setattr(SpaceTimeUnet, "up", up)
    unet(video, **extra)
    without = kept["added"]
    features = [torch.randn_like(t) for t in without]
    features[1] = features[1][:, :, :1]  # one picture for all frames
    features[2] = features[2][:, :, 0]
    unet(video, features=features, **extra)
    for index, (got, own) in enumerate(zip(kept["added"], without, strict=True)):
        feature = features[index]
        feature = feature if feature.ndim == 5 else feature.unsqueeze(2)
        torch.testing.assert_close(got, own + feature)


def test_only_the_branch_learns_and_all_of_it():
    unet, branch, extra = controlled(trained=False)
    unet.requires_grad_(False)
    video, outlines = torch.randn(VIDEO), torch.rand(OUTLINES)
    optimizer = torch.optim.SGD(branch.parameters(), lr=1e-2)
    for _ in range(3):  # two convolutions in a row are zero at first
        optimizer.zero_grad()
        features = branch(video, cond_images=outlines, **extra)
        unet(video, features=features, **extra).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None for p in branch.parameters())
    still = {name for name, p in branch.named_parameters() if not p.grad.any()}
    assert not {name for name in still if name.startswith(("cond_in", "outs"))}
    assert temporal_parameters(branch.outs)


def test_an_image_has_the_features_of_an_image():
    unet, branch, extra = controlled()
    video, outlines = torch.randn(VIDEO), torch.rand(OUTLINES)
    del extra["fps"]
    of_frame = branch(video[:, :, 1], cond_images=outlines[:, :, 1], **extra)
    of_video = branch(video, enable_time=False, cond_images=outlines, **extra)
    for image, clip in zip(of_frame, of_video, strict=True):
        torch.testing.assert_close(image, clip[:, :, 1], rtol=1e-4, atol=1e-5)
    out = unet(video[:, :, 1], features=of_frame, **extra)
    torch.testing.assert_close(
        out, unet(video, enable_time=False, features=of_video, **extra)[:, :, 1],
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("options", [{}, COMPRESSED], ids=str)
def test_the_scale_multiplies_what_is_added_frame_by_frame(options):
    _, branch, extra = controlled(**options)
    given = {"cond_images": torch.rand(OUTLINES), **extra}
    video, whole = torch.randn(VIDEO), torch.tensor([1.0, 3.0, 0.0, 2.0])
    plain = branch(video, **given)
    for got, own in zip(branch(video, scale=0.5, **given), plain, strict=True):
        torch.testing.assert_close(got, own * 0.5)
    for got, own in zip(branch(video, scale=whole, **given), plain, strict=True):
        frames = whole.unflatten(0, (own.shape[2], -1)).mean(1)
        torch.testing.assert_close(got, own * frames[:, None, None])
    each = torch.rand(2, 4)
    torch.testing.assert_close(
        branch(video, scale=each, **given)[0], plain[0] * each[:, None, :, None, None]
    )


def test_padding_controls_nothing():
    unet, branch, extra = controlled(**COMPRESSED)
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    video, outlines = torch.randn(VIDEO), torch.rand(OUTLINES)
    outs = []
    for filler in (torch.nan, 7.0):
        hidden = outlines.masked_fill(~mask[:, None, :, None, None], filler)
        features = branch(video, cond_images=hidden, frame_mask=mask, **extra)
        outs.append(unet(video, features=features, frame_mask=mask, **extra))
    assert torch.equal(*outs)
    assert outs[0].isfinite().all()


def test_checkpointing_gives_the_same_gradients():
    _, branch, extra = controlled()
    lean = copy.deepcopy(branch)
    lean.unet.gradient_checkpointing = True
    video, outlines = torch.randn(VIDEO), torch.rand(OUTLINES)
    for model in (branch, lean):
        sum(f.square().mean() for f in model(video, cond_images=outlines, **extra)).backward()
    for ours, theirs in zip(lean.parameters(), branch.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_it_is_built_again_from_its_config():
    _, branch, extra = controlled()
    again = ControlBranch(**branch.config)
    again.load_state_dict(branch.state_dict())
    given = {"cond_images": torch.rand(OUTLINES), **extra}
    video = torch.randn(VIDEO)
    for ours, theirs in zip(again(video, **given), branch(video, **given), strict=True):
        assert torch.equal(ours, theirs)


def test_it_compiles_whole(dynamo):
    unet, branch, extra = controlled(**COMPRESSED)
    video, outlines = torch.randn(VIDEO), torch.rand(OUTLINES)

    def predict(video, outlines):
        return unet(video, features=branch(video, cond_images=outlines, **extra), **extra)

    with torch.no_grad():
        compiled = torch.compile(predict, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(video, outlines), predict(video, outlines))


WRONG_FEATURES = {
    "number": (lambda f: f[:-1], r"`features` \(4 of them\) must be 5, of the shapes .*\(2, 5, 4,"),
    "shape": (
        lambda f: [f[0], f[1][:, :, :3], *f[2:]],
        r"`features\[1\]` \(shape \(2, 5, 3, 8, 12\)\) must be \(b c \[f\] h w\) with",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG_FEATURES.values(), ids=WRONG_FEATURES)
def test_other_features_are_refused(change, message):
    unet, branch, extra = controlled()
    video = torch.randn(VIDEO)
    features = branch(video, cond_images=torch.rand(OUTLINES), **extra)
    with pytest.raises(ValueError, match=message):
        unet(video, features=change(features), **extra)
    with pytest.raises(TypeError, match=r"`features\[0\]` \(a NoneType\) must be a tensor"):
        unet(video, features=[None, *features[1:]], **extra)


def test_wrong_calls_are_refused():
    _, branch, extra = controlled()
    video = torch.randn(VIDEO)
    with pytest.raises(ValueError, match=r"`cond_images` \(shape \(2, 2, 4, 8, 12\)\) must be"):
        branch(video, cond_images=torch.rand(2, 2, 4, 8, 12), **extra)
    with pytest.raises(ValueError, match=r"`scale` \(shape \(3,\)\) must be one number, \(f\) = "):
        branch(video, cond_images=torch.rand(OUTLINES), scale=torch.ones(3), **extra)
    with pytest.raises(ValueError, match=r"`cond_channels` \(=0\) must be at least 1"):
        ControlBranch(cond_channels=0, dim=4)
    with pytest.raises(TypeError, match="unexpected keyword argument 'dims'"):
        ControlBranch(dims=4)


def test_a_unet_that_is_wrapped_is_refused():
    unet = SpaceTimeUnet(**UNET)
    unet.mid_attn.spatial_attn.to_q = torch.nn.Sequential(unet.mid_attn.spatial_attn.to_q)
    with pytest.raises(ValueError, match=r"`mid_attn.spatial_attn.to_q.weight` is hidden"):
        ControlBranch.from_unet(unet)


def test_a_stream_of_the_branch_controls_a_stream_of_the_unet():
    unet, branch, extra = controlled(causal=True, temporal_window=1)
    unet, branch, video = unet.double(), branch.double(), torch.randn(2, 3, 7, 8, 12).double()
    outlines = torch.rand(2, 1, 7, 8, 12).double()
    whole = unet(video, features=branch(video, cond_images=outlines, **extra), **extra)
    to_unet, to_branch, chunks = unet.stream(), branch.stream(), []
    for x, pictures in zip(video.split([3, 1, 3], 2), outlines.split([3, 1, 3], 2), strict=True):
        features = to_branch(x, cond_images=pictures, **extra)
        chunks.append(to_unet(x, features=features, **extra))
    torch.testing.assert_close(torch.cat(chunks, dim=2), whole, rtol=1e-10, atol=1e-10)
    plain = ControlBranch(**UNET)
    with pytest.raises(ValueError, match=r"a PseudoConv3d\) must be causal"):
        plain.stream()
