"""What a stage of a cascade is set to.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from make_a_video_pytorch.cascade.asked import taken_by
from make_a_video_pytorch.cascade.frames import Window, as_size, windows
from make_a_video_pytorch.ops.checks import at_least, must_be_multiple
from make_a_video_pytorch.recipes.denoising import Scheduler


class Settings(ABC):
    """The arguments of a stage, as attributes, and what follows from them: see `Stage`."""

    channels = 3  # where nothing comes before that says it

    def __init__(
        self,
        model: Callable[..., object],
        scheduler: Scheduler,
        size: Sequence[int],
        window: int,
        overlap: int,
        steps: int,
        guidance: float,
        takes: Sequence[str] | None,
        alpha: float,
    ) -> None:
        self.model = model
        self.scheduler = scheduler
        self.size = as_size("size", size)
        self.window = window
        self.overlap = overlap
        self.steps = steps
        self.guidance = guidance
        self.takes = takes
        self.alpha = alpha

    @property
    def settings(self) -> dict[str, object]:
        """The constructor's arguments but for model and scheduler, fit for JSON."""
        names = [*inspect.signature(type(self)).parameters][2:]
        values = {name: getattr(self, name) for name in names}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @property
    def taken(self) -> tuple[str, ...]:
        """The names of the conditions that the model is given, where there are such."""
        return taken_by(self.model) if self.takes is None else tuple(self.takes)

    @property
    def faster(self) -> int:
        """Frames per second, as a multiple of those of what comes before."""
        return 1

    @property
    def size_taken(self) -> tuple[int, int] | None:
        """Height and width of what comes before; None for what is the first."""
        return self.size

    def must_be_valid(self) -> None:
        """Raise an error that names an attribute which is out of range."""
        self.size = as_size("size", self.size)
        at_least(1, window=self.window, steps=self.steps)
        at_least(0, overlap=self.overlap)
        if self.overlap >= self.window:
            raise ValueError(f"`overlap` (={self.overlap}) must be below `window` (={self.window})")
        if not self.alpha >= 0:
            raise ValueError(f"`alpha` (={self.alpha}) must be at least 0")
        if isinstance(self.takes, str):
            raise TypeError(f"`takes` (={self.takes!r}) must be a list of names")

    def parts(self, frames: int) -> list[Window]:
        """The windows of what it makes of so many frames.

        Raises:
            ValueError: if its model does not take so many at once.
        """
        self.must_be_valid()
        found = windows(self.frames_of(frames), self.window, self.overlap)
        model = getattr(self.model, "unet", self.model)
        multiple = getattr(model, "frame_multiple", 1)
        if found[0].frames > 1 and isinstance(multiple, int):
            must_be_multiple(multiple, "as the `model` asks for", frames=found[0].frames)
        return found

    @abstractmethod
    def frames_of(self, frames: int) -> int:
        """How many frames it makes of so many."""

    @property
    def kind(self) -> str:
        """What is called here, so that stages of other kinds have noise of their own."""
        return type(self).__name__
