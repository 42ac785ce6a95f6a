"""Contract 9: whatever is wrapped around a module, hooked to it or put in its place, runs.

Adapters, quantised layers, offloading and casts are such things. The output stays the same, or
changes as what is around the module says.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from make_a_video_pytorch import (
    Downsample,
    PseudoConv3d,
    ResnetBlock,
    SpaceTimeUnet,
    SpatioTemporalAttention,
    Upsample,
    inflate,
)
from make_a_video_pytorch.inflation.clip import Clip
from make_a_video_pytorch.inflation.temporal import HOOK, PART
from tests.image_models import Around, inflated, plain_net, small_text_unet
from tests.zoo import CONDITIONS, EVERY, ONE_STAGE, each, randomize


class Case(NamedTuple):
    build: Callable[[], nn.Module]
    channels: int
    extra: Callable[[int, int], dict[str, Tensor]] = lambda b, f: {}

    def module(self) -> nn.Module:
        return randomize(self.build(), 0.2).requires_grad_(False).eval()

    def calls(self) -> list[dict[str, Tensor]]:
        """A video, and two rows of pictures: a clip of two frames, two images."""
        calls = []
        for b, f in ((2, 4), (1, 2), (2, 1)):
            x = torch.randn(b, self.channels, f, 4, 6)
            calls.append({"x": x if f > 1 else x[:, :, 0], **self.extra(b, f)})
        return calls


def conditions(b: int, f: int) -> dict[str, Tensor]:
    return {
        "timestep": torch.rand(b),
        "cond": torch.randn(b, 4),
        "context": torch.randn(b, 5, 6),
        "context_mask": torch.arange(5) < torch.tensor([[3], [5]])[:b],
        "fps": torch.full((b,), 8.0),
        "noise_level": torch.full((b,), 90),
        "cond_images": torch.randn(b, 2, 4, 6),
    }


class Called(nn.Module):
    """A video model of diffusers, called by the names that the others have."""

    def __init__(self) -> None:
        super().__init__()
        pytest.importorskip("diffusers")
        self.video_model = inflate(small_text_unet(), heads=2, dim_head=2)

    def forward(self, x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return self.video_model(x, timestep, text).sample


def embedded(b: int, f: int) -> dict[str, Tensor]:
    return {"timestep_emb": torch.randn(b, 6)}


def net() -> nn.Module:
    """One whose weights lie in the layers alone, all of them used."""
    net = plain_net()
    net.context = net.tokens.drop = None
    return net


UNET = ONE_STAGE | CONDITIONS
CASES = {
    "conv": Case(lambda: PseudoConv3d(3, 5), 3),
    "conv-causal": Case(lambda: PseudoConv3d(3, 5, 2, causal=True), 3),
    "down": Case(lambda: Downsample(3, downsample_time=True, nonlin=True), 3),
    "up": Case(lambda: Upsample(3, upsample_time=True, nonlin=True), 3),
    "attention": Case(
        lambda: SpatioTemporalAttention(7, dim_head=8, heads=3, context_dim=6, rotary=True),
        7,
        lambda b, f: {"context": torch.randn(b, 5, 6)},
    ),
    "resnet": Case(lambda: ResnetBlock(3, 5, timestep_cond_dim=6), 3, embedded),
    "unet": Case(lambda: SpaceTimeUnet(**UNET, attn_rotary=True), 3, conditions),
    "inflated": Case(
        lambda: inflated(net()), 3, lambda b, f: {"timestep": torch.rand(b), "context": None}
    ),
    "inflated-diffusers": Case(
        Called, 3, lambda b, f: {"timestep": torch.rand(b), "text": torch.randn(b, 4, 5)}
    ),
}
OURS = {name: case for name, case in CASES.items() if "inflated" not in name}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def call(module: nn.Module, arguments: dict[str, Tensor]) -> Tensor:
    return module(arguments["x"], **{k: v for k, v in arguments.items() if k != "x"})


def leaves(module: nn.Module) -> list[str]:
    """The names of what holds parameters, or holds nothing and is called."""
    return [
        name
        for name, part in module.named_modules()
        if name
        and not isinstance(part, (Clip, nn.ModuleList, nn.ModuleDict))
        and (not list(part.children()) or list(part.parameters(recurse=False)))
    ]


def put(module: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, key = name.rpartition(".")
    module.get_submodule(parent)._modules[key] = part


def subclassed(part: nn.Module) -> nn.Module:
    other = copy.copy(part)
    other.__class__ = type(f"Mine{type(part).__name__}", (type(part),), {})
    for name in (PART, HOOK):  # what is built anew does not have them
        vars(other).pop(name, None)
    other._forward_hooks, other._forward_hooks_with_kwargs = OrderedDict(), OrderedDict()
    return other


def stays_the_same(case: Case, wrap: Callable[[nn.Module], nn.Module], names=leaves) -> None:
    """With each of the parts that `names` finds wrapped, and with all of them."""
    module, calls = case.module(), case.calls()
    expected = [call(module, arguments) for arguments in calls]
    found = names(module)
    for name in found:
        part = module.get_submodule(name)
        put(module, name, wrap(part))
        for arguments, wanted in zip(calls[:2], expected, strict=False):
            out = call(module, arguments)
            torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-6, msg=name)
        put(module, name, part)
    for name in found:
        put(module, name, wrap(module.get_submodule(name)))
    for arguments, wanted in zip(calls, expected, strict=True):
        torch.testing.assert_close(call(module, arguments), wanted, rtol=1e-5, atol=1e-6)


@each_case
def test_a_subclass_in_the_place_of_a_leaf(case):
    stays_the_same(case, subclassed)


@each_case
def test_a_module_around_a_leaf(case):
    stays_the_same(case, Around)


def called(module: nn.Module) -> list[str]:
    """The names of all that is called as a whole, inner ones last, so that outer names stay."""
    listed = (nn.ModuleList, nn.ModuleDict, Clip)
    names = [n for n, part in module.named_modules() if n and not isinstance(part, listed)]
    return sorted(names, key=lambda name: -name.count("."))


@pytest.mark.parametrize("case", OURS.values(), ids=OURS)
def test_a_module_around_any_module(case):
    stays_the_same(case, Around, called)


@each_case
def test_hooks_run_and_change_the_output(case):
    module, arguments = case.module().double(), case.calls()[0]
    for name, t in arguments.items():  # so that no change drowns in rounding
        arguments[name] = t.double() if t is not None and t.is_floating_point() else t
    expected = call(module, arguments)
    for name in leaves(module):
        part, ran = module.get_submodule(name), []

        def add_noise(part, args, out):
            generator = torch.Generator().manual_seed(0)
            first, *rest = out if isinstance(out, tuple) else (out,)
            noisy = first + torch.randn(first.shape, generator=generator).to(first)
            return (noisy, *rest) if isinstance(out, tuple) else noisy

        hooks = [
            part.register_forward_pre_hook(lambda part, args, ran=ran: ran.append(part)),
            part.register_forward_hook(add_noise),
        ]
        changed = call(module, arguments)
        for hook in hooks:
            hook.remove()
        assert ran, name
        assert (changed - expected).abs().max() > 1e-9, name
    torch.testing.assert_close(call(module, arguments), expected)


def kept_in_bf16(part: nn.Module) -> None:
    """As layerwise casting keeps a layer: cast around its forward, which is replaced for that."""
    forward = part.forward
    own = list(part.parameters(recurse=False))

    def cast(dtype: torch.dtype) -> None:
        for parameter in own:
            parameter.data = parameter.data.to(dtype)

    def casting(*args, **kwargs):
        cast(torch.float32)
        try:
            return forward(*args, **kwargs)
        finally:
            cast(torch.bfloat16)

    cast(torch.bfloat16)
    part.forward = casting


def kept_on_meta(part: nn.Module) -> None:
    """As offloading keeps a layer: filled by hooks around its forward."""
    values = dict(part.named_parameters(recurse=False))
    empty = {name: nn.Parameter(p.to("meta"), requires_grad=False) for name, p in values.items()}

    def fill(parameters: dict[str, nn.Parameter], *_) -> None:
        part._parameters.update(parameters)

    part.register_forward_pre_hook(partial(fill, values))
    part.register_forward_hook(partial(fill, empty))
    fill(empty)


@each_case
@pytest.mark.parametrize("keep", [kept_in_bf16, kept_on_meta])
def test_weights_that_are_elsewhere_between_calls(case, keep):
    plain, calls = case.module(), case.calls()
    for parameter in plain.parameters():
        parameter.data = parameter.data.bfloat16().float()
    expected = [call(plain, arguments) for arguments in calls]
    names = [n for n in leaves(plain) if list(plain.get_submodule(n).parameters(recurse=False))]
    for changed in [*([name] for name in names), names]:
        module = copy.deepcopy(plain)
        for name in changed:
            keep(module.get_submodule(name))
        for arguments, wanted in zip(
            calls if changed is names else calls[:1], expected, strict=False
        ):
            out = call(module, arguments)
            torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-6, msg=f"{changed}")


@each(EVERY)
def test_a_slice_of_a_sequence_is_one(entry):
    """As tools take it that move some blocks at a time."""
    for part in entry.build().modules():
        if isinstance(part, (nn.Sequential, nn.ModuleList)):
            assert list(part[:1]) == [part[0]]
