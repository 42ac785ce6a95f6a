"""Properties that hold for all modules in all calls, on those that Hypothesis draws (`draws.py`).

The draws are the same in every run and take less than a minute. Thousands of new ones, in ten:

    HYPOTHESIS_PROFILE=thorough python -m pytest tests/test_drawn.py

What fails is printed as a `Case`: small, with a seed instead of tensors, to go on with by hand.
"""

import copy
import itertools
import os
import pickle

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from make_a_video_pytorch import (
    PseudoConv3d,
    ResnetBlock,
    SpaceTimeUnet,
    SpatioTemporalAttention,
    chunk_attention,
    spatial_parameters,
    temporal_parameters,
)
from make_a_video_pytorch.modules.feed_forward import FeedForward
from make_a_video_pytorch.ops.attend import Attend
from tests.draws import (
    FEW,
    FLAG,
    Arguments,
    Case,
    Of,
    among,
    by_frames,
    cases,
    halvings,
    of_sample,
    spoiled,
)
from tests.zoo import randomize

PHASES = (Phase.explicit, Phase.generate, Phase.shrink)
USUAL = dict(phases=PHASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
settings.register_profile("fixed", derandomize=True, max_examples=40, **USUAL)
settings.register_profile("thorough", max_examples=400, **USUAL)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def same(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)


def near(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def weighted(out: Tensor) -> Tensor:
    """One number that all entries of `out` have a different part in."""
    return (out * torch.arange(out.numel()).cos().to(out).view_as(out)).sum()


def results(module: nn.Module, x: Tensor, more: Arguments) -> list[Tensor]:
    """The output, and the gradients of `x` and of all parameters."""
    x = x.detach().requires_grad_()
    out, wanted = module(x, **more), (x, *module.parameters())
    return [out.detach(), *torch.autograd.grad(weighted(out), wanted, materialize_grads=True)]


# What holds


@given(cases(least=2, where=lambda options: not halvings(options)), FLAG)
def test_at_first_time_changes_no_bit(case, trained):
    module, x, more = case.make()
    if trained:
        for parameter in spatial_parameters(module):
            nn.init.normal_(parameter, 0, 0.2)
    outs = [module(x, **arguments) for arguments in (more, more | {"enable_time": False})]
    if "frame_mask" in more:  # what padding becomes does not matter
        outs = [spoiled(out.movedim(2, 1), more["frame_mask"]) for out in outs]
    same(*outs)


@pytest.mark.parametrize("seed", range(12))
def test_at_first_fps_changes_no_bit_beside_one_timestep_for_all(seed):
    options = dict(
        dim=10, dim_mult=(3,), self_attns=(True,), temporal_compression=(False,),
        resnet_block_depths=(2,), attn_dim_head=16, attn_heads=2, condition_on_fps=True,
    )  # fmt: skip
    case = Case(SpaceTimeUnet, options, Of((3, 3, 2, 6, 4)), dict(timestep=5, fps=8.0), seed)
    test_at_first_time_changes_no_bit.hypothesis.inner_test(case, trained=False)


@given(cases(least=2, where=lambda options: halvings(options) and "nonlin" not in options))
def test_at_first_a_still_clip_is_an_image(case):
    unpadded = {name: value for name, value in case.more.items() if name != "frame_mask"}
    module, x, more = case._replace(more=unpadded).make(torch.float64)
    more = by_frames(more, lambda t: t[:, :1])
    out = module(x[:, :, :1].expand_as(x), **more)
    near(out, module(x[:, :, 0], **more).unsqueeze(2).expand_as(out))


@given(cases(least=1))
def test_without_time_a_video_is_its_frames(case):
    module, x, more = case.make(torch.float64, 0.2)
    more["enable_time"] = False
    out = module(x, **more)
    mask = more.pop("frame_mask", torch.ones(len(x), x.shape[2], dtype=torch.bool))
    for i, real in enumerate(mask.unbind(1)):
        frame = module(x[:, :, i], **by_frames(more, lambda t, i=i: t[:, i : i + 1]))
        near(out[real, :, i], frame[real])


@given(cases(least=1, most=1))
def test_a_clip_of_one_frame_is_an_image(case):
    module, x, more = case.make(scale=0.2)
    same(module(x, **more).squeeze(2), module(x.squeeze(2), **more))


@given(cases())
def test_a_batch_is_its_samples(case):
    module, x, more = case.make(torch.float64, 0.2)
    b = len(x)
    samples = [module(x[i : i + 1], **of_sample(more, i, b)) for i in range(b)]
    near(module(x, **more), torch.cat(samples))


@given(cases(least=2, needs=["enable_time"]))
def test_of_a_mixed_batch_each_sample_goes_its_own_way(case):
    module, x, more = case.make(torch.float64, 0.2)
    out, b = module(x, **more), len(x)
    for i, video in enumerate(more["enable_time"].tolist()):
        alone = of_sample(more, i, b) | {"enable_time": video}
        near(out[i : i + 1], module(x[i : i + 1], **alone))


@given(cases(least=2, needs=["frame_mask"]))
def test_padding_behind_a_clip_changes_nothing(case):
    module, x, more = case.make(torch.float64, 0.2)
    out, b = module(x, **more), len(x)
    videos = case.more.get("enable_time", [True] * b)
    for i, length in enumerate(more.pop("frame_mask").sum(1).tolist()):
        if length:
            alone = by_frames(of_sample(more, i, b), lambda t, n=length: t[:, :n])
            clip = module(x[i : i + 1, :, :length], **alone | {"enable_time": videos[i]})
            near(out[i : i + 1, :, :length], clip)
        if case.kind is SpaceTimeUnet:
            assert not out[i, :, length:].any()


@given(cases(SpatioTemporalAttention, SpaceTimeUnet, needs=["context", "context_mask"]))
def test_hidden_tokens_change_nothing(case):
    module, x, more = case.make(torch.float64, 0.2)
    out, b = module(x, **more), len(x)
    for i, seen in enumerate(more.pop("context_mask")):
        alone = of_sample(more, i, b)
        alone["context"] = alone["context"][:, seen]
        near(out[i : i + 1], module(x[i : i + 1], **alone))


STREAMED = cases(SpaceTimeUnet, PseudoConv3d, ResnetBlock, least=2, causal=True) | cases(
    SpatioTemporalAttention, least=2, causal_time_attn=True
)
CAUSAL = STREAMED | cases(FeedForward, least=2)
OF_MANY = ("enable_time", "frame_mask")  # which streams do not take


@given(CAUSAL, FEW)
def test_later_frames_change_no_bit_of_earlier_ones(case, kept):
    module, x, more = case.make(scale=0.2)
    kept, given = min(kept, x.shape[2] - 1), {"x": x, **more}

    def with_later(sign: int) -> Tensor:
        changed = by_frames(given, lambda t: torch.cat((t[:, :kept], sign * t[:, kept:]), 1))
        return module(**changed)[:, :, :kept]

    same(with_later(-1), with_later(1))


@given(STREAMED, st.lists(FEW, min_size=6, max_size=6))
def test_any_split_of_a_stream_is_the_whole(case, lengths):
    case = case._replace(more={k: v for k, v in case.more.items() if k not in OF_MANY})
    module, x, more = case.make(torch.float64, 0.2)
    given, stream, chunks, frames = {"x": x, **more}, module.stream(), [], x.shape[2]
    ends = [end for end in itertools.accumulate(lengths) if end < frames]
    for start, end in zip([0, *ends], [*ends, frames], strict=True):
        chunk = by_frames(given, lambda t, here=slice(start, end): t[:, here])
        chunks.append(stream(chunk.pop("x"), **chunk))
    whole = module(x, **more)
    scale = whole.abs().max().item() if whole.numel() else 1
    torch.testing.assert_close(torch.cat(chunks, dim=2), whole, rtol=0, atol=1e-10 * scale)


@given(cases(SpaceTimeUnet))
def test_checkpointing_changes_nothing(case):
    unet, x, more = case.make(scale=0.2)
    before = results(unet, x, more)
    unet.gradient_checkpointing = not unet.gradient_checkpointing
    same(results(unet, x, more), before)


@given(cases(SpatioTemporalAttention, SpaceTimeUnet))
def test_explicit_attention_is_the_fused_one(case):
    module, x, more = case.make(torch.float64, 0.2)
    before = results(module, x, more)
    for part in module.modules():
        if isinstance(part, Attend):
            part.flash = not part.flash
    near(results(module, x, more), before)


@given(cases(SpatioTemporalAttention, SpaceTimeUnet), FEW, FEW)
def test_attention_in_pieces_is_the_whole(case, frames, pixels):
    module, x, more = case.make(torch.float64, 0.2)
    before = results(module, x, more)
    chunk_attention(module, frames=frames, pixels=pixels)
    near(results(module, x, more), before)


@given(cases())
def test_slopes_are_those_of_differences(case):
    module, x, more = case.make(torch.float64, 0.2)
    arguments, weights = {"x": x, **more}, dict(module.named_parameters())
    inputs = {k: v for k, v in arguments.items() if getattr(v, "dtype", None) == torch.float64}
    steps = {k: torch.randn_like(v) for k, v in (inputs | weights).items()}

    def along(h: Tensor) -> Tensor:
        moved = {k: v + h * steps[k] for k, v in (inputs | weights).items()}
        given = arguments | {k: moved.pop(k) for k in inputs}
        return weighted(functional_call(module, moved, (), given))

    zero, h = torch.zeros((), dtype=torch.float64, requires_grad=True), 1e-6
    (slope,) = torch.autograd.grad(along(zero), zero)
    with torch.no_grad():
        difference = (along(zero + h) - along(zero - h)) / (2 * h)
    torch.testing.assert_close(slope, difference, rtol=1e-4, atol=1e-4)


# From which smaller values an option may have grown
GROWS = {
    "cond_channels": lambda n: among(*range(n + 1)),
    "channels_out": lambda n: among(None) if n is None else among(*range(1, n + 1)),
    "cond_dim": lambda n: among(None, *range(1, (n or 0) + 1)),
    "context_dim": lambda n: among(None, n),
    "condition_on_timestep": lambda on: among(False, on),
    "condition_on_fps": lambda on: among(False, on),
    "condition_on_noise_level": lambda on: among(False, on),
    "attn_pos_bias": lambda on: among(False, on),
    "self_attns": lambda on: st.tuples(*(among(False, each) for each in on)),
    "resnet_block_depths": lambda ns: st.tuples(*(among(*range(1, n + 1)) for n in ns)),
    "flash_attn": lambda on: FLAG,
    "gradient_checkpointing": lambda on: FLAG,
}
TAKEN_BY = {
    "timestep": "condition_on_timestep", "fps": "condition_on_fps", "cond": "cond_dim",
    "cond_images": "cond_channels", "context": "context_dim", "context_mask": "context_dim",
    "noise_level": "condition_on_noise_level",
}  # fmt: skip


@given(cases(SpaceTimeUnet), st.data())
def test_a_grown_unet_gives_the_same_outputs(case, data):
    large, x, more = case.make(torch.float64)
    config = large.config | {k: data.draw(g(large.config[k])) for k, g in GROWS.items()}
    unet = randomize(SpaceTimeUnet(**config).double(), 0.2)
    grown = unet.grow(**{k: large.config[k] for k in GROWS})
    taken = {k: v for k, v in more.items() if k not in TAKEN_BY or config[TAKEN_BY[k]]}
    for name in taken.keys() & {"cond", "cond_images"}:
        taken[name] = taken[name][:, : config[TAKEN_BY[name]]]
    out = grown(x, **more)
    near(out[:, : unet.channels_out], unet(x, **taken))
    assert not out[:, unet.channels_out :].any()


@given(cases())
def test_copies_are_the_module(case):
    module, x, more = case.make(scale=0.2)
    loaded = case.kind(**case.options)
    loaded.load_state_dict(module.state_dict())
    for other in (loaded, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        same(other(x, **more), module(x, **more))


@given(cases())
def test_strides_change_nothing(case):
    module, x, more = case.make(torch.float64, 0.2)
    out = module(x, **more)
    near(out, module(x.contiguous(), **more))
    plain = {k: v.contiguous() if isinstance(v, Tensor) else v for k, v in more.items()}
    near(out, module(x, **plain))


@given(cases(SpaceTimeUnet))
def test_the_answer_comes_in_the_memory_format_that_was_given(case):
    unet, x, more = case.make()
    last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    as_x = x.is_contiguous(memory_format=last) and not x.is_contiguous()
    answer = unet(x, **more)
    assert answer.is_contiguous(memory_format=last if as_x else torch.contiguous_format)


@given(cases())
def test_inputs_are_not_written_to(case):
    module, x, more = case.make(scale=0.2)
    tensors = [v.detach() for v in (x, *more.values(), *module.parameters()) if torch.is_tensor(v)]
    before = [t.clone() for t in tensors]
    results(module, x, more)
    with torch.no_grad():
        module(x, **more)
    same(tensors, before)


@given(cases())
def test_images_train_no_temporal_parameter(case):
    module, x, more = case.make(scale=0.2)
    if x.ndim == 5 and x.shape[2] > 1:
        more["enable_time"] = False
    module(x.requires_grad_(), **more).sum().backward()
    assert all(parameter.grad is None for parameter in temporal_parameters(module))


@given(cases(), among(torch.bfloat16, torch.float16), among(1, 0, 1000))
def test_half_precisions_are_finite(case, dtype, size):
    module, x, more = case.make(dtype)
    out = module((x * size).requires_grad_(), **more)
    assert out.dtype == dtype
    assert out.isfinite().all()
    if size <= 1:  # a small loss, whose gradients fp16 can hold
        (out.float().mean() / 100).backward()
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
