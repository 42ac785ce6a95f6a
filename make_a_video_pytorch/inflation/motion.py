"""The temporal parts of a model: after which modules they run, and their file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from make_a_video_pytorch.inflation.clip import Clip
from make_a_video_pytorch.inflation.foreign import layer_at, without_wrappers
from make_a_video_pytorch.inflation.temporal import (
    TemporalPart,
    attach,
    detach,
    is_attached,
    part_of,
)
from make_a_video_pytorch.modules.conv import with_pixels
from make_a_video_pytorch.modules.multihead import split_keys_and_values


class TemporalParts(nn.ModuleDict):
    """The temporal parts of a model, each to run after a module of it.

    What runs is what lies here, and after what stands at the module's name in the model: so
    adapters and other wrappers may be put around either.

    Args:
        model: the image model.
        parts: modules of it, each with what is to run after it.
        clip: which video is going through the model.
    """

    def __init__(
        self, model: nn.Module, parts: list[tuple[nn.Module, nn.Module]], clip: Clip
    ) -> None:
        super().__init__()
        self.names: dict[str, str] = {}  # of the inflated modules, by the key of their part
        places: dict[nn.Module, list[str]] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            places.setdefault(module, []).append(name)
        self.places = [places[module] for module, _ in parts if len(places[module]) > 1]
        for module, part in parts:
            assert isinstance(part, TemporalPart)
            # no name of a module of the model is a suffix of it, as by which adapters find modules
            key = f"after_{part.name or 'model'}".replace(".", "_")
            while key in self:
                key += "_"
            self[key] = part
            self.names[key] = part.name
            attach(module, part, clip)
        self.motion_names = frozenset(self.motion_tensors())

    def follow(self, model: nn.Module, clip: Clip) -> None:
        """Run after what stands at the names in `model` now.

        Raises:
            ValueError: if nothing stands there, if it changed and a compiler is at work, or if
                something is around an inflated module in one of several places.
        """
        if self.places:
            must_be_alike(model, self.places)
        here = {key: layer_at(model, name) for key, name in self.names.items()}
        if all(is_attached(here[key], part, clip) for key, part in self.items()):
            return
        if torch.compiler.is_compiling():
            raise ValueError("`model` has changed: call it on a video once before it is compiled")
        held: dict[nn.Module, nn.Module] = {}
        for module in model.modules():
            if (part := part_of(module)) is not None:
                held[part] = module
        by_name = {getattr(part, "name", None): module for part, module in held.items()}
        found: dict[str, nn.Module] = {}
        for key, part in self.items():
            after = here[key]
            if after is None:  # in a wrapper that is not known, which leaves the hook alone
                after = held.get(part, by_name.get(self.names[key]))
            if after is None:
                raise ValueError(f"`{self.names[key]}`, which is inflated, is no more in `model`")
            found[key] = after
        for module in held.values():
            if module not in found.values():
                detach(module)
        for key, part in self.items():
            attach(found[key], part, clip)

    def not_reached_by(self, call: Callable[[], object]) -> list[str]:
        """The names of the modules whose parts a `call` of the model does not run."""
        reached: set[nn.Module] = set()
        hooks = [
            part.register_forward_pre_hook(lambda part, args: reached.add(part))
            for part in self.values()
        ]
        try:
            call()
        finally:
            for hook in hooks:
                hook.remove()
        return [self.names[key] for key, part in self.items() if part not in reached]

    def prefixes(self) -> dict[str, str]:
        """How the names of the parts begin in a motion module, by their keys."""
        return {key: f"{name}.temporal.".lstrip(".") for key, name in self.names.items()}

    def motion_tensors(self) -> dict[str, tuple[str, Tensor]]:
        """The names here, and the tensors, by their names in a motion module."""
        prefixes = self.prefixes()
        return {
            prefixes[key] + without_wrappers(name): (f"{key}.{name}", tensor)
            for key, part in self.items()
            for name, tensor in part.state_dict().items()
        }

    def motion(self) -> dict[str, Tensor]:
        """See `InflatedModel.temporal_state_dict`."""
        tensors = self.motion_tensors()
        for name in sorted(self.motion_names - tensors.keys()):
            raise ValueError(f"`{name}` is hidden by what is wrapped around it")
        motion = {name: tensors[name][1] for name in tensors if name in self.motion_names}
        for name, tensor in motion.items():
            if tensor.is_meta:
                raise ValueError(f"`{name}` is on meta, as if offloaded: bring it back first")
        return motion

    def load_motion(self, state: Mapping[str, Tensor]) -> None:
        """See `InflatedModel.load_temporal_state_dict`."""
        state = dict(state)
        for prefix in self.prefixes().values():  # as in 1.0.0
            with_pixels(state, prefix + "conv.weight")
            split_keys_and_values(state, prefix + "attn.")
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        expected = {name: tuple(tensor.shape) for name, tensor in self.motion().items()}
        problems = [
            f"{problem} {', '.join(f'`{n}`' for n in sorted(names))}"
            for problem, names in (
                ("has the unknown", shapes.keys() - expected.keys()),
                ("lacks", expected.keys() - shapes.keys()),
            )
            if names
        ]
        if problems:
            raise ValueError(f"`state` {' and '.join(problems)}; see `temporal_state_dict`")
        for name, shape in shapes.items():
            if shape != expected[name]:
                raise ValueError(f"`{name}` in `state` (shape {shape}) must be {expected[name]}")
        here = self.motion_tensors()
        self.load_state_dict({here[name][0]: state[name] for name in state}, strict=False)


def must_be_alike(model: nn.Module, places: list[list[str]]) -> None:
    """Raise a ValueError where what was one module in several `places` is no longer one."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for names in places:
        if len({modules.get(name) for name in names}) > 1:
            listed = ", ".join(f"`{name}`" for name in names)
            raise ValueError(f"{listed} are one module, which is inflated: wrap or replace none")
