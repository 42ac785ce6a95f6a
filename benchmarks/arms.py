"""The arms of `images_first.py`: trainings, at equal operations, and samples of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import torch
from accelerate import Accelerator
from batch import Batch
from building import SMALL, Encoders
from clips import named
from diffusion import averaged, optimizer_for, sample
from draws import Draws, noise_of
from embedding import Embedding
from evaluation import denoising_of, held_out_losses
from fitting import fit
from loading import Source, batches
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from training import loss_of

from benchmarks.domains import Domain, domain, halves
from benchmarks.measure import work
from make_a_video_pytorch import SpaceTimeUnet, spatial_parameters, temporal_parameters
from make_a_video_pytorch.guidance import guide

PLAIN = Encoders(None, None)  # of pixels, and no texts
Led = Callable[[nn.Module, float], Callable[..., Tensor]]  # a U-Net and a scale -> what to sample


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


CONDITIONS = ("name", "embedding")


class Images(NamedTuple):
    """What the image phase of an arm has that those of others have not."""

    settings: Mapping[str, object] = MappingProxyType({})  # of the U-Net
    longer: float = 1.0  # than that of other arms
    width: int = 16  # of the embedding

    def steps(self, setting: Setting) -> int:
        """How many it takes."""
        return round(self.longer * setting.steps_images)


SHARED = Images()


class Arm(NamedTuple):
    """What comes after the images, if those come first."""

    title: str
    images_first: bool = True
    joint: float = 0.0  # share of images among the frames of a step
    named_clips: bool = False
    frozen: bool = False  # the spatial parameters
    identity: bool = True  # which temporal parts are at first
    clips: bool = True
    images: Images = SHARED
    speed: float = 2.0  # of temporal parameters, of that of spatial ones
    kept: str = ""  # parameters with this in their names are not trained
    shared_noise: bool = True  # frames of a clip share most of it
    conditions: Sequence[str] = CONDITIONS  # which it is compared with


ARMS = {
    "clips-alone": Arm(
        "clips alone, named", images_first=False, named_clips=True, conditions=("name",)
    ),
    "all": Arm("images, then clips, all parameters"),
    "frozen": Arm("images, then clips, spatial parameters frozen", frozen=True),
    "joint": Arm("images, then joint batches", joint=0.5),
    "joint-only": Arm("joint batches from the first step", images_first=False, joint=0.5),
    "random": Arm("images, then joint batches, time random at first", joint=0.5, identity=False),
    "still": Arm("images alone, time never trained", clips=False),
}
ABLATIONS = {
    "rotary": Arm("joint, rotary positions", joint=0.5,
                  images=Images({"attn_pos_bias": False, "attn_rotary": True})),
    "no-positions": Arm("joint, no positions", joint=0.5,
                        images=Images({"attn_pos_bias": False})),
    "no-shift": Arm("joint, no token shift", joint=0.5, kept="token_shift"),
    "compressed": Arm("joint, temporal compression", joint=0.5,
                      images=Images({"temporal_compression": (True, False)})),
    "own-noise": Arm("joint, noise of each frame its own", joint=0.5, shared_noise=False),
}  # fmt: skip
VARIATIONS = {  # for what lifts the names that no clip showed
    "more-images": Arm("joint, three quarters images", joint=0.75),
    "fewer-images": Arm("joint, a quarter images", joint=0.25),
    "long-images": Arm("joint, after twice the image phase", joint=0.5, images=Images(longer=2.0)),
    "fast-time": Arm("joint, time eight times as fast as space", joint=0.5, speed=8.0),
    "narrow": Arm("joint, embeddings of 8", joint=0.5, images=Images(width=8),
                  conditions=("embedding",)),
    "wide": Arm("joint, embeddings of 32", joint=0.5, images=Images(width=32),
                conditions=("embedding",)),
}  # fmt: skip
ALL = {**ARMS, **ABLATIONS, **VARIATIONS}
# that of all arms, and those of some
IMAGE_PHASES = {"images": SHARED} | {
    f"{name}-images": arm.images for name, arm in ALL.items() if arm.images != SHARED
}


class Trained(NamedTuple):
    """What came of a training: the averaged U-Net, and what is told of it."""

    unet: SpaceTimeUnet
    record: dict[str, object]


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
        spread: of the embeddings that samples follow, see `Embedding.likely`.
    """

    def __init__(self, names: int, embedding: Embedding | None = None, spread: float = 1.0) -> None:
        self.names, self.embedding, self.spread = names, embedding, spread
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
        return self.embedding.likely(names, generator, self.spread)


def unet_of(
    setting: Setting,
    conditioning: Conditioning,
    settings: Mapping[str, object] = MappingProxyType({}),
) -> SpaceTimeUnet:
    """The U-Net of the first training (examples/train.py), but for some `settings`."""
    arguments = {
        **SMALL, "dim": setting.dim, "channels": setting.domain.channels,
        "cond_dim": conditioning.dim, "condition_on_fps": False, **settings,
    }  # fmt: skip
    return SpaceTimeUnet(**arguments)


@torch.no_grad()
def randomize_time(unet: nn.Module) -> None:
    """Draw anew what is the identity at first, as torch's layers and the original are at first."""
    for parameter in temporal_parameters(unet):
        if parameter.ndim > 1:
            nn.init.kaiming_uniform_(parameter, a=5**0.5)
        elif not parameter.any():  # a bias, or the mix of a token shift
            nn.init.uniform_(parameter, -0.1, 0.1)


class OwnNoise(Draws):
    """The draws of another, but that frames share no noise."""

    def __init__(self, draws: Draws) -> None:
        self.share, self.shares, self.generator = draws.share, draws.shares, draws.generator

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        """Noise of this shape, each sample's from a generator of its own."""
        return torch.cat([independent((1, *shape[1:]), g) for g in self.generators(shape[0])])


def independent(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Noise that frames do not share, in the place of `noise_of`."""
    return torch.randn(shape, generator=generator)


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
        shared_noise: whether the frames of a clip share most of it.
    """

    def __init__(
        self,
        setting: Setting,
        conditioning: Conditioning,
        parts: list[Part],
        unet: SpaceTimeUnet,
        seed: int,
        shared_noise: bool = True,
    ) -> None:
        self.setting, self.conditioning, self.parts = setting, conditioning, parts
        self.device = torch.device(setting.device)
        self.accelerator = Accelerator(cpu=setting.device == "cpu")
        self.unet, self.seed, self.shared_noise = unet.to(self.device), seed, shared_noise
        self.ema = averaged(unet).eval()

    def loss(self, steps: range) -> Callable[[nn.Module, Draws], Tensor]:
        """What `fit` asks for, of so many steps."""
        following = [
            (part.weight, batches(part.source, steps, part.count, part.frames, first=0,
                                  seed=self.seed, workers=0))
            for part in self.parts
        ]  # fmt: skip
        denoising = denoising_of(self.unet, None)
        loss = partial(loss_of, self.unet, PLAIN, denoising, following, self.device)
        if self.shared_noise:
            return loss
        return lambda model, draws: loss(model, OwnNoise(draws))

    @cached_property
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
                self.ema.module, PLAIN, None, clips, self.accelerator,
                frames=self.setting.frames, device=self.device,
            )  # fmt: skip
            found[name] = fmean(losses.values())
        return found

    def run(
        self, steps: int, lr: float, spent: float = 0.0, speed: float = 2.0
    ) -> dict[str, object]:
        """Train, temporal parameters at this `speed`; operations count on from those `spent`."""
        a_step, looking = self.operations, 0.0
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
            self.accelerator, self.unet, self.ema, optimizer_for(self.unet, speed),
            self.loss(range(steps)), phase="training", steps=range(steps), lr=lr, seed=self.seed,
            batch=sum(part.count for part in self.parts), after_step=look,
        )  # fmt: skip
        return {
            "steps": steps, "operations": steps * a_step, "clips": steps * clips, "curve": curve,
            "seconds": time.perf_counter() - began - looking, "loss": fmean(losses[-50:]),
        }  # fmt: skip


def train_images(
    setting: Setting,
    conditioning: Conditioning,
    seed: int,
    lr: float,
    images: Images = SHARED,
) -> Trained:
    """The image phase, which the arms of a seed share, but for those that have one of their own."""
    torch.manual_seed(seed)
    unet = unet_of(setting, conditioning, images.settings)
    training = Training(setting, conditioning, parts_of(setting, conditioning, 1.0), unet, seed)
    record = training.run(images.steps(setting), lr)
    return Trained(training.ema.module, record)


def budget(setting: Setting, conditioning: Conditioning) -> int:
    """Operations of a whole training, those of all arms: images, then joint batches."""
    images, joint = (
        operations_of(setting, conditioning, share, unet_of(setting, conditioning))
        for share in (1.0, 0.5)
    )
    return images * setting.steps_images + joint * setting.steps_joint


def operations_of(
    setting: Setting, conditioning: Conditioning, images: float, unet: SpaceTimeUnet
) -> int:
    """Operations of a step with such a share of images."""
    parts = parts_of(setting, conditioning, images)
    return Training(setting, conditioning, parts, unet, 0).operations


def train_arm(
    setting: Setting,
    conditioning: Conditioning,
    arm: Arm,
    seed: int,
    lr: float,
    image_model: Mapping[str, Tensor],
) -> Trained:
    """An arm, that of images first on from the weights of the `image_model`."""
    torch.manual_seed(seed)
    unet = unet_of(setting, conditioning, arm.images.settings)
    spent, total = 0, budget(setting, conditioning)
    if arm.images_first:
        unet.load_state_dict(image_model)
        spent = arm.images.steps(setting) * operations_of(setting, conditioning, 1.0, unet)
    if not arm.clips:
        return Trained(
            unet, dict.fromkeys(("steps", "operations", "clips", "seconds"), 0) | {"curve": []}
        )
    if not arm.identity:
        randomize_time(unet)
    kept = {name for name, _ in unet.named_parameters() if arm.kept and arm.kept in name}
    spatial = set(spatial_parameters(unet)) if arm.frozen else set()
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(name not in kept and parameter not in spatial)
    parts = parts_of(setting, conditioning, arm.joint, arm.named_clips)
    training = Training(setting, conditioning, parts, unet, seed, arm.shared_noise)
    steps = round((total - spent) / training.operations)
    return Trained(training.ema.module, training.run(steps, lr, spent, arm.speed))


@torch.no_grad()
def samples(
    setting: Setting,
    unet: SpaceTimeUnet,
    conditioning: Conditioning,
    asked: Tensor,
    seed: int,
    shared_noise: bool = True,
    led: Led = guide,
) -> Tensor:
    """Clips (b c f h w) of the names that are `asked` for (b), with guidance as it is `led`."""
    generator = Generator().manual_seed(90_000 + seed)
    unet.to(setting.device).eval()
    made = []
    for some in asked.split(50):
        cond = conditioning.asked(some, generator).to(setting.device)
        shape = (len(some), unet.channels, setting.frames, setting.size, setting.size)
        model = partial(led(unet, setting.guidance), cond=cond)
        noise = (noise_of if shared_noise else independent)(shape, generator)
        made.append(sample(model, noise, setting.sampling_steps, setting.device, shown=False))
    return torch.cat(made)
