"""Decoders of the smallest U-Nets."""

import pytest

from tests.integrations.small import UNET

WHY = 'dalle2-pytorch is missing: pip install -c constraints.txt -e ".[test-integrations]"'
pytest.importorskip("dalle2_pytorch", reason=WHY)

from make_a_video_pytorch.integrations.dalle2 import (  # noqa: E402
    SpaceTimeUnetForDalle2,
    VideoDecoder,
)

IMAGE = {"image_embed_dim": 6}
TEXT = {"text_embed_dim": 5, "cond_on_text_encodings": True}


def unet(**arguments):
    return SpaceTimeUnetForDalle2(**UNET, **arguments)


def decoder(*unets, kind=VideoDecoder, **arguments):
    arguments = {"timesteps": 4, "image_size": 8} | arguments
    if "image_sizes" in arguments:
        del arguments["image_size"]
    return kind(unets if len(unets) > 1 else unets[0], **arguments)
