"""Contract 3: checkpoints of the original load here, and give its outputs and gradients."""

import copy
import inspect

import pytest
import torch

import make_a_video_pytorch as ours
from tests.zoo import UNET, randomize

TOLERANCE = dict(rtol=1e-5, atol=1e-5)


def pair(original, name, *args, their_kwargs=None, our_kwargs=None, **kwargs):
    """The same module, once theirs with random weights, once ours with theirs loaded."""
    theirs = getattr(original, name)(*args, **kwargs, **(their_kwargs or {}))
    # 0.15 keeps activations near one, where 1e-5 means seven digits
    randomize(theirs, 0.15)
    mine = getattr(ours, name)(*args, **kwargs, **(our_kwargs or {}))
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, mine


def assert_same(theirs, mine, x, *args, grads=True, **kwargs):
    x, same_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, out = theirs(x, *args, **kwargs), mine(same_x, *args, **kwargs)
    torch.testing.assert_close(out, expected, **TOLERANCE)
    if not grads:
        return
    weight = torch.randn_like(out) / out.numel() ** 0.5
    (expected * weight).sum().backward()
    (out * weight).sum().backward()
    torch.testing.assert_close(same_x.grad, x.grad, rtol=1e-4, atol=1e-5)
    wanted = as_ours(theirs, mine)
    for name, parameter in mine.named_parameters():
        if not name.endswith("token_shift.mix"):  # nothing to learn there
            got = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(got, wanted[name], rtol=1e-3, atol=1e-4, msg=name)


def as_ours(theirs, mine):
    """Their gradients under our names and in our shapes: converted as the weights are."""
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in theirs.named_parameters()
    }
    carrier = copy.deepcopy(mine)
    carrier.load_state_dict(gradients, strict=True)
    return carrier.state_dict()


def modes(shape):
    """Image, video, and video without time."""
    video = torch.randn(shape)
    return [(video[:, :, 0], True), (video, True), (video, False)]


@pytest.mark.parametrize("dim_out", [None, 9])
@pytest.mark.parametrize(("kernel", "temporal"), [(3, None), (5, 3), (1, None), (3, 1), (7, 5)])
def test_conv(original, dim_out, kernel, temporal):
    theirs, mine = pair(original, "PseudoConv3d", 5, dim_out, kernel, temporal_kernel_size=temporal)
    for x, time in modes((2, 5, 6, 7, 4)):
        assert_same(theirs, mine, x, enable_time=time)


@pytest.mark.parametrize("pos_bias", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("feed_forward", [True, False])
def test_attention(original, pos_bias, causal, flash, feed_forward):
    theirs, mine = pair(
        original,
        "SpatioTemporalAttention",
        14,
        dim_head=8,
        heads=3,
        pos_bias=pos_bias,
        causal_time_attn=causal,
        add_feed_forward=feed_forward,
        ff_mult=3,
        their_kwargs=dict(flash=False),
        our_kwargs=dict(flash=flash),
    )
    for x, time in modes((2, 14, 5, 3, 7)):
        assert_same(theirs, mine, x, enable_time=time)


@pytest.mark.parametrize("nonlin", [True, False])
@pytest.mark.parametrize(("space", "time_too"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("name", ["Downsample", "Upsample"])
def test_resampling(original, name, space, time_too, nonlin):
    theirs, mine = pair(original, name, 5, space, time_too, nonlin)
    for x, time in modes((2, 5, 4, 6, 10)):
        assert_same(theirs, mine, x, enable_time=time)


@pytest.mark.parametrize("dim_out", [5, 9])
@pytest.mark.parametrize("cond_dim", [None, 6])
def test_resnet(original, dim_out, cond_dim):
    theirs, mine = pair(original, "ResnetBlock", 5, dim_out, timestep_cond_dim=cond_dim)
    emb = None if cond_dim is None else torch.randn(2, cond_dim)
    for x, time in modes((2, 5, 4, 3, 7)):
        assert_same(theirs, mine, x, emb, enable_time=time)


@pytest.mark.parametrize(
    "config",
    [
        {},
        dict(attn_pos_bias=False, causal_time_attn=True),
        dict(causal_time_attn=True),
        dict(temporal_compression=(False, True)),
        dict(temporal_compression=(True, True)),  # six frames do not go, four come down to one
        dict(dim_mult=(1, 3, 2), self_attns=(True, False, True), channels=1,
             temporal_compression=(True, False, False), resnet_block_depths=(2, 1, 3)),
        dict(condition_on_timestep=False),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("flash", [True, False])
def test_unet(original, config, flash):
    kwargs = {**UNET, "dim": 6, **config}
    theirs, mine = pair(
        original,
        "SpaceTimeUnet",
        **kwargs,
        their_kwargs=dict(flash_attn=False),
        our_kwargs=dict(flash_attn=flash),
    )
    assert mine.frame_multiple == theirs.frame_multiple
    assert mine.image_size_multiple == theirs.image_size_multiple
    timestep = torch.tensor([17.0, 903.0]) if kwargs.get("condition_on_timestep", True) else None
    for x, time in modes((2, kwargs["channels"], 4, 16, 24)):
        assert_same(theirs, mine, x, timestep, enable_time=time)


def test_the_default_unet_down_to_one_frame(original):
    """Eight frames leave one in the middle, where the temporal parts still run."""
    theirs, mine = pair(
        original, "SpaceTimeUnet", dim=4, attn_heads=2, attn_dim_head=8,
        their_kwargs=dict(flash_attn=False),
    )  # fmt: skip
    for x, time in modes((1, 3, 8, 16, 32)):
        assert_same(theirs, mine, x, torch.tensor([404.0]), enable_time=time, grads=False)


@pytest.mark.parametrize("name", ["PseudoConv3d", "SpatioTemporalAttention", "ResnetBlock",
                                  "Downsample", "Upsample", "SpaceTimeUnet"])  # fmt: skip
def test_arguments_keep_names_order_and_defaults(original, name):
    for method in ("__init__", "forward"):
        theirs = inspect.signature(getattr(getattr(original, name), method)).parameters
        mine = inspect.signature(getattr(getattr(ours, name), method)).parameters
        names = [n for n, p in theirs.items() if p.kind is not p.VAR_KEYWORD]
        assert list(mine)[: len(names)] == names
        for n in names:
            assert mine[n].kind == theirs[n].kind
            if n not in ("flash", "flash_attn"):  # on by default here
                assert mine[n].default == theirs[n].default


def test_attributes_keep_their_names(original):
    theirs = original.SpaceTimeUnet(**UNET | {"dim": 6}, flash_attn=False)
    mine = ours.SpaceTimeUnet(**UNET | {"dim": 6})
    own = dict(mine.named_modules())
    for path, module in theirs.named_modules():
        # a dropout that was always 0, and a projection that is two layers now
        if path.endswith(("attn_dropout", "to_kv")):
            continue
        assert path in own
        for name in vars(module):
            # torch's own (a Conv3d is a Linear here), and dropout, which was never used
            skipped = name in vars(torch.nn.Conv3d(1, 1, 1)) or name in (
                "cpu_config",
                "cuda_config",
                "dropout",
            )
            assert skipped or hasattr(own[path], name), f"{path}.{name}"


def test_a_checkpoint_loads_again_from_here(original):
    _, mine = pair(original, "SpaceTimeUnet", **UNET | {"dim": 6},
                        their_kwargs=dict(flash_attn=False))  # fmt: skip
    again = ours.SpaceTimeUnet(**UNET | {"dim": 6})
    again.load_state_dict(mine.state_dict(), strict=True)
    x, timestep = torch.randn(2, 3, 4, 8, 12), torch.rand(2)
    assert torch.equal(again(x, timestep), mine(x, timestep))
