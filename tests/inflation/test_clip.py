"""Which video is going through an inflated model, and what a stream of it leaves."""

import pytest
import torch
import torch._dynamo.testing

from make_a_video_pytorch import inflate, per_frame
from make_a_video_pytorch.inflation.clip import Clip
from tests.image_models import Net, PixelAttention, inflated


def test_the_video_is_back_while_gradients_are_computed_and_then_gone():
    clip, seen = Clip(), []
    x = torch.randn(3, requires_grad=True)
    middle = x * 2
    middle.register_hook(lambda grad: seen.append(clip.current()))
    clip.sizes = (2, 3)
    result = middle.square()
    clip.remember(result)
    clip.sizes = None
    result.sum().backward(retain_graph=True)
    result.sum().backward()
    assert seen == [(2, 3), (2, 3)]
    assert clip.sizes is None
    clip.remember(torch.randn(3))  # no gradient, nothing to remember


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("kernel", [2, 3])
def test_a_stream_gives_what_the_whole_video_gives(window, kernel):
    model = inflated(
        Net(), moved=True, causal=True, temporal_window=window, temporal_kernel_size=kernel
    ).double()
    x, t = torch.randn(2, 3, 7, 5, 6).double(), torch.rand(2, 7).double()
    context = torch.randn(2, 3, 4).double()
    whole = model(x, per_frame(t), context=context)
    for split in ([7], [1] * 7, [3, 1, 3]):
        stream, chunks = model.stream(), []
        for chunk, of_it in zip(x.split(split, 2), t.split(split, 1), strict=True):
            stream(chunk, per_frame(1 - of_it), context=context, commit=False)
            chunks.append(stream(chunk, per_frame(of_it), context=context))
        torch.testing.assert_close(torch.cat(chunks, dim=2), whole, rtol=0, atol=1e-10)
    torch.testing.assert_close(model(x, per_frame(t), context=context), whole, rtol=0, atol=0)


def test_later_frames_change_nothing_of_earlier_ones():
    model = inflated(Net(), moved=True, causal=True)
    x = torch.randn(2, 3, 5, 5, 6)
    changed = torch.cat((x[:, :, :3], torch.randn(2, 3, 2, 5, 6)), dim=2)
    assert torch.equal(model(x, 0.5)[:, :, :3], model(changed, 0.5)[:, :, :3])
    assert not torch.equal(model(x, 0.5)[:, :, 3:], model(changed, 0.5)[:, :, 3:])


def test_a_window_hides_frames_that_are_further_off():
    only = dict(attention=[PixelAttention], where=lambda name, module: name == "pixels")
    model = inflated(Net(), moved=True, temporal_window=1, **only)
    x = torch.randn(2, 3, 5, 5, 6)
    changed = torch.cat((x[:, :, :4], torch.randn(2, 3, 1, 5, 6)), dim=2)
    out, other = model(x, 0.5), model(changed, 0.5)
    torch.testing.assert_close(out[:, :, :3], other[:, :, :3], rtol=0, atol=1e-6)
    assert not torch.allclose(out[:, :, 3], other[:, :, 3], atol=1e-4)


def test_gradients_flow_through_a_chunk():
    model = inflated(Net(), moved=True, causal=True).double()
    x = torch.randn(2, 3, 4, 5, 6).double()
    whole = model(x, 0.5)[:, :, 2:].square().sum()
    parameters = list(model.temporal.parameters())
    wanted = torch.autograd.grad(whole, parameters)
    stream = model.stream(detach=False)
    stream(x[:, :, :2], 0.5)
    got = torch.autograd.grad(stream(x[:, :, 2:], 0.5).square().sum(), parameters)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_chunk_that_is_computed_again_in_a_backward_pass_is_an_error(reentrant):
    model = inflated(Net(reentrant=reentrant), moved=True, causal=True)
    x = torch.randn(2, 3, 4, 5, 6, requires_grad=True)
    stream = model.stream()
    out = stream(x, 0.5)
    with pytest.raises(ValueError, match="cannot be computed again in a backward pass"):
        out.square().sum().backward()
    assert model.clip.current() is None
    assert model.clip.past is None
    model(x, 0.5).square().sum().backward()  # the whole video can
    torch.testing.assert_close(stream(x, 0.5).shape, out.shape)


def test_an_exception_leaves_no_past():
    model = inflated(Net(), moved=True, causal=True)
    stream = model.stream()
    with pytest.raises(TypeError):
        stream(torch.randn(2, 3, 4, 5, 6), 0.5, unknown=1)
    assert model.clip.past is None
    assert stream.frames == 0


def test_a_model_that_is_not_causal_is_refused():
    with pytest.raises(
        ValueError, match=r"`temporal.after_conv_in` \(a InflatedConv\) must be causal"
    ):
        inflate(Net(), attention=[]).stream()
    with pytest.raises(ValueError, match=r"`temporal_window` \(=0\) must be at least 1"):
        inflate(Net(), attention=[], temporal_window=0)


def test_a_compiled_model_streams(dynamo):
    model = inflated(Net(), moved=True, causal=True, temporal_window=2)
    x = torch.randn(2, 3, 8, 5, 6)
    whole = model(x, 0.5)
    counter = torch._dynamo.testing.CompileCounter()
    model.compile(backend=counter, fullgraph=True)
    stream = model.stream()
    chunks = [stream(chunk, 0.5) for chunk in x.split(2, dim=2)]
    torch.testing.assert_close(torch.cat(chunks, dim=2), whole, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 2
