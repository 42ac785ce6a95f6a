"""The video model that `inflate` makes of an image model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from make_a_video_pytorch.inflation.clip import Clip
from make_a_video_pytorch.inflation.folding import (
    clip_of,
    fold,
    map_arguments,
    tensors_of,
    unfold,
)
from make_a_video_pytorch.inflation.foreign import unwrapped
from make_a_video_pytorch.inflation.motion import TemporalParts
from make_a_video_pytorch.inflation.reasons import SIZE_ERRORS, reason_for
from make_a_video_pytorch.inflation.temporal import InflatedConv
from make_a_video_pytorch.modules.stream import Streamable
from make_a_video_pytorch.ops.checks import typechecked
from make_a_video_pytorch.ops.parameters import acts_across_frames
from make_a_video_pytorch.ops.past import Past
from make_a_video_pytorch.ops.torch_internals import is_in_forward_mode
from make_a_video_pytorch.ops.trees import map_leaves

Model = TypeVar("Model", bound=nn.Module)
R = TypeVar("R")


class InflatedModel(nn.Module, Streamable[object], Generic[Model]):
    """An image model that takes videos too, made by `inflate`.

    It is called as `model` is. Without a video (b c f h w) among the arguments the call is that
    of `model`, bit for bit. With one, the frames go through `model` as a batch, the inflated
    modules see them as a video, and what comes out is unfolded:

    - arguments: a video, or what is marked by `per_frame`, is folded; a tensor (b ...) is
      repeated for each frame; anything else stays as it is. They may lie in tuples, lists, dicts
      and dataclasses.
    - results: (b*f c h w) becomes (b c f h w) and any other (b*f ...) becomes (b f ...), in
      tuples, lists, dicts, dataclasses and plain objects.

    What one reads of it that it does not have, such as a `config` or `dtype`, is that of `model`;
    it is no instance of the class of `model`. A video of one frame is an image. One instance takes
    one call at a time: threads need replicas.

    The temporal parts are in `temporal`, and hooks let them run after the modules that stand at
    their names in `model` when a video comes. So `model` keeps its parameters and its
    `state_dict`, and whatever is wrapped around one of its modules or put in its place, before or
    after `inflate`, is what is inflated. After such a change call it on a video before you compile
    it. FSDP2 shards each part in `temporal` as it does blocks of `model`.

    What cannot be noticed from outside: batch normalisation in training takes its statistics over
    the frames too; dropout draws for each frame; code that reads the weight of a convolution, or
    calls its `forward`, passes over what was added; a tensor that happens to have b rows is
    repeated; a result (b*f h w c) is unfolded as if its channels came first. If `model`
    checkpoints activations, the loss must depend on the result of this call; it does not suffice
    that it depends on features that a hook has caught.

    Args:
        model: the image model.
        parts: modules of it, each with what is to run after it.
        clip: which video is going through the model.

    Example:
        >>> video_model = inflate(nn.Conv2d(3, 5, 3, padding=1))
        >>> video_model(torch.randn(2, 3, 4, 8, 8)).shape  # a video of 4 frames
        torch.Size([2, 5, 4, 8, 8])
        >>> video_model(torch.randn(2, 3, 8, 8)).shape  # images
        torch.Size([2, 5, 8, 8])
    """

    @typechecked
    def __init__(
        self, model: Model, parts: list[tuple[nn.Module, nn.Module]], clip: Clip
    ) -> None:
        super().__init__()
        self.model = model
        self.clip = clip
        self.temporal = TemporalParts(model, parts, clip)
        acts_across_frames(self, "temporal")
        self.training = self.temporal.training = self.clip.training = model.training

    def forward(self, /, *args: object, **kwargs: object) -> object:
        return self.run(self.model, *args, **kwargs)

    def run(self, function: Callable[..., R], /, *args: object, **kwargs: object) -> R:
        """Call a `function` of `model` as `model` itself is called, past the hooks of DDP and FSDP.

        For example a method, `run(vae.model.encode, video)`, or more than one,
        `run(lambda x: vae.model.encode(x).latent_dist.kl(), video)`: the methods of a
        distribution that comes back see videos, and may take their axes for those of images.

        Args:
            function: what is called.
            args, kwargs: its arguments, with videos among them.

        Returns:
            What it returns, unfolded.

        Raises:
            ValueError: if two videos differ in samples or frames, if a tensor marked `per_frame`
                is not of so many, if the output of an inflated module is not one row for each
                frame, if an inflated module is no more in `model`, or if `function` fails on
                sizes, where another layout of a video or a missing `per_frame` may be the reason.
        """
        clip = clip_of(args, kwargs)
        given = args, kwargs
        if clip is not None:
            self.temporal.follow(self.model, self.clip)
            args, kwargs = map_arguments(lambda leaf, name: fold(leaf, clip), args, kwargs)
        before = self.clip.current()
        self.clip.sizes = clip
        try:
            # no fused attention kernel has forward-mode derivatives
            with sdpa_kernel([SDPBackend.MATH]) if is_in_forward_mode() else nullcontext():
                result = function(*args, **kwargs)
            if torch.is_grad_enabled() and not torch.compiler.is_compiling():
                self.remember(result)
        except SIZE_ERRORS as error:
            if clip is None or torch.compiler.is_compiling():
                raise
            reason = reason_for(error, *given, clip)
            if reason is None:
                raise
            raise ValueError(reason) from error
        finally:
            self.clip.sizes = before
        if clip is None:
            return result
        # it is again of the type that it was
        return cast("R", map_leaves(lambda leaf, name: unfold(leaf, clip), result))

    def __getattr__(self, name: str) -> object:  # type: ignore[override]  # torch: of no others
        # what pipelines and samplers read: a config, a dtype, the number of channels
        modules = self.__dict__.get("_modules", {})
        if name in modules or "model" not in modules:
            return super().__getattr__(name)
        value: object = getattr(modules["model"], name)
        if inspect.ismethod(value):
            raise AttributeError(f"`{name}` is a method of `model`: call it by `run` or on `model`")
        return value

    def chunk(self, past: Past, x: Tensor, /, *args: object, **kwargs: object) -> object:
        """What it makes of a chunk `x` (b c f h w) of a video that follows the `past`."""
        with self.clip.after(past):
            return self(x, *args, **kwargs)

    def remember(self, result: object) -> None:
        """Bring the video back for the backward pass of all that is in `result`."""

        def remember(leaf: object, name: str) -> object:
            for tensor in [leaf] if isinstance(leaf, Tensor) else tensors_of(leaf).values():
                self.clip.remember(tensor)
            return leaf

        map_leaves(remember, result)

    def temporal_state_dict(self) -> dict[str, Tensor]:
        """The parameters of the temporal parts, named after the modules that are inflated.

        They are a motion module, to be saved by itself and loaded beside any fine-tuning of the
        same image model, adapters or not. What adapters add to them is left out.

        Raises:
            ValueError: if something is wrapped around a temporal part that hides its parameters, or
                if these are offloaded.
        """
        return self.temporal.motion()

    @typechecked
    def load_temporal_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what `temporal_state_dict` gave, of a model that was inflated alike.

        Numbers of heads, the window and whether it is causal are not in the tensors: with others
        the motion is another, without an error. (`load_motion` of `integrations.diffusers` compares
        them.)

        Args:
            state: a motion module.

        Raises:
            TypeError: if `state` is no dict of tensors.
            ValueError: if a parameter is missing, unknown or of another shape, or if those that
                are here are hidden or offloaded; none is loaded.
        """
        self.temporal.load_motion(state)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        # in 1.0.0 they were children of the modules that are inflated
        here = any(name.startswith(f"{prefix}temporal.") for name in state_dict)
        for key, motion in () if here else self.temporal.prefixes().items():
            old = f"{prefix}model.{motion}"
            for name in [name for name in state_dict if name.startswith(old)]:
                new = f"{prefix}temporal.{key}.{name.removeprefix(old)}"
                state_dict[new] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def check(self, /, *args: object, **kwargs: object) -> list[str]:
        """The inflated modules whose temporal parts a call with these arguments does not reach.

        Such a part never learns, and keeps DDP waiting. The call is made without gradients and
        in evaluation mode.

        Args:
            args, kwargs: those of the call, with a video among them.

        Returns:
            The names of the modules in `model`.

        Raises:
            ValueError: if no argument is a video of 2 frames or more.
        """
        clip = clip_of(args, kwargs)
        if clip is None or clip[1] == 1:
            raise ValueError("`args` must hold a video (b c f h w) of 2 frames or more")
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            with torch.no_grad():
                return self.temporal.not_reached_by(partial(self, *args, **kwargs))
        finally:
            for module in training:
                module.training = True

    def extra_repr(self) -> str:
        parts = [unwrapped(part) for part in self.temporal.values()]
        convs = sum(isinstance(part, InflatedConv) for part in parts)
        added = sum(p.numel() for p in self.temporal.parameters())
        return f"convs={convs}, attentions={len(parts) - convs}, temporal_parameters={added:,}"
