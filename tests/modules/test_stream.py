"""A causal module that is given a video chunk by chunk."""

import copy
import pickle

import pytest
import torch
import torch._dynamo.testing
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from make_a_video_pytorch import (
    Downsample,
    PseudoConv3d,
    ResnetBlock,
    SpaceTimeUnet,
    SpatioTemporalAttention,
    Stream,
    Upsample,
    chunk_attention,
)
from tests.zoo import CONDITIONS, EXTRA, UNET, Entry, each, randomize

VIDEO = (2, 7, 9, 3, 5)
SPLITS = ([9], [1] * 9, [2, 3, 4], [6, 1, 2])


def attention(**options):
    options = {"dim_head": 8, "heads": 3, "causal_time_attn": True, **options}
    return lambda: SpatioTemporalAttention(7, **options)


def unet(**options):
    return lambda: SpaceTimeUnet(**{**UNET, **options}, causal=True)


LARGE = (2, 3, 9, 8, 12)
CAUSAL = {
    "conv": Entry(lambda: PseudoConv3d(7, 4, causal=True), VIDEO),
    "conv-1": Entry(lambda: PseudoConv3d(7, 4, 1), VIDEO),  # which has no part over frames
    "conv-4": Entry(lambda: PseudoConv3d(7, 4, temporal_kernel_size=4, causal=True), VIDEO),
    "resnet": Entry(lambda: ResnetBlock(7, 4, causal=True), VIDEO),
    "bias": Entry(attention(), VIDEO),
    "rotary": Entry(attention(pos_bias=False, rotary=True), VIDEO),
    "both": Entry(attention(rotary=True, flash=False, context_dim=6), VIDEO, ("context",)),
    "plain": Entry(attention(pos_bias=False, add_feed_forward=False), VIDEO),
    "window": Entry(attention(temporal_window=2), VIDEO),
    "window-1": Entry(attention(temporal_window=1, flash=False, rotary=True), VIDEO),
    "window-plain": Entry(attention(temporal_window=3, pos_bias=False), VIDEO),
    "long-window": Entry(attention(temporal_window=20, rotary=True), VIDEO),
    "unet": Entry(unet(temporal_window=3), LARGE, ("timestep",)),
    "unet-all": Entry(unet(attn_rotary=True, **CONDITIONS), LARGE, tuple(EXTRA)),
}


def streamed(stream, video, split, **extra):
    """The chunks that a stream makes of a video, as one."""
    return torch.cat([stream(chunk, **extra) for chunk in video.split(split, dim=2)], dim=2)


def near(got, wanted, tolerance):
    scale = wanted.abs().max().item()
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance * scale)


@each(CAUSAL)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_any_split_gives_what_the_whole_video_gives(entry, dtype, tolerance):
    module, video = randomize(entry.build()).to(dtype), entry.video(dtype=dtype)
    extra = entry.extra(dtype)
    with torch.no_grad():
        whole = module(video, **extra)
        for split in SPLITS:
            near(streamed(module.stream(), video, split, **extra), whole, tolerance)


def test_what_is_of_each_frame_goes_with_its_chunk():
    unet = randomize(SpaceTimeUnet(**UNET, causal=True, cond_channels=2)).double()
    video, timestep = torch.randn(LARGE).double(), torch.rand(2, 9) * 999
    pictures = torch.randn(2, 2, *LARGE[2:]).double()
    whole, stream, made = unet(video, timestep, cond_images=pictures), unet.stream(), []
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        chunk = video[:, :, start:stop]
        made.append(stream(chunk, timestep[:, start:stop], cond_images=pictures[:, :, start:stop]))
    near(torch.cat(made, dim=2), whole, 1e-10)


def test_a_chunk_of_one_frame_is_no_image():
    conv = randomize(PseudoConv3d(7, causal=True))
    video = torch.randn(VIDEO)
    stream = conv.stream()
    stream(video[:, :, :4])
    near(stream(video[:, :, 4:5]), conv(video)[:, :, 4:5], 1e-6)
    assert not torch.allclose(conv(video[:, :, 4:5]), conv(video)[:, :, 4:5], atol=0.1)


@each({name: CAUSAL[name] for name in ("conv", "rotary", "window", "unet")})
def test_what_is_not_committed_leaves_no_trace(entry):
    module, video, extra = randomize(entry.build()), entry.video(), entry.extra()
    first, second = video.split([4, 5], dim=2)
    stream, other = module.stream(), module.stream()
    stream(torch.randn_like(first), **extra, commit=False)  # before anything is
    assert stream.frames == 0
    for each_stream in (stream, other):
        each_stream(first, **extra)
    trials = [stream(second, **extra, commit=False) for _ in range(2)]
    stream(torch.randn_like(second), **extra, commit=False)
    assert torch.equal(*trials)
    assert torch.equal(trials[0], other(second, **extra))
    assert torch.equal(stream(second, **extra), trials[0])
    assert (stream.frames, other.frames) == (9, 9)


@pytest.mark.parametrize("window", [2, None])
def test_the_last_chunk_can_be_written_again(window):
    unet = randomize(SpaceTimeUnet(**UNET, causal=True, temporal_window=window)).double()
    one, two, three = torch.randn(LARGE).double().split([3, 4, 2], dim=2)
    stream, wanted = unet.stream(), unet.stream()
    wanted(one, 7)
    wanted(two, 20)
    stream(one, 7)
    stream(two, 900)
    stream.rewind()
    assert stream.frames == 3
    stream(two, 20)
    near(stream(three, 500, commit=False), wanted(three, 500, commit=False), 1e-12)
    stream.rewind()
    with pytest.raises(ValueError, match="`rewind` takes one chunk back"):
        stream.rewind()
    stream.reset()
    with pytest.raises(ValueError, match="`rewind` takes one chunk back"):
        stream.rewind()
    stream(two, 900)
    stream.rewind()  # of the first chunk
    near(stream(one, 7), unet(one, 7), 1e-10)


def test_streams_know_nothing_of_each_other():
    unet = randomize(SpaceTimeUnet(**UNET, causal=True))
    names = list(unet.state_dict())
    videos = torch.randn(2, *LARGE)
    streams = [unet.stream() for _ in videos]
    made = [[], []]
    for start in range(0, 9, 3):
        for stream, video, chunks in zip(streams, videos, made, strict=True):
            chunks.append(stream(video[:, :, start : start + 3], 500))
    for video, chunks in zip(videos, made, strict=True):
        near(torch.cat(chunks, dim=2), unet(video, 500), 1e-5)
    assert list(unet.state_dict()) == names


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda stream: pickle.loads(pickle.dumps(stream))]
)
def test_a_copy_goes_on_from_the_same_frames(copied):
    conv = randomize(PseudoConv3d(7, causal=True))
    video, stream = torch.randn(VIDEO), conv.stream()
    first, second, third = video.split(3, dim=2)
    stream(first)
    other = copied(stream)
    assert (other.module is conv) == (copied is copy.copy)
    other(torch.randn_like(second))  # goes another way
    stream(second)
    near(stream(third), conv(video)[:, :, 6:], 1e-6)
    other.rewind()
    other(second)
    near(other(third), conv(video)[:, :, 6:], 1e-6)


def test_reset_begins_a_new_video_of_any_size():
    conv = randomize(PseudoConv3d(7, causal=True))
    stream = conv.stream()
    stream(torch.randn(VIDEO))
    stream.reset()
    video = torch.randn(1, 7, 4, 2, 2)
    near(streamed(stream, video, 2), conv(video), 1e-6)


def test_gradients_end_at_the_chunk_unless_asked():
    unet = randomize(SpaceTimeUnet(**UNET, causal=True, temporal_window=3)).double()
    video = torch.randn(LARGE).double()

    def gradients(make):
        unet.zero_grad()
        x = video.clone().requires_grad_()
        make(x)[:, :, 6:].square().sum().backward()
        return [x.grad, *(p.grad for p in unet.parameters() if p.grad is not None)]

    whole = gradients(lambda x: unet(x, 500))
    through = gradients(lambda x: streamed(unet.stream(detach=False), x, 3, timestep=500))
    for got, wanted in zip(through, whole, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-10)
    ended, *_ = gradients(lambda x: streamed(unet.stream(), x, 3, timestep=500))
    assert not ended[:, :, :6].any()
    assert ended[:, :, 6:].any()


def test_checkpointed_blocks_give_the_same_gradients():
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        unet = SpaceTimeUnet(**UNET, causal=True, gradient_checkpointing=again)
        stream = randomize(unet).double().stream()
        video = torch.randn(LARGE).double()
        for chunk in video.split(3, dim=2):
            stream(chunk, 500).square().sum().backward()
        found.append([p.grad for p in unet.parameters()])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@each({name: CAUSAL[name] for name in ("conv", "window-1", "window", "unet")})
def test_a_frame_after_a_hundred_thousand_is_as_exact(entry):
    module, video, extra = randomize(entry.build(), 0.1), entry.video(), entry.extra()
    stream = module.stream()
    streamed(stream, video, 3, **extra)
    late = copy.copy(stream)
    late.frames, late.seen = 100_000, torch.tensor(100_000)
    chunk = torch.randn_like(video[:, :, :2])
    assert torch.equal(late(chunk, **extra), stream(chunk, **extra))


def test_with_a_window_nothing_grows():
    unet = randomize(SpaceTimeUnet(**UNET, causal=True, temporal_window=3))
    stream, sizes = unet.stream(), []
    for _ in range(12):
        stream(torch.randn(2, 3, 2, 8, 12), 500)
        sizes.append(sum(kept.untyped_storage().nbytes() for kept in stream.kept))
    assert set(sizes) == {sizes[0]}


def test_errors():
    conv = PseudoConv3d(7, causal=True)
    stream = conv.stream()
    with pytest.raises(ValueError, match=r"`x` \(shape \(2, 7, 3, 5\)\) must be a video"):
        stream(torch.zeros(2, 7, 3, 5))
    with pytest.raises(TypeError, match="`x`"):
        stream("chunk")
    video = torch.randn(VIDEO)
    first = stream(video)
    for wrong in (video[:1], video[..., :2], video.to("meta")):
        with pytest.raises(ValueError, match=r"must be \(b c f h w\) with \(b c h w\) = \(2, 7, 3"):
            stream(wrong)
    mask = torch.ones(2, 9, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"a DataParallel\) must be left out"):
        Stream(nn.DataParallel(conv))
    for name, value in (("frame_mask", mask), ("enable_time", True)):
        with pytest.raises(ValueError, match=f"`{name}` must be left out of a stream"):
            stream(video, **{name: value})
    with pytest.raises(ValueError, match="channels"):
        conv.stream()(video[:, :3])
    assert stream.frames == 9  # what went wrong left no trace
    stream.reset()
    assert torch.equal(stream(video), first)


def test_a_module_that_is_not_causal_is_refused_by_the_part_that_is_not():
    for module, named in (
        (PseudoConv3d(7), r"`module` \(a PseudoConv3d\)"),
        (ResnetBlock(7, 7), r"`block1.project` \(a PseudoConv3d\)"),
        (SpatioTemporalAttention(7), r"`module` \(a SpatioTemporalAttention\)"),
        (SpaceTimeUnet(**UNET), r"`downs.0.0.block1.project` \(a PseudoConv3d\)"),
        (SpaceTimeUnet(**UNET, causal_time_attn=True), r"`downs.0.0.block1.project` \(a Ps\w+\)"),
    ):
        with pytest.raises(ValueError, match=f"{named} must be causal, to be streamed"):
            module.stream()
    for module in (Downsample(7, downsample_time=True), Upsample(7, upsample_time=True)):
        with pytest.raises(ValueError, match=f"a {type(module).__name__}"):
            Stream(module)
    with pytest.raises(TypeError, match="`detach`"):
        PseudoConv3d(7, causal=True).stream(detach=3)
    with pytest.raises(TypeError, match="`module`"):
        Stream(lambda x: x)


class Own(nn.Module):
    """A model of its own, as users build them."""

    def __init__(self):
        super().__init__()
        self.conv, self.down = PseudoConv3d(7, 8, causal=True), Downsample(8)
        self.attn, self.up = attention_of(8), Upsample(8)
        self.again = PseudoConv3d(8, causal=True)

    def forward(self, x, enable_time=True):
        x = self.down(self.conv(x, enable_time), enable_time)
        x = self.again(self.attn(self.again(x, enable_time), enable_time), enable_time)
        return self.up(x, enable_time)


def attention_of(dim):
    return SpatioTemporalAttention(dim, dim_head=8, heads=2, causal_time_attn=True)


def test_a_model_of_parts_streams_and_a_part_may_be_used_twice():
    model = randomize(Own()).double()
    video = torch.randn(2, 7, 6, 4, 8).double()
    near(streamed(Stream(model), video, [1, 3, 2]), model(video), 1e-10)
    wrapped = nn.Sequential(model)  # which hands nothing on
    with pytest.raises(TypeError, match="enable_time"):
        Stream(wrapped)(video)
    forgetful = Forgetful().double()
    named = r"`again` \(a PseudoConv3d\) must be handed the `enable_time` of the model"
    with pytest.raises(ValueError, match=named):
        Stream(forgetful)(video)
    assert not forgetful.again._forward_pre_hooks


class Forgetful(Own):
    def forward(self, x, enable_time=True):
        return self.again(self.conv(x, enable_time))


def test_a_stream_in_a_checkpoint_is_an_error_and_commits_once():
    conv = PseudoConv3d(7, causal=True)
    video, stream = torch.randn(VIDEO, requires_grad=True), conv.stream()
    out = checkpoint(stream, video, use_reentrant=False)
    with pytest.raises(ValueError, match="cannot be computed again in a backward pass"):
        out.sum().backward()
    assert stream.frames == 9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precisions_and_autocast(dtype):
    unet, video = randomize(SpaceTimeUnet(**UNET, causal=True), 0.1), torch.randn(LARGE)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        near(streamed(unet.stream(), video, 3, timestep=500), unet(video, 500), 0.05)
    unet, video = unet.to(dtype), video.to(dtype)
    near(streamed(unet.stream(), video, 3, timestep=500), unet(video, 500), 0.05)


def test_what_is_around_a_part_is_around_it_in_a_stream():
    class Twice(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return 2 * self.inner(x)

    attn = randomize(attention(temporal_window=2)())
    for parent, name in ((attn.temporal_attn, "to_k"), (attn.ff, "token_shift")):
        setattr(parent, name, Twice(getattr(parent, name)))
    conv = randomize(PseudoConv3d(7, causal=True))
    conv.temporal_conv = Twice(conv.temporal_conv)
    video = torch.randn(VIDEO)
    for module in (attn, conv):
        near(streamed(module.stream(), video, 2), module(video), 1e-5)


def test_a_sharded_model_that_casts_streams(tmp_path):
    """FSDP2 goes through the arguments of a call, to cast them."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/join", rank=0, world_size=1)
    try:
        unet = randomize(SpaceTimeUnet(**UNET, causal=True, temporal_window=3), 0.1)
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
        mesh = init_device_mesh("cpu", (1,))
        fully_shard(unet.mid_attn, mesh=mesh, mp_policy=policy)
        fully_shard(unet, mesh=mesh, mp_policy=policy)
        video = torch.randn(LARGE)
        with torch.no_grad():
            whole = unet(video, 500)
            stream = unet.stream()
            near(streamed(stream, video, 3, timestep=500), whole, 0.05)
        assert stream.kept
    finally:
        dist.destroy_process_group()


def test_a_distributed_model_streams(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/join", rank=0, world_size=1)
    try:
        unet = randomize(SpaceTimeUnet(**UNET, causal=True), 0.1)
        video = torch.randn(LARGE)
        whole = unet(video, 500)
        stream = Stream(DistributedDataParallel(unet))
        near(streamed(stream, video, 3, timestep=500), whole, 1e-5)
        assert stream.kept
    finally:
        dist.destroy_process_group()


def test_attention_in_chunks_keeps_those_of_each():
    attn = randomize(attention(temporal_window=2)())
    video = torch.randn(VIDEO)
    whole, stream = attn(video), attn.stream()
    chunk_attention(attn, pixels=4)
    near(streamed(stream, video, 3), whole, 1e-6)
    chunk_attention(attn, pixels=5)
    with pytest.raises(ValueError, match="see as many pixels at once"):
        stream(video)


@pytest.mark.parametrize("grad", [True, False])
def test_chunks_of_a_size_are_one_graph(grad, dynamo):
    counter = torch._dynamo.testing.CompileCounter()
    options = dict(causal=True, temporal_window=3, attn_rotary=True, gradient_checkpointing=grad)
    unet = randomize(SpaceTimeUnet(**UNET, **options), 0.1)
    video = torch.randn(2, 3, 12, 8, 12)
    whole = unet(video, 500)
    unet.compile(backend=counter, fullgraph=True)
    stream, made = unet.stream(), []
    with torch.set_grad_enabled(grad):
        for chunk in video.split(2, dim=2):
            stream(chunk, 500, commit=False)
            made.append(stream(chunk, 500))
        torch.testing.assert_close(torch.cat(made, dim=2), whole, rtol=1e-4, atol=1e-5)
        assert counter.frame_count == 2  # one for the first chunk
        stream.rewind()
        torch.testing.assert_close(stream(video[:, :, 10:], 500), made[-1], rtol=1e-4, atol=1e-5)
        assert counter.frame_count == 2
        for size in (1, 1, 2, 1):
            stream(video[:, :, :size], 500)
        assert counter.frame_count == 3  # one for the other size
