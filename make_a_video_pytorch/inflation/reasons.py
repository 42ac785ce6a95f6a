"""Why an image model may have failed on the frames of a video.

Letters: b batch, c channels, f frames, h height, w width. A clip is (b, f).
"""

from __future__ import annotations

import re

from torch import Tensor

from make_a_video_pytorch.inflation.folding import called, map_arguments

# What is raised where the sizes of arguments do not fit, and what it says then. Of these classes
# alone, since the subclasses of others mean something to those who catch them.
SIZE_ERRORS = (RuntimeError, ValueError, IndexError, AssertionError)
OF_SIZES = re.compile(
    r"\b(sizes?|shapes?|dims?|dimensions?|channels|elements|\dd)\b|value of tensor", re.IGNORECASE
)


def reason_for(
    error: Exception,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    clip: tuple[int, int],
) -> str | None:
    """What to say of an `error` that an image model raised, given these arguments for a `clip`.

    None if it is not about sizes, or if none of them may explain it: a video may whose folded
    shape it names, and so may an argument of the shape (b f ...) that is not marked by
    `per_frame`.
    """
    (b, f), text = clip, str(error)
    if type(error) not in SIZE_ERRORS or not OF_SIZES.search(text):
        return None
    hints: list[str] = []
    videos: list[str] = []

    def collect(leaf: object, name: str) -> object:
        if not isinstance(leaf, Tensor):
            return leaf
        if leaf.ndim == 5:
            videos.append(name)
            if str([b * f, leaf.shape[1], *leaf.shape[3:]]) in text:
                hints.append(
                    f"{called(name, leaf)} was taken for a video (b c f h w), {f} frames of "
                    f"{leaf.shape[1]} channels"
                )
        if leaf.shape[:2] == clip and f > 1 and videos != [name]:
            hints.append(
                f"{called(name, leaf)} must be marked by `per_frame` if it has an entry for each "
                f"of the {f} frames, (b f ...)"
            )
        return leaf

    map_arguments(collect, args, kwargs)
    return "; ".join([f"{type(error).__name__}: {text}", *hints]) if hints else None
