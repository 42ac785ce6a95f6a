import pytest
import torch

from benchmarks.libraries import import_libraries

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
