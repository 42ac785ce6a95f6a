"""Train a small SpaceTimeUnet first on images, then on clips, and sample videos from it.

    python examples/train.py                         # moving digits: six minutes on two cores
    python examples/train.py --data clips/ --size 64 # videos of your own
    python examples/train.py --resume                # go on after an interruption
    python examples/train.py --sample runs/train     # only sample, from the last checkpoint

The order is that of Make-A-Video (Singer et al. 2022): images teach the spatial parts what
things look like while the temporal parts are skipped; then, starting from identities, those
learn motion from videos. The digits' names stand for the text; a name is dropped from a tenth of
the samples, for classifier-free guidance. Noise schedule and sampler are diffusers'; the frames
of a clip share most of their noise (PYoCo, Ge et al. 2023), which spares many steps.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
import torch.nn.functional as F
from clips import DataError, named, open_clips
from diffusers import DDIMScheduler, DDPMScheduler
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from make_a_video_pytorch import SpaceTimeUnet, spatial_parameters, temporal_parameters
from make_a_video_pytorch.guidance import drop_conditions, guide
from make_a_video_pytorch.recipes import mixed_noise

Model = Callable[[Tensor, Tensor], Tensor]  # a noisy batch and its timesteps -> the velocity

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",  # Salimans and Ho 2022, section 4
    "clip_sample": True,
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print `message` and leave with code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def parser() -> Parser:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", default="digits", help="`digits`, a video file, or a folder of them")
    add("--out", type=Path, default=Path("runs/train"), help="folder for checkpoints and samples")
    add("--frames", type=positive, default=8, help="frames in a clip")
    add("--size", type=positive, default=12, help="height and width in pixels")
    add("--dim", type=positive, default=32, help="features of the U-Net at full resolution")
    add("--steps-images", type=positive_or_zero, default=700, help="training steps on images")
    add("--steps-video", type=positive_or_zero, default=500, help="training steps on clips")
    add("--batch-images", type=positive, default=64, help="images in a step")
    add("--batch-video", type=positive, default=8, help="clips in a step")
    add("--lr", type=float, default=2e-3, help="highest learning rate, on images")
    add("--save-every", type=positive, default=100, help="steps between checkpoints")
    add("--seed", type=int, default=0, help="of weights, data and noise")
    add("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    add("--resume", action="store_true", help="go on from the last checkpoint in --out")
    add("--sample", type=Path, metavar="PATH", help="only sample: a checkpoint, or a run's folder")
    add("--clips", type=positive, default=10, help="videos to sample")
    add("--guidance", type=float, default=2.0, help="how closely samples follow a digit's name")
    add(
        "--sampling-steps",
        type=positive,
        default=40,
        choices=range(1, SCHEDULE["num_train_timesteps"] + 1),
        metavar="STEPS",
        help="denoising steps of a sample",
    )
    return parser


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def positive_or_zero(text: str) -> int:
    """A whole number from 0 on."""
    return positive(text) if int(text) else 0


def device(text: str) -> str:
    """A device that torch can use here."""
    try:
        torch.empty(1, device=text)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"`{text}` cannot be used: {reason}") from error
    return text


# What --resume takes from the interrupted run unless it is said anew.
REMEMBERED = ("data", "frames", "size", "steps_images", "steps_video", "batch_images",
              "batch_video", "lr", "save_every", "seed")  # fmt: skip


# Model and optimizer


def build_unet(arguments: dict, frames: int, size: int) -> SpaceTimeUnet:
    """The U-Net of these constructor arguments, tried once on an empty clip of the size asked."""
    unet = SpaceTimeUnet(**arguments)
    try:
        with torch.no_grad():
            unet(torch.zeros(1, unet.channels, frames, size, size), 0)
    except ValueError as error:
        raise DataError(str(error)) from error
    return unet


def optimizer_for(unet: SpaceTimeUnet) -> AdamW:
    """AdamW without weight decay on norms, biases and whatever starts as the identity.

    Decay pulls towards zero, and a temporal convolution is the identity at a dirac weight. The
    temporal parameters, which see clips only, learn twice as fast.
    """
    temporal = temporal_parameters(unet)
    weights = [parameter for parameter in spatial_parameters(unet) if parameter.ndim > 1]
    others = [parameter for parameter in spatial_parameters(unet) if parameter.ndim < 2]
    return AdamW(
        [
            {"params": weights, "weight_decay": 0.01, "speed": 1.0},
            {"params": others, "weight_decay": 0.0, "speed": 1.0},
            {"params": temporal, "weight_decay": 0.0, "speed": 2.0},
        ],
        betas=(0.9, 0.99),
        fused=True,
    )


def learning_rate(step: int, steps: int, highest: float) -> float:
    """In each phase a short linear rise, then a cosine down to a tenth."""
    rise = min(1.0, (step + 1) / 30)
    return highest * rise * (0.55 + 0.45 * math.cos(math.pi * step / steps))


def averaged(unet: SpaceTimeUnet) -> AveragedModel:
    """An exponential moving average of the weights, which is what one samples from."""
    return AveragedModel(unet, multi_avg_fn=get_ema_multi_avg_fn(0.98))


# Checkpoints: a folder `checkpoint-<step>` with the averaged weights, the constructor's arguments
# and what training needs to go on. It appears under its name only when it is complete.


def save_checkpoint(
    out: Path, step: int, unet: SpaceTimeUnet, ema: AveragedModel, optimizer: AdamW, config: dict
) -> None:
    """Write the checkpoint of `step` and remove those before it."""
    target = out / f"checkpoint-{step:06d}"
    temporary = out / ".checkpoint"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(ema.module.state_dict(), temporary / "unet.safetensors")
    (temporary / "config.json").write_text(json.dumps(config, indent=2))
    state = {"step": step, "unet": unet.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "ema": ema.state_dict()}, temporary / "training.pt")
    older = checkpoints(out)
    temporary.rename(target)
    for path in older:
        shutil.rmtree(path)


def checkpoints(out: Path) -> list[Path]:
    """The complete checkpoints in `out`, the last one last."""
    return sorted(path for path in out.glob("checkpoint-*") if path.is_dir())


def last_checkpoint(path: Path) -> Path:
    """`path` if it is a checkpoint, or the last one in it."""
    if (path / "unet.safetensors").exists():
        return path
    if not (found := checkpoints(path)):
        raise DataError(f"no checkpoint in {path}")
    return found[-1]


# Training


def noise_of(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard normal noise, of which the frames of a video share four fifths of the variance.

    What a noisy frame is denoised to then agrees with its neighbours from the start.
    """
    if len(shape) == 4:
        return torch.randn(shape, generator=generator)
    return mixed_noise(shape, alpha=2, generator=generator)


def diffusion_loss(
    model: Model,
    scheduler: DDPMScheduler,
    x: Tensor,
    generator: Generator,
    device: str,
    timesteps: Tensor | None = None,
) -> Tensor:
    """The squared error of the predicted velocity, at random timesteps if none are given."""
    noise = noise_of(x.shape, generator)
    if timesteps is None:
        steps = scheduler.config.num_train_timesteps
        timesteps = torch.randint(steps, x.shape[:1], generator=generator)
    x, noise, timesteps = x.to(device), noise.to(device), timesteps.to(device)
    predicted = model(scheduler.add_noise(x, noise, timesteps), timesteps)
    return F.mse_loss(predicted, scheduler.get_velocity(x, noise, timesteps))


def make_folder(path: Path) -> None:
    """Make the folder that results go to, before anything is computed for it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path} cannot be a folder: {error.strerror}") from error


def train(args: argparse.Namespace, resumed: Path | None) -> SpaceTimeUnet:
    """Train as the command line says, on from a checkpoint if any; return the averaged U-Net."""
    clips = open_clips(args.data, args.size, args.frames)
    training = {name: getattr(args, name) for name in REMEMBERED}
    if resumed is not None:
        config = {**json.loads((resumed / "config.json").read_text()), "training": training}
        if config["unet"]["channels"] != clips.channels:
            raise DataError(
                f"{resumed} is of {config['unet']['channels']} channels, "
                f"--data {args.data} of {clips.channels}"
            )
    elif checkpoints(args.out):
        raise DataError(f"{args.out} holds a run: go on with --resume, or give another --out")
    else:
        config = {
            "unet": {
                "dim": args.dim,
                "channels": clips.channels,
                "cond_dim": clips.cond_dim,
                "dim_mult": (1, 2),
                "self_attns": (False, True),
                "temporal_compression": (False, False),
                "resnet_block_depths": (1, 1),
                "attn_dim_head": 32,
                "attn_heads": 4,
            },
            "training": training,
        }
    torch.manual_seed(args.seed)
    unet = build_unet(config["unet"], args.frames, args.size).to(args.device)
    ema = averaged(unet)
    optimizer = optimizer_for(unet)
    scheduler = DDPMScheduler(**SCHEDULE)
    first = 0
    if resumed is not None:
        state = torch.load(resumed / "training.pt", map_location=args.device, weights_only=True)
        unet.load_state_dict(state["unet"])
        ema.load_state_dict(state["ema"])
        try:
            optimizer.load_state_dict(state["optimizer"])
        except ValueError:  # of other parameters, as those of 1.0.0
            print(f"{resumed} is of an earlier version: the weights go on, the optimizer anew")
        first = state["step"]

    def save(step: int) -> None:
        save_checkpoint(args.out, step, unet, ema, optimizer, config)

    def loss_of(phase: str, generator: Generator) -> Tensor:
        model = unet
        if phase == "images":
            x, names = clips(args.batch_images, 1, generator)
            x = x.squeeze(2)
        else:
            x, names = clips(args.batch_video, args.frames, generator)
        if names is not None:
            names = drop_conditions(0.1, cond=names, generator=generator)["cond"]
            model = partial(unet, cond=names.to(args.device))
        return diffusion_loss(model, scheduler, x, generator, args.device)

    steps = args.steps_images + args.steps_video
    phases = (("images", 0, args.steps_images), ("video", args.steps_images, steps))
    for phase, start, end in phases:
        losses = []
        with tqdm(
            total=end - start,
            initial=min(max(first - start, 0), end - start),
            desc=phase,
            unit="step",
        ) as bar:
            for step in range(max(first, start), end):
                # A step's data and noise follow from its number, so that a resumed run is the
                # run that was interrupted.
                generator = Generator().manual_seed(args.seed * 1_000_003 + step)
                loss = loss_of(phase, generator)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
                for group in optimizer.param_groups:
                    # clips at half the rate, to keep what images taught
                    highest = args.lr * group["speed"] * (0.5 if phase == "video" else 1.0)
                    group["lr"] = learning_rate(step - start, end - start, highest)
                optimizer.step()
                ema.update_parameters(unet)
                losses.append(loss.item())
                bar.set_postfix(loss=f"{mean(losses[-50:]):.4f}")
                bar.update()
                if (step + 1) % args.save_every == 0 or step + 1 == end:
                    save(step + 1)
        if losses:
            tenth = max(len(losses) // 10, 1)
            first_loss, last_loss = mean(losses[:tenth]), mean(losses[-tenth:])
            print(f"{phase}: loss {first_loss:.4f} at first, {last_loss:.4f} at last")
    return ema.module


def mean(numbers: list[float]) -> float:
    """The mean of `numbers`."""
    return sum(numbers) / len(numbers)


# Sampling


@torch.no_grad()
def sample(
    model: Model, shape: tuple[int, ...], steps: int, generator: Generator, device: str
) -> Tensor:
    """Videos of `shape` (b c f h w) in [-1, 1], denoised from noise by DDIM."""
    scheduler = DDIMScheduler(**SCHEDULE, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    videos = noise_of(shape, generator).to(device)
    for timestep in tqdm(scheduler.timesteps, desc="sampling", unit="step"):
        velocity = model(videos, timestep)
        videos = scheduler.step(velocity, timestep, videos).prev_sample
    return videos.clamp(-1, 1).cpu()


def write_videos(videos: Tensor, out: Path) -> None:
    """Write `samples.gif` and the contact sheet `samples.png`: a row a video, a column a frame."""
    enlarge = max(64 // videos.shape[-1], 1)
    pixels = ((videos + 1) * 127.5).round().byte().movedim(1, -1)  # b f h w c
    pixels = pixels.repeat_interleave(enlarge, 2).repeat_interleave(enlarge, 3)
    pixels = F.pad(pixels, (0, 0, 1, 1, 1, 1), value=64)  # a thin frame around each picture

    def image(array: Tensor) -> Image.Image:
        return Image.fromarray(array.squeeze(-1).numpy())

    image(torch.cat([torch.cat(list(video), 1) for video in pixels], 0)).save(out / "samples.png")
    columns = math.ceil(math.sqrt(len(pixels)))
    spare = -len(pixels) % columns
    filled = torch.cat((pixels, pixels.new_zeros(spare, *pixels.shape[1:])))
    moments = [
        image(torch.cat([torch.cat(list(row), 1) for row in frame.split(columns)], 0))
        for frame in filled.unbind(1)
    ]
    moments[0].save(
        out / "samples.gif", save_all=True, append_images=moments[1:], duration=125, loop=0
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments`."""
    command = parser()
    args = command.parse_args(arguments)
    checkpoint = None
    try:
        if args.resume or args.sample is not None:
            checkpoint = last_checkpoint(args.sample or args.out)
            config = json.loads((checkpoint / "config.json").read_text())
            # what the command line leaves out is as it was when the checkpoint was written
            command.set_defaults(**config["training"], out=args.sample or args.out)
            args = command.parse_args(arguments)
        make_folder(args.out)
        if args.sample is not None:
            unet = build_unet(config["unet"], args.frames, args.size).to(args.device)
            unet.load_state_dict(load_file(checkpoint / "unet.safetensors"))
        else:
            unet = train(args, checkpoint)
        model = unet.eval()
        if unet.config["cond_dim"] is not None:
            names = named(torch.arange(args.clips) % 10).to(args.device)
            model = partial(guide(unet, args.guidance), cond=names)
        shape = (args.clips, unet.channels, args.frames, args.size, args.size)
        generator = Generator().manual_seed(args.seed)
        videos = sample(model, shape, args.sampling_steps, generator, args.device)
    except DataError as error:
        command.error(str(error))
    except KeyboardInterrupt:
        kept = checkpoints(args.out)
        print(f"interrupted; {kept[-1]} is kept" if kept else "interrupted before a checkpoint")
        return 130
    write_videos(videos, args.out)
    print(f"wrote {args.out / 'samples.gif'} and {args.out / 'samples.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
