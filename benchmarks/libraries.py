"""What it takes to import the libraries beside a CPU build of torch and without a network."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from unittest import mock

import torch

# In this order: those after torchvision import it.
LIBRARIES = (
    "torchvision", "diffusers", "dalle2_pytorch", "denoising_diffusion_pytorch", "imagen_pytorch",
    "timm",
)  # fmt: skip
kept = []  # operators live as long as the library object that defines them


def import_libraries(names: Sequence[str] = LIBRARIES) -> None:
    """Import those of them that are installed, whatever they warn of."""
    special = {"torchvision": import_torchvision, "imagen_pytorch": import_imagen}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            if importlib.util.find_spec(name) is None:
                continue
            if name in special:
                special[name]()
            else:
                importlib.import_module(name)


def import_torchvision() -> None:
    """Import torchvision. The index has CUDA builds only, whose operators a CPU torch lacks."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        operators = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        kept.append(operators)
        importlib.import_module("torchvision")


def import_imagen() -> None:
    """Import imagen-pytorch, which asks a model hub for a text encoder's width while at it."""
    transformers = importlib.import_module("transformers")
    config = transformers.T5Config(d_model=768)
    with mock.patch.object(transformers.T5Config, "from_pretrained", return_value=config):
        importlib.import_module("imagen_pytorch")
