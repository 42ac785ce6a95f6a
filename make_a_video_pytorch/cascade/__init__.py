"""The whole of Make-A-Video (Singer et al. 2022, section 3): from words to a long, large video.

A `Cascade` has stages one after another: a `Decoder`, an `Interpolation` and as many of
`SuperResolution` as one likes. Each can be trained, run, swapped and saved alone.
"""

from make_a_video_pytorch.cascade.cascade import Cascade
from make_a_video_pytorch.cascade.decoder import Decoder
from make_a_video_pytorch.cascade.interpolation import Interpolation
from make_a_video_pytorch.cascade.stage import Stage
from make_a_video_pytorch.cascade.super_resolution import SuperResolution

__all__ = ["Cascade", "Decoder", "Interpolation", "Stage", "SuperResolution"]
