"""What a training loop around a video U-Net easily gets wrong.

Frames to keep while others are filled in: `kept_frames`, and `every`, `head`, `tail` and `at` to
say which. Clips at a frame rate: `sample_fps` and `sample_clip`. Noise that frames share:
`mixed_noise` and `progressive_noise`. Videos without end: `frame_timesteps`, `each_frame` and
`teacher_forced` to train for them, `roll_out` to sample them.
"""

from make_a_video_pytorch.recipes.kept import at, every, head, kept_frames, tail
from make_a_video_pytorch.recipes.levels import each_frame, frame_timesteps
from make_a_video_pytorch.recipes.noise import mixed_noise, progressive_noise
from make_a_video_pytorch.recipes.rates import sample_clip, sample_fps
from make_a_video_pytorch.recipes.rolling import roll_out, teacher_forced

__all__ = [
    "at",
    "each_frame",
    "every",
    "frame_timesteps",
    "head",
    "kept_frames",
    "mixed_noise",
    "progressive_noise",
    "roll_out",
    "sample_clip",
    "sample_fps",
    "tail",
    "teacher_forced",
]
