"""At home in diffusers: its models, a pipeline, motion files, folders of a cascade."""

from __future__ import annotations

try:
    import diffusers  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError("this needs diffusers: pip install diffusers") from error

from make_a_video_pytorch.integrations.diffusers_cascade import load_cascade, save_cascade
from make_a_video_pytorch.integrations.diffusers_control import ControlBranchModel
from make_a_video_pytorch.integrations.diffusers_inflated import InflatedDiffusersModel
from make_a_video_pytorch.integrations.diffusers_pipeline import (
    TextToVideoPipeline,
    TextToVideoPipelineOutput,
)
from make_a_video_pytorch.integrations.diffusers_unet import SpaceTimeUnetModel, VideoOutput
from make_a_video_pytorch.integrations.motion_file import load_motion, save_motion

__all__ = [
    "ControlBranchModel",
    "InflatedDiffusersModel",
    "SpaceTimeUnetModel",
    "TextToVideoPipeline",
    "TextToVideoPipelineOutput",
    "VideoOutput",
    "load_cascade",
    "load_motion",
    "save_cascade",
    "save_motion",
]
