"""Any image model as a video model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Literal

import torch
from torch import nn

from make_a_video_pytorch.inflation.clip import Clip
from make_a_video_pytorch.inflation.foreign import (
    channels_out,
    is_known_attention,
    named_layers,
    where_it_computes,
)
from make_a_video_pytorch.inflation.inflated import InflatedModel, Model
from make_a_video_pytorch.inflation.temporal import (
    InflatedAttention,
    InflatedConv,
    TemporalPart,
    detach,
    part_of,
)
from make_a_video_pytorch.ops.checks import at_least, must_be_multiple, typechecked
from make_a_video_pytorch.ops.parameters import temporal_modules


@typechecked
def inflate(
    model: Model,
    *,
    temporal_kernel_size: int = 3,
    attention: Literal["auto"] | Sequence[type[object]] = "auto",
    where: Callable[[str, nn.Module], bool] | None = None,
    heads: int = 8,
    dim_head: int = 64,
    causal: bool = False,
    temporal_window: int | None = None,
) -> InflatedModel[Model]:
    """Make a video model of an image model, in place; `deflate` gives it back.

    After every Conv2d with a kernel larger than 1 x 1 comes a convolution over frames, in as many
    groups, and after every self-attention comes attention over frames, as in Make-A-Video (Singer
    et al. 2022, section 3.2), each at first zero. So images are those of `model`, bit for bit, and
    so is a video at first, frame by frame; `model` keeps its `state_dict`. Transposed and 1 x 1
    convolutions are left as they are. A module with an adapter of peft around it is inflated with
    it; what `where` is given is the module inside.

    `attention` "auto" takes the self-attention of diffusers, dalle2-pytorch, imagen-pytorch,
    denoising-diffusion-pytorch, guided-diffusion, k-diffusion and timm. A list takes the place of
    these: all modules of its classes are taken, and none if it is empty. (A MultiheadAttention
    that is taken costs the nn.TransformerEncoderLayer around it its fast path.)

    Compile and distribute the model afterwards. DDP needs `find_unused_parameters` where some
    batches are images, since those reach no temporal part.

    Args:
        model: the image model.
        temporal_kernel_size: frames that a convolution sees.
        attention: "auto", or the classes of the self-attention modules.
        where: whether to inflate a module, by its name and itself; all are if left out.
        heads: number of heads of attention over frames.
        dim_head: width of a head, even.
        causal: no temporal part sees later frames, so that the model can `stream` videos.
        temporal_window: frames that attention over frames sees on either side; all if None.

    Returns:
        The video model, which holds `model`.

    Raises:
        TypeError: if an argument, an entry of `attention` or what `where` gives is of a wrong
            type.
        ValueError: if a number is below 1 or `dim_head` odd; if `model` is inflated already, takes
            videos by itself or is compiled; if a chosen module is attention without a projection
            that tells its channels, or has weights whose device or dtype in the computation
            cannot be told, as when they are offloaded or quantised; if there is no module of the
            classes in `attention`, or none to inflate at all. The model is then as it was.

    Example:
        >>> image_model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1))
        >>> video_model = inflate(image_model, where=lambda name, module: name == "0")
        >>> video_model(torch.randn(2, 3, 4, 8, 8)).shape
        torch.Size([2, 3, 4, 8, 8])
        >>> [name for name in video_model.temporal_state_dict()]
        ['0.temporal.conv.weight', '0.temporal.conv.bias']
    """
    at_least(1, temporal_kernel_size=temporal_kernel_size, heads=heads, dim_head=dim_head)
    if temporal_window is not None:
        at_least(1, temporal_window=temporal_window)
    must_be_multiple(2, "for rotary positions over frames", dim_head=dim_head)
    must_be_untouched(model)
    is_attention = attention_test(model, attention)
    clip = Clip()
    chosen: list[tuple[nn.Module, nn.Module]] = []
    for name, path, module in named_layers(model):
        attends = is_attention(module)
        convolves = isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1
        if not (attends or convolves) or not is_wanted(name, module, where):
            continue
        part: TemporalPart
        if isinstance(module, nn.Conv2d) and not attends:
            part = InflatedConv(name, module, temporal_kernel_size, causal)
        else:
            channels = channels_out(module)
            if channels is None:
                raise ValueError(
                    f"{called(name, module)} must have a Linear, Conv1d or Conv2d that tells the "
                    "channels it gives; leave it out by `where`"
                )
            part = InflatedAttention(name, channels, heads, dim_head, causal, temporal_window)
        chosen.append((path[-1], as_in(name, [*path, module], part)))
    if not chosen:
        raise ValueError(
            f"`model` (a {type(model).__name__}) must have a Conv2d with a kernel larger than 1 "
            "or attention that `attention` and `where` choose"
        )
    return InflatedModel(model, chosen, clip)


@typechecked
def deflate(video_model: InflatedModel[Model]) -> Model:
    """The image model that `inflate` was given, without its temporal parts.

    Do not call `video_model` afterwards: with a video it would attach them again.

    Args:
        video_model: what `inflate` gave.

    Returns:
        Its `model`.

    Raises:
        TypeError: if `video_model` is no InflatedModel.

    Example:
        >>> image_model = nn.Conv2d(3, 3, 3)
        >>> deflate(inflate(image_model)) is image_model
        True
    """
    for module in video_model.model.modules():
        if part_of(module) is not None:
            detach(module)
    return video_model.model


def called(name: str, module: nn.Module) -> str:
    """What messages call a module."""
    return f"`{name or 'model'}` (a {type(module).__name__})"


def must_be_untouched(model: nn.Module) -> None:
    """Raise a ValueError for a model that takes videos already, or is compiled."""
    across_frames = set(temporal_modules(model))
    for name, module in model.named_modules():
        name = f"its `{name}`" if name else "it"
        if isinstance(module, InflatedModel) or part_of(module) is not None:
            raise ValueError(f"`model` must not be inflated already, as {name} is")
        if module in across_frames:
            raise ValueError(f"`model` must take images only, and {name} acts across frames")
        compiled = getattr(module, "_compiled_call_impl", None) is not None
        if compiled or type(module).__name__ == "OptimizedModule":
            # a compiler does not look for hooks that come later
            raise ValueError(f"`model` must be inflated before it is compiled, as {name} is")


def attention_test(
    model: nn.Module, attention: Literal["auto"] | Sequence[type[object]]
) -> Callable[[nn.Module], bool]:
    """Whether a module is attention, as `inflate` was told."""
    if isinstance(attention, str):
        return is_known_attention
    kinds = tuple(attention)
    if not all(isinstance(kind, type) and issubclass(kind, nn.Module) for kind in kinds):
        raise TypeError(f"`attention` (={kinds}) must hold subclasses of nn.Module")
    if kinds and not any(isinstance(module, kinds) for module in model.modules()):
        names = ", ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"`attention` (={names}) must name the class of a module of the model")
    return lambda module: isinstance(module, kinds)


def is_wanted(
    name: str, module: nn.Module, where: Callable[[str, nn.Module], bool] | None
) -> bool:
    """Whether `where` takes the module."""
    wanted = True if where is None else where(name, module)
    if not isinstance(wanted, bool):
        raise TypeError(f"`where` must return a bool, and returned {wanted!r} for `{name}`")
    return wanted


def as_in(name: str, path: list[nn.Module], part: TemporalPart) -> TemporalPart:
    """`part` where the last module of `path` computes, in its dtype and its mode.

    Raises:
        ValueError: if its weights lie elsewhere between calls, or in a dtype that nothing computes
            in, and no hook says what becomes of them.
    """
    module = path[-1]
    tensors = chain(module.parameters(), path[0].parameters())
    like = next((tensor for tensor in tensors if tensor.is_floating_point()), None)
    if like is None:  # only in a quantised model
        return part.train(module.training)
    device, dtype = where_it_computes([*path, *module.modules()])
    elsewhere = like.is_meta and not all(p.is_meta for p in path[0].parameters())
    if device is None and elsewhere:
        raise ValueError(f"{called(name, module)} is offloaded: inflate the model before that")
    if dtype is None and torch.finfo(like.dtype).bits < 16:
        raise ValueError(
            f"{called(name, module)} is kept in {like.dtype}: inflate the model before that"
        )
    part.to(like.device if device is None else device, like.dtype if dtype is None else dtype)
    return part.train(module.training)
