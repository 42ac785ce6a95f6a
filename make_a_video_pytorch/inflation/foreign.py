"""Modules of other libraries: attention, wrappers around a module, hooks.

Nothing is imported: a class is known by its path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

# Attention of pixels (or patches) to each other. Attention within windows (Swin) is left out, since
# the windows lie in the batch there.
SELF_ATTENTION = frozenset(
    {
        "dalle2_pytorch.dalle2_pytorch.Attention",
        "dalle2_pytorch.dalle2_pytorch.LinearAttention",
        "denoising_diffusion_pytorch.classifier_free_guidance.Attention",
        "denoising_diffusion_pytorch.classifier_free_guidance.LinearAttention",
        "denoising_diffusion_pytorch.denoising_diffusion_pytorch.Attention",
        "denoising_diffusion_pytorch.denoising_diffusion_pytorch.LinearAttention",
        "denoising_diffusion_pytorch.guided_diffusion.Attention",
        "denoising_diffusion_pytorch.guided_diffusion.LinearAttention",
        "denoising_diffusion_pytorch.repaint.Attention",
        "denoising_diffusion_pytorch.repaint.LinearAttention",
        "denoising_diffusion_pytorch.simple_diffusion.Attention",
        "denoising_diffusion_pytorch.simple_diffusion.LinearAttention",
        "diffusers.models.attention_processor.Attention",
        "guided_diffusion.unet.AttentionBlock",
        "imagen_pytorch.imagen_pytorch.Attention",
        "imagen_pytorch.imagen_pytorch.LinearAttention",
        "k_diffusion.layers.SelfAttention2d",
        "timm.layers.attention.Attention",
        "timm.layers.attention.AttentionRope",
        "timm.layers.diff_attention.DiffAttention",
        "timm.models.beit.Attention",
        "timm.models.eva.EvaAttention",
        "timm.models.vision_transformer.Attention",
        "timm.models.vision_transformer_relpos.RelPosAttention",
    }
)

# A class of which one holds a copy for each adapter, and the original.
SEVERAL = "peft.utils.other.AuxiliaryTrainingWrapper"

# Classes that stand in the place of a module, and the child under which they hold it.
WRAPPERS = {
    "peft.peft_model.PeftModel": "base_model",
    "peft.tuners.tuners_utils.BaseTuner": "model",
    "peft.tuners.tuners_utils.BaseTunerLayer": "base_layer",
    SEVERAL: "original_module",
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.ActivationWrapper":
        "_checkpoint_wrapped_module",
}  # fmt: skip

WRAPPED = tuple(WRAPPERS.values())  # torch 2.6 cannot compile a set of them

# What the last projection of an attention module is called.
PROJECTIONS = ("to_out", "proj_out", "out_proj", "proj")


def paths_of(module: nn.Module) -> set[str]:
    """The path of the class of `module`, and those of its bases."""
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__}


def is_known_attention(module: nn.Module) -> bool:
    """Whether `module` is self-attention of a class in the table, or of a subclass."""
    if paths_of(module).isdisjoint(SELF_ATTENTION):
        return False
    # One class of diffusers serves both. With added keys its pixels see each other beside the text.
    only_context = getattr(module, "is_cross_attention", False)
    return not only_context or getattr(module, "added_kv_proj_dim", None) is not None


def wrapped_in(module: nn.Module) -> nn.Module | None:
    """What `module` is wrapped around, if it is a known wrapper."""
    children = module._modules
    if not any(name in children for name in WRAPPED):  # as nearly all, at each call
        return None
    for path in paths_of(module) & WRAPPERS.keys():
        return module._modules.get(WRAPPERS[path])
    return None


def unwrapped(module: nn.Module) -> nn.Module:
    """What is inside the wrappers around a module."""
    while (inner := wrapped_in(module)) is not None:
        module = inner
    return module


def named_layers(model: nn.Module) -> Iterator[tuple[str, list[nn.Module], nn.Module]]:
    """The modules of `model`, each once, as if there were no wrappers around them.

    Yields:
        name: without what wrappers add to it.
        path: the modules from `model` to what stands at that name, wrappers among them.
        module: what is inside it.
    """
    seen = set()

    def walk(
        name: str, path: list[nn.Module]
    ) -> Iterator[tuple[str, list[nn.Module], nn.Module]]:
        module = unwrapped(path[-1])
        if module in seen:
            return
        seen.add(module)
        yield name, path, module
        for key, child in module.named_children():
            yield from walk(f"{name}.{key}" if name else key, [*path, child])

    return walk("", [model])


def layer_at(model: nn.Module, name: str) -> nn.Module | None:
    """What stands in `model` at a `name` of `named_layers` now, with what is wrapped around it."""
    module = model
    for key in name.split(".") if name else ():
        child = child_at(module, key)
        if child is None:
            return None
        module = child
    return module


def child_at(module: nn.Module, key: str) -> nn.Module | None:
    """The child at `key` of `module`, or of what it is wrapped around."""
    inner = wrapped_in(module)
    if inner is not None and SEVERAL not in paths_of(module):
        return child_at(inner, key)
    child = module._modules.get(key)
    if child is None:  # as in a wrapper, which passes on what the module has that runs
        child = getattr(module, key, None)
    return child if isinstance(child, nn.Module) else None


def without_wrappers(name: str) -> str:
    """The `name` of a tensor without what wrappers add to it, where they hold it alone."""
    added = {child for path, child in WRAPPERS.items() if path != SEVERAL}
    return ".".join(part for part in name.split(".") if part not in added)


def where_it_computes(
    path: Iterable[nn.Module],
) -> tuple[torch.device | None, torch.dtype | None]:
    """The device and the dtype to which hooks bring the weights of the modules of `path`.

    The hooks are those of accelerate (offloading) and of diffusers (layerwise casting, group
    offloading). The last one that says is right; None where none says.
    """
    device = dtype = None
    for module in path:
        hook: object = getattr(module, "_hf_hook", None)
        registry: object = getattr(module, "_diffusers_hook", None)
        hooks: list[object] = [hook, *getattr(hook, "hooks", ())]
        hooks += getattr(registry, "hooks", {}).values()
        for hook in hooks:
            offloaded: object = getattr(hook, "group", None)
            found = getattr(hook, "execution_device", getattr(offloaded, "onload_device", None))
            device = device if found is None else torch.device(found)
            dtype = getattr(hook, "compute_dtype", dtype)
    return device, dtype


def channels_out(module: nn.Module) -> int | None:
    """The channels that an attention `module` gives: those of its last projection, if it has one.

    That is the projection with a usual name, or the one that was registered last.
    """
    named = (getattr(module, name, None) for name in PROJECTIONS)
    projection = next((part for part in named if isinstance(part, nn.Module)), module)
    channels = None
    for _, _, part in named_layers(projection):
        for size in ("out_features", "out_channels"):  # quantised layers have them too
            channels = vars(part).get(size, channels)
    return channels
