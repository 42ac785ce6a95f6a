"""Classifier-free guidance: Ho and Salimans 2022.

In training, give the U-Net what `drop_conditions` leaves of the conditions. In sampling, call
`guide(unet, scale)` in the place of the U-Net.
"""

from make_a_video_pytorch.guidance.dropping import Conditions, drop_conditions
from make_a_video_pytorch.guidance.guided import guide
from make_a_video_pytorch.guidance.nulls import NullConditions

__all__ = ["Conditions", "NullConditions", "drop_conditions", "guide"]
