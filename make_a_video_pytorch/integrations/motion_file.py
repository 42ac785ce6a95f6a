"""Motion modules as files that say what they belong to, which `diffusers` exports."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from make_a_video_pytorch.inflation.foreign import unwrapped
from make_a_video_pytorch.inflation.inflate import inflate
from make_a_video_pytorch.inflation.inflated import InflatedModel
from make_a_video_pytorch.inflation.temporal import InflatedAttention, InflatedConv


@dataclass(frozen=True)
class Inflation:
    """What a model was inflated with.

    Attributes:
        convs: the names of the inflated convolutions.
        attentions: the names of the inflated attention modules.
        temporal_kernel_size: frames that a convolution sees; None if there is none.
        heads: heads of attention over frames; None if there is none.
        dim_head: their width.
        causal: whether no frame sees later ones.
        temporal_window: frames that attention sees on either side; None for all.
    """

    convs: list[str]
    attentions: list[str]
    temporal_kernel_size: int | None = None
    heads: int | None = None
    dim_head: int | None = None
    causal: bool = False
    temporal_window: int | None = None

    @classmethod
    def of(cls, video_model: InflatedModel[nn.Module]) -> Inflation:
        """What `video_model` was inflated with."""
        convs: list[str] = []
        attentions: list[str] = []
        sizes: dict[str, int | None] = {}
        causal = False
        for key, part in video_model.temporal.items():
            inner, name = unwrapped(part), video_model.temporal.names[key]
            if isinstance(inner, InflatedConv):
                convs.append(name)
                sizes["temporal_kernel_size"] = sum(inner.around) + 1
                causal = inner.causal
            elif isinstance(inner, InflatedAttention):
                attentions.append(name)
                sizes["heads"], sizes["dim_head"] = inner.attn.heads, inner.attn.dim_head
                sizes["temporal_window"], causal = inner.window, inner.causal
        return cls(convs, attentions, **sizes, causal=causal)

    def inflate(self, model: nn.Module) -> InflatedModel[nn.Module]:
        """Inflate `model` so."""
        names = {*self.convs, *self.attentions}
        sizes = {"temporal_kernel_size": self.temporal_kernel_size, "heads": self.heads,
                 "dim_head": self.dim_head, "temporal_window": self.temporal_window}  # fmt: skip
        return inflate(
            model,
            attention=[type(unwrapped(model.get_submodule(name))) for name in self.attentions],
            where=lambda name, module: name in names,
            causal=self.causal,
            **{name: size for name, size in sizes.items() if size is not None},
        )

    def must_be(self, saved: Inflation, path: str | Path) -> None:
        """Raise a ValueError that names an argument of `inflate` by which `saved` differs."""
        for name in ("temporal_kernel_size", "heads", "dim_head", "causal", "temporal_window"):
            here, there = getattr(self, name), getattr(saved, name)
            if here != there:
                raise ValueError(
                    f"`{name}` (={here}) must be {there}, with which the model of the motion in "
                    f"{path} was inflated"
                )
        for kind, argument in (("convs", "where"), ("attentions", "attention")):
            here, there = set(getattr(self, kind)), set(getattr(saved, kind))
            if here != there:
                listed = ", ".join(f"`{name}`" for name in sorted(here ^ there)[:3])
                raise ValueError(
                    f"`{argument}` must choose the {kind} of the motion in {path}: "
                    f"{len(there - here)} of them are not inflated here, and {len(here - there)} "
                    f"were not inflated there, as {listed}"
                )


def save_motion(video_model: InflatedModel[nn.Module], path: str | Path) -> None:
    """Write the motion of an inflated model into a safetensors file, and what it was inflated with.

    Args:
        video_model: what `inflate` gave.
        path: the file.

    Raises:
        ValueError: if parameters of the temporal parts are hidden or offloaded.

    Example:
        >>> save_motion(inflate(nn.Conv2d(3, 3, 3)), folder / "motion.safetensors")
    """
    metadata = {"format": "pt", "inflation": json.dumps(asdict(Inflation.of(video_model)))}
    motion = {name: t.contiguous() for name, t in video_model.temporal_state_dict().items()}
    save_file(motion, path, metadata=metadata)


def load_motion(video_model: InflatedModel[nn.Module], path: str | Path) -> None:
    """Load the motion that `save_motion` wrote, into a model that was inflated alike.

    A file that does not say what it was inflated with is loaded by the names of its tensors.

    Args:
        video_model: what `inflate` gave.
        path: the file.

    Raises:
        ValueError: if the motion is of a model that was inflated in another way; the message names
            the argument that differs.

    Example:
        >>> save_motion(inflate(nn.Conv2d(3, 3, 3)), folder / "motion.safetensors")
        >>> load_motion(inflate(nn.Conv2d(3, 3, 3)), folder / "motion.safetensors")
    """
    with safe_open(path, framework="pt") as file:
        inflation = (file.metadata() or {}).get("inflation")
    if inflation is not None:
        Inflation.of(video_model).must_be(Inflation(**json.loads(inflation)), path)
    video_model.load_temporal_state_dict(load_file(path))
