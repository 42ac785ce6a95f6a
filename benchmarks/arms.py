"""The arms of `images_first.py`: trainings, at equal operations, and samples of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import torch
from accelerate import Accelerator
from batch import Batch
from building import Encoders
from clips import named
from diffusers import DDPMScheduler
from diffusion import SCHEDULE, averaged, optimizer_for, sample
from draws import Draws, noise_of
from embedding import Embedding
from evaluation import held_out_losses
from fitting import fit
from loading import Source, batches
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from training import loss_of

from benchmarks.domains import Domain, domain, halves
from benchmarks.measure import work
from make_a_video_pytorch import SpaceTimeUnet, spatial_parameters, temporal_parameters
from make_a_video_pytorch.guidance import guide

ALONE = Encoders(None, None)


class Setting(NamedTuple):
    """What all arms share."""

    data: str = "digits"  # or a folder of folders of videos, which bear their names
    size: int = 12
    frames: int = 8
    dim: int = 32
    steps_images: int = 500
    steps_joint: int = 900  # after them: the operations of both are those of each arm
    batch_images: int = 64
    batch_video: int = 8  # clips in a step, or as many frames, some of images
    sampling_steps: int = 20
    guidance: float = 2.0
    looks: int = 6  # at held-out clips, in a training
    judge_steps: int = 800  # of the judges and of the embedding
    device: str = "cpu"

    @property
    def domain(self) -> Domain:
        """What there are clips of."""
        return domain(self.data, self.size, self.frames)


class Arm(NamedTuple):
    """What comes after the images, if those come first."""

    title: str
    images_first: bool = True
    joint: float = 0.0  # share of images among the frames of a step
    named_clips: bool = False
    frozen: bool = False  # the spatial parameters
    identity: bool = True  # which temporal parts are at first
    clips: bool = True
    settings: Mapping[str, object] | None = None  # of the U-Net


ARMS = {
    "clips-alone": Arm("clips alone, named", images_first=False, named_clips=True),
    "all": Arm("images, then clips, all parameters"),
    "frozen": Arm("images, then clips, spatial parameters frozen", frozen=True),
    "joint": Arm("images, then joint batches", joint=0.5),
    "joint-only": Arm("joint batches from the first step", images_first=False, joint=0.5),
    "random": Arm("images, then joint batches, time random at first", joint=0.5, identity=False),
    "still": Arm("images alone, time never trained", clips=False),
}


class Told:
    """Clips of `source`, told of by what `tell` says of them, in the place of their names."""

    def __init__(self, source: Source, tell: Callable[[Batch], Tensor | None]) -> None:
        self.source, self.tell = source, tell

    def __call__(self, count: int, frames: int, generator: Generator) -> Batch:
        batch = self.source(count, frames, generator)
        return batch._replace(names=self.tell(batch))


class Conditioning:
    """By names, or by the embedding of a frame, for which no names are needed.

    Args:
        names: how many there are.
        embedding: of a picture; without it, a condition is a name.
    """

    def __init__(self, names: int, embedding: Embedding | None = None) -> None:
        self.names, self.embedding = names, embedding
        self.dim = names if embedding is None else embedding.dim

    def of(self, source: Source, known: bool = True) -> Source:
        """`source` with its conditions, if its names are `known`; embeddings need none."""
        if self.embedding is not None:
            return Told(source, lambda batch: self.embedding.of_clips(batch.videos))
        return source if known else Told(source, lambda batch: None)

    def asked(self, names: Tensor, generator: Generator) -> Tensor:
        """The conditions that samples of these names (b) follow."""
        if self.embedding is None:
            return named(names, self.names)
        return self.embedding.likely(names, generator)


def unet_of(setting: Setting, conditioning: Conditioning, **settings: object) -> SpaceTimeUnet:
    """The U-Net of the first training (examples/train.py)."""
    arguments = {
        "dim": setting.dim, "channels": setting.domain.channels, "cond_dim": conditioning.dim,
        "dim_mult": (1, 2), "self_attns": (False, True), "temporal_compression": (False, False),
        "resnet_block_depths": (1, 1), "attn_dim_head": 32, "attn_heads": 4,
        "condition_on_fps": False,
    }  # fmt: skip
    return SpaceTimeUnet(**{**arguments, **settings})


@torch.no_grad()
def randomize_time(unet: nn.Module) -> None:
    """Draw anew what is the identity at first, as torch's layers and the original are at first."""
    for parameter in temporal_parameters(unet):
        if parameter.ndim > 1:
            nn.init.kaiming_uniform_(parameter, a=5**0.5)
        elif not parameter.any():  # a bias, or the mix of a token shift
            nn.init.uniform_(parameter, -0.1, 0.1)


class Part(NamedTuple):
    """Of what a step learns from."""

    weight: float
    source: Source
    count: int
    frames: int


def parts_of(
    setting: Setting, conditioning: Conditioning, images: float, named_clips: bool = False
) -> list[Part]:
    """A step of the image phase, all of `images`; or with such a share of them, and clips."""
    known = setting.domain
    of_all = conditioning.of(known.clips(range(known.names)))
    if images == 1:
        return [Part(1.0, of_all, setting.batch_images, 1)]
    clips = conditioning.of(known.clips(halves(known)["seen"]), named_clips)
    frames = setting.batch_video * setting.frames
    parts = [
        Part(images, of_all, round(images * frames), 1),
        Part(1 - images, clips, round((1 - images) * setting.batch_video), setting.frames),
    ]
    return [part for part in parts if part.count]


class Training:
    """A U-Net and what it learns from.

    Args:
        setting: that of all arms.
        conditioning: what the U-Net is told.
        parts: of a step.
        unet: on the CPU; it is moved to the device of the setting.
        seed: what is random follows from it.
    """

    def __init__(
        self,
        setting: Setting,
        conditioning: Conditioning,
        parts: list[Part],
        unet: SpaceTimeUnet,
        seed: int,
    ) -> None:
        self.setting, self.conditioning, self.parts = setting, conditioning, parts
        self.device = torch.device(setting.device)
        self.accelerator = Accelerator(cpu=setting.device == "cpu")
        self.scheduler = DDPMScheduler(**SCHEDULE)
        self.unet, self.seed = unet.to(self.device), seed
        self.ema = averaged(unet).eval()

    def loss(self, steps: range) -> Callable[[nn.Module, Draws], Tensor]:
        """What `fit` asks for, of so many steps."""
        following = [
            (part.weight, batches(part.source, steps, part.count, part.frames, first=0,
                                  seed=self.seed, workers=0))
            for part in self.parts
        ]  # fmt: skip
        return partial(loss_of, self.unet, ALONE, self.scheduler, following, self.device)

    def operations(self) -> int:
        """Floating point operations of a step.

        Attention is counted as products, since torch does not count a CPU's fused kernel.
        """
        loss = self.loss(range(1))
        with sdpa_kernel(SDPBackend.MATH):
            done = work(lambda: loss(self.unet, Draws(self.seed, 0)).backward())
        self.unet.zero_grad()
        return done.flops

    def held_out_losses(self) -> dict[str, float]:
        """Of clips of the names that are seen moving, and of the others."""
        found = {}
        known = self.setting.domain
        for name, which in halves(known).items():
            clips = self.conditioning.of(known.clips(which, held_out=True))
            losses = held_out_losses(
                self.ema.module, ALONE, self.scheduler, clips, self.accelerator,
                frames=self.setting.frames, device=self.device,
            )  # fmt: skip
            found[name] = fmean(losses.values())
        return found

    def run(self, steps: int, lr: float, spent: float = 0.0) -> dict[str, object]:
        """Train; what is told of it counts operations on from those that are `spent`."""
        a_step, looking = self.operations(), 0.0
        clips = sum(part.count for part in self.parts if part.frames > 1)
        looks = {round(steps * (n + 1) / self.setting.looks) for n in range(self.setting.looks)}
        curve: list[dict[str, float]] = []

        def look(step: int) -> None:
            nonlocal looking
            if step in looks:
                began = time.perf_counter()
                at = {"operations": spent + step * a_step, "clips": step * clips}
                curve.append(at | self.held_out_losses())
                looking += time.perf_counter() - began

        began = time.perf_counter()
        losses = fit(
            self.accelerator, self.unet, self.ema, optimizer_for(self.unet),
            self.loss(range(steps)), phase="training", steps=range(steps), lr=lr, seed=self.seed,
            batch=sum(part.count for part in self.parts), after_step=look,
        )  # fmt: skip
        return {
            "steps": steps, "operations": steps * a_step, "clips": steps * clips, "curve": curve,
            "seconds": time.perf_counter() - began - looking, "loss": fmean(losses[-50:]),
        }  # fmt: skip


def train_images(
    setting: Setting, conditioning: Conditioning, seed: int, lr: float
) -> tuple[SpaceTimeUnet, dict[str, object]]:
    """The image phase, which the arms of a seed share."""
    torch.manual_seed(seed)
    unet = unet_of(setting, conditioning)
    training = Training(setting, conditioning, parts_of(setting, conditioning, 1.0), unet, seed)
    record = training.run(setting.steps_images, lr)
    return training.ema.module, record


def budget(setting: Setting, conditioning: Conditioning) -> tuple[int, int]:
    """Operations of the image phase, and of a whole training: images, then joint batches."""
    images, joint = (
        Training(
            setting, conditioning, parts_of(setting, conditioning, share),
            unet_of(setting, conditioning), 0,
        ).operations()
        for share in (1.0, 0.5)
    )  # fmt: skip
    first = images * setting.steps_images
    return first, first + joint * setting.steps_joint


def train_arm(
    setting: Setting,
    conditioning: Conditioning,
    arm: Arm,
    seed: int,
    lr: float,
    image_model: dict[str, Tensor],
) -> tuple[SpaceTimeUnet, dict[str, object]]:
    """The U-Net of an arm, averaged, and what its training was.

    An arm that learns from images first goes on from the weights of the `image_model`.
    """
    torch.manual_seed(seed)
    unet = unet_of(setting, conditioning, **(arm.settings or {}))
    spent, total = budget(setting, conditioning)
    if arm.images_first:
        # temporal parts of a setting of its own stay as they are at first
        names = unet.state_dict().keys()
        unet.load_state_dict({k: v for k, v in image_model.items() if k in names}, strict=False)
    else:
        spent = 0
    if not arm.clips:
        return unet, {"steps": 0, "operations": 0, "clips": 0, "curve": [], "seconds": 0.0}
    if not arm.identity:
        randomize_time(unet)
    if arm.frozen:
        for parameter in spatial_parameters(unet):
            parameter.requires_grad_(False)
    parts = parts_of(setting, conditioning, arm.joint, arm.named_clips)
    training = Training(setting, conditioning, parts, unet, seed)
    steps = round((total - spent) / training.operations())
    record = training.run(steps, lr, spent)
    return training.ema.module, record


@torch.no_grad()
def samples(
    setting: Setting, unet: SpaceTimeUnet, conditioning: Conditioning, asked: Tensor, seed: int
) -> Tensor:
    """Clips (b c f h w) of the names that are `asked` for (b)."""
    generator = Generator().manual_seed(90_000 + seed)
    unet.to(setting.device).eval()
    made = []
    for some in asked.split(50):
        cond = conditioning.asked(some, generator).to(setting.device)
        shape = (len(some), unet.channels, setting.frames, setting.size, setting.size)
        model = partial(guide(unet, setting.guidance), cond=cond)
        noise = noise_of(shape, generator)
        made.append(sample(model, noise, setting.sampling_steps, setting.device, shown=False))
    return torch.cat(made)
