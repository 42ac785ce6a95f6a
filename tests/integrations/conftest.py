"""What it takes to import the libraries beside a CPU build of torch and without a network."""

import importlib
import importlib.util
import sys
import warnings
from unittest import mock

import pytest
import torch

LIBRARIES = ("dalle2_pytorch", "imagen_pytorch")
INSTALLED = all(importlib.util.find_spec(name) for name in LIBRARIES)
kept = []  # operators live as long as the library object that defines them


def import_torchvision():
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


def import_libraries():
    """Import both; imagen-pytorch asks a model hub for a text encoder's width while at it."""
    transformers = importlib.import_module("transformers")
    config = transformers.T5Config(d_model=768)
    with mock.patch.object(transformers.T5Config, "from_pretrained", return_value=config):
        for name in LIBRARIES:
            importlib.import_module(name)


if INSTALLED:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_torchvision()
        import_libraries()


@pytest.fixture
def image_embed():
    return torch.randn(2, 6)


@pytest.fixture
def text_encodings():
    """Two texts, of seven and of four tokens."""
    tokens = torch.randn(2, 7, 5)
    tokens[1, 4:] = 0
    return tokens
