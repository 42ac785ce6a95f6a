"""How what is seen in a clip moves: in a straight line, with bounces, if it is a moving digit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FEWEST_FRAMES = 4  # of which there is a jerk
PATHS = 64  # starts, and half of the velocities, that are tried for the best straight path


def centres(videos: Tensor) -> Tensor:
    """Where the brightness of each frame lies: (b c f h w) in [-1, 1] -> (b f 2), pixels (x y).

    What is almost black does not count, so that a background that is not quite black does not pull
    the centre to the middle.
    """
    mass = ((videos.mean(1) + 1) / 2 - 0.1).clamp(min=0).double() + 1e-9  # b f h w
    x, y = (torch.arange(size, dtype=mass.dtype) for size in (mass.shape[-1], mass.shape[-2]))
    total = mass.sum((-2, -1))
    return torch.stack(((mass.sum(-2) @ x) / total, (mass.sum(-1) @ y) / total), dim=-1)


class Motion(NamedTuple):
    """A number (b) for each clip."""

    speed: Tensor  # pixels a frame
    jerk: Tensor  # the size of the third difference of the centre, in pixels
    displacement: Tensor  # from the first frame to the last, in pixels
    off_path: Tensor  # how far from the best straight path with bounces, in pixels


def motion(videos: Tensor, reach: float) -> Motion:
    """How the centre of each clip (b c f h w) moves that bounces `reach` pixels from the middle."""
    path = centres(videos)
    return Motion(
        speed=path.diff(dim=1).norm(dim=-1).mean(1),
        jerk=path.diff(n=3, dim=1).norm(dim=-1).mean(1),
        displacement=(path[:, -1] - path[:, 0]).norm(dim=-1),
        off_path=off_path(path, reach),
    )


def bouncing(start: Tensor, velocity: Tensor, frames: int, reach: float) -> Tensor:
    """A straight path folded back into [-reach, reach], of each start and velocity: (... f)."""
    line = start[..., None] + torch.arange(frames) * velocity[..., None]
    return (line.remainder(4 * reach) - 2 * reach).abs() - reach


def off_path(path: Tensor, reach: float) -> Tensor:
    """How far centres (b f 2) are from the best straight path with bounces: (b), pixels.

    Root mean square. Height and width are fitted apart, on a grid of starts and of velocities up to
    a pixel a frame; how far the centre of a digit is from the middle of its scan is free.
    """
    starts = torch.arange(PATHS, dtype=path.dtype) / PATHS * 4 * reach
    velocities = torch.linspace(-1, 1, 2 * PATHS + 1, dtype=path.dtype)
    tried = bouncing(starts[:, None], velocities, path.shape[1], reach).flatten(0, 1)
    tried = tried - tried.mean(-1, keepdim=True)
    centred = (path - path.mean(1, keepdim=True)).movedim(-1, 1)  # b 2 f
    nearest = torch.cdist(centred, tried.expand(len(path), -1, -1)).amin(-1)  # b 2
    return nearest.square().sum(-1).div(path.shape[1]).sqrt()
