"""Stages, one after another.

Letters: b batch, c channels, f frames, h height, w width.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from make_a_video_pytorch.cascade.asked import count_of
from make_a_video_pytorch.cascade.done import Done, digest
from make_a_video_pytorch.cascade.frames import seed_of
from make_a_video_pytorch.cascade.stage import Stage
from make_a_video_pytorch.ops.checks import typechecked
from make_a_video_pytorch.recipes.denoising import steps_of

Prior = Callable[[Sequence[str]], "Tensor | Mapping[str, Tensor]"]
Progress = Callable[[str, int, int], object]


class Cascade:
    """From words to a video: a prior, and stages that each go on from what the last one made.

    Make-A-Video (Singer et al. 2022, equation 1): SR_h . SR_l^t . upF . D^t . P. Stages are looked
    up by their names in `stages`, where one may be put in the place of another.

    Args:
        stages: by name, in their order. The first one is a `Decoder`, or any other if a video is
            given to begin with.
        prior: from texts to image embeddings (b d), which are then the condition `cond`, or to
            conditions by name, such as the tokens and the mask of a text encoder.

    Attributes:
        stages: as given, a dict.
        prior: as given.

    Raises:
        TypeError: if an argument is of a wrong type.
        ValueError: if there is no stage, or one makes what the next one does not take.

    Example:
        >>> from diffusers import DDIMScheduler
        >>> options = dict(dim=8, attn_dim_head=8, attn_heads=2)
        >>> decoder = SpaceTimeUnet(cond_dim=6, **options)
        >>> cascade = Cascade({
        ...     "decoder": Decoder(decoder, DDIMScheduler(), size=(16, 16), frames=8, steps=2),
        ...     "interpolation": Interpolation(
        ...         decoder.grow(cond_channels=4), DDIMScheduler(), size=(16, 16), factor=2,
        ...         window=8, overlap=2, steps=2,
        ...     ),
        ...     "super_resolution": SuperResolution(
        ...         SpaceTimeUnet(cond_channels=3, **options), DDIMScheduler(), size=(32, 32),
        ...         size_before=(16, 16), window=8, enable_time=False, alpha=float("inf"), steps=2,
        ...     ),
        ... })
        >>> cascade(cond=torch.randn(1, 6)).shape
        torch.Size([1, 3, 15, 32, 32])
    """

    @typechecked
    def __init__(self, stages: Mapping[str, Stage], prior: Prior | None = None) -> None:
        self.stages = dict(stages)
        self.prior = prior
        self.must_fit()

    def must_fit(self) -> None:
        """Raise a ValueError that names a stage which does not take what the last one makes."""
        if not self.stages:
            raise ValueError("`stages` must have one at least")
        for name, stage in self.stages.items():
            if not re.fullmatch(r"\w[\w -]*", name):  # of a folder
                raise ValueError(f"`stages` (with {name!r}) must have names of letters and digits")
            stage.must_be_valid()
        for name, following in itertools.pairwise(self.stages):
            makes, takes = self.stages[name].size, self.stages[following].size_taken
            if makes != takes:
                raise ValueError(
                    f"`stages[{following!r}]` (which takes {takes}) must take the size that "
                    f"`stages[{name!r}]` makes, {makes}"
                )

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        *,
        video: Tensor | None = None,
        batch: int | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
        after_stage: Callable[[str, Tensor], object] | None = None,
        **conditions: Tensor | float,
    ) -> Tensor:
        """Sample videos (b c f h w), on the CPU.

        Args:
            text: what they are to show, one or more texts for the prior.
            video: what the first stage goes on from (b c f h w), if it is no `Decoder`.
            batch: how many, if neither texts, nor a video, nor conditions (b ...) say it.
            seed: all that is random follows from it.
            device: where to compute; for each stage that of its model if None.
            dtype: of what the models are given; for each stage that of its model if None.
            checkpoint: a folder in which each window is kept when it is done. A call with the same
                one goes on from there. It holds this one run; that weights, prior and device are
                the same, it cannot know.
            progress: called after each step of denoising with the name of the stage, the steps
                that are done, and those in all.
            after_stage: called with the name of each stage and the videos that it made.
            conditions: those that stages take, tensors (b ...) or numbers. `fps` is that of the
                decoder's clip, or of `video`, and stages are told that of what they make.

        Raises:
            TypeError: if a condition is neither.
            ValueError: if no stage takes a condition, texts come without a prior, or numbers of
                videos differ, or if `checkpoint` is of another run.
        """
        self.must_fit()
        texts = [text] if isinstance(text, str) else text
        if texts is not None and self.prior is None:
            raise ValueError(f"`text` (={text!r}) must be left out: there is no `prior`")
        self.must_be_taken(conditions)
        count = count_of(batch, {"text": texts, "video": video, **conditions})
        frames = [0 if video is None else video.shape[2]]
        for stage in self.stages.values():  # before one is computed for long
            frames.append(stage.parts(frames[-1])[-1].stop)
        asked = {
            "text": texts, "seed": seed, "dtype": str(dtype), "batch": count,
            "video": digest(video), "order": list(self.stages),
            **{name: digest(value) for name, value in conditions.items()},
            **{f"stages[{name!r}]": described(stage) for name, stage in self.stages.items()},
        }  # fmt: skip
        done = None if checkpoint is None else Done(Path(checkpoint), asked)
        if texts is not None:
            conditions = {**self.embedded(texts, seed, done), **conditions}
            self.must_be_taken(conditions)
        fps = conditions.get("fps")
        for (name, stage), before in zip(self.stages.items(), frames, strict=False):
            if fps is not None and before:
                fps = fps * stage.faster
            told = {k: fps if k == "fps" else v for k, v in conditions.items() if k in stage.taken}
            each = steps_of(stage.scheduler, stage.steps)
            files = Files(name, done, Steps(name, len(stage.parts(before)), each, progress))
            video = stage(
                video, batch=count, seed=seed_of(seed, name), device=device, dtype=dtype,
                after_step=files.steps.one, made=files.made, after_window=files.keep, **told,
            )  # fmt: skip
            if after_stage is not None:
                after_stage(name, video)
        assert video is not None
        return video

    def embedded(
        self, texts: Sequence[str], seed: int, done: Done | None
    ) -> dict[str, Tensor | float]:
        """The conditions that the prior makes of texts, or has made in the run before."""
        assert self.prior is not None
        found = None if done is None else done.tensors("prior")
        if found is None:
            devices = range(torch.cuda.device_count())
            with torch.random.fork_rng(devices), torch.no_grad():
                torch.manual_seed(seed)
                made = self.prior(texts)
            found = {"cond": made} if isinstance(made, Tensor) else dict(made)
            if done is not None:
                done.keep("prior", found)
        return {**found}

    def must_be_taken(self, conditions: Mapping[str, object]) -> None:
        """Raise an error for a condition of which no stage knows."""
        taken = {name for stage in self.stages.values() for name in stage.taken}
        for name, value in conditions.items():
            if name not in taken:
                raise ValueError(
                    f"`{name}` must be left out, since no stage takes it: they take "
                    f"`{'`, `'.join(sorted(taken))}`"
                )
            if not isinstance(value, (Tensor, int, float)):
                raise TypeError(f"`{name}` (a {type(value).__name__}) must be a number or a tensor")


class Steps:
    """Counts the steps of a stage."""

    def __init__(self, name: str, total: int, each: int, progress: Progress | None) -> None:
        self.name, self.total, self.each, self.progress = name, total * each, each, progress
        self.taken = 0

    def one(self) -> None:
        """One is taken."""
        self.upto(self.taken + 1)

    def window(self, number: int) -> None:
        """All of this window are."""
        self.upto((number + 1) * self.each)

    def upto(self, taken: int) -> None:
        """So many are, in all."""
        if taken > self.taken and self.progress is not None:
            self.progress(self.name, taken, self.total)
        self.taken = taken


class Files:
    """The windows of a stage, as they are kept."""

    def __init__(self, name: str, done: Done | None, steps: Steps) -> None:
        self.name, self.done, self.steps = name, done, steps

    def made(self, number: int) -> Tensor | None:
        """What is kept of a window, if it is."""
        found = None if self.done is None else self.done.tensors(f"{self.name}/{number:05d}")
        if found is None:
            return None
        self.steps.window(number)
        return found["video"]

    def keep(self, number: int, video: Tensor) -> None:
        """Keep the new frames of a window."""
        if self.done is not None:
            self.done.keep(f"{self.name}/{number:05d}", {"video": video})
        self.steps.window(number)


def described(stage: Stage) -> dict[str, object]:
    """What the result of a stage depends on, beside the weights of its model."""
    found: dict[str, object] = {"type": type(stage).__name__, **stage.settings}
    for name, part in (("scheduler", stage.scheduler), ("model", stage.model)):
        config = getattr(part, "config", None)
        if isinstance(config, Mapping):  # what diffusers adds to it is not always the same
            own = {key: str(config[key]) for key in config if not key.startswith("_")}
            found[f"{name} config"] = own
        found[name] = type(part).__name__
    return found
