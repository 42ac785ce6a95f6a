"""Digits that go on bouncing: the U-Net that examples/train.py has trained, made to stream.

    python examples/stream.py                       # from runs/train: ten minutes on two cores
    python examples/stream.py --length 1000

The U-Net becomes causal: what it knows of pictures stays, its temporal parts start anew, as the
identity. It learns from clips of 16 frames with a noise level of its own for each chunk of 4
(Diffusion Forcing, Chen et al. 2024), and then makes videos that are as long as one likes, chunk by
chunk, behind what it has made. A judge says whether they drift: whether the digit stays what it
was, and goes on as fast and as smoothly. What a chunk costs is measured as videos get longer,
streamed and with all frames before it computed again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from building import Encoders, conditions
from checkpoints import EMBEDDING, clips_of, last_checkpoint, load_unet
from clips import MovingDigits, write_videos
from command_line import Parser, add_shared_options, make_folder, positive
from diffusers import DDPMScheduler
from diffusion import SCHEDULE, averaged, optimizer_for, sampler
from draws import Draws, noise_of
from embedding import saved
from errors import DataError
from fake_gpu import Live
from fitting import fit
from judges import judges_of_digits
from measures import JERK, RIGHT, SPEED, measured
from processes import join
from torch import Generator, Tensor, nn
from tqdm import tqdm

from make_a_video_pytorch import SpaceTimeUnet, spatial_parameters
from make_a_video_pytorch.guidance import guide
from make_a_video_pytorch.integrations.diffusers import SpaceTimeUnetModel
from make_a_video_pytorch.recipes import each_frame, frame_timesteps, roll_out

FRAMES, CHUNK, WINDOW = 16, 4, 8  # of a clip that is learned from, of a chunk, of attention
PIECE = 8  # frames that are judged together
SHOWN = (RIGHT, SPEED, JERK)


def parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--unet", type=Path, default=Path("runs/train"), help="a checkpoint, or a run's folder")
    add("--steps", type=positive, default=1500, help="training steps")
    add("--batch", type=positive, default=4, help="clips in a step")
    add("--length", type=positive, default=200, help="frames of a video")
    add("--level", type=int, default=50, help="timestep at which later chunks see a chunk")
    add("--guidance", type=float, default=1.5, help="how strongly to follow the digit")
    add("--cache", type=Path, default=Path("runs/cache"), help="where the judges are kept")
    add_shared_options(
        parser,
        out="runs/stream",
        clips=20,
        clips_help="videos to make",
        sampling_steps=20,
        sampling_steps_help="denoising steps of a chunk",
    )
    return parser


def made_causal(unet: SpaceTimeUnet) -> SpaceTimeUnet:
    """One that sees no later frame, with the spatial weights of `unet`."""
    causal = SpaceTimeUnet(**{**unet.config, "causal": True, "temporal_window": WINDOW})
    spatial = set(spatial_parameters(unet))
    weights = {name: weight for name, weight in unet.named_parameters() if weight in spatial}
    causal.load_state_dict(weights, strict=False)
    return causal


def train(
    unet: SpaceTimeUnet, args: argparse.Namespace, encoders: Encoders, size: int
) -> nn.Module:
    """Train `unet` to denoise chunks behind others of any noise; return the averaged one."""
    digits, ema = MovingDigits(size), averaged(unet)
    scheduler = DDPMScheduler(**SCHEDULE)

    def loss_of(called: nn.Module, draws: Draws) -> Tensor:
        batch = digits(args.batch, FRAMES, draws.generator)
        told = conditions(unet, encoders, batch, args.device, draws.uniform(args.batch) < 0.1)
        x, noise = batch.videos, draws.noise(batch.videos.shape)
        timesteps = frame_timesteps(
            args.batch, FRAMES, steps=scheduler.config.num_train_timesteps, chunk=CHUNK,
            generator=draws.generator,
        )  # fmt: skip
        noisy = each_frame(scheduler.add_noise, x, noise, timesteps)
        target = each_frame(scheduler.get_velocity, x, noise, timesteps)
        predicted = called(noisy.to(args.device), timesteps.to(args.device), **told)
        return F.mse_loss(predicted, target.to(args.device))

    fit(
        join(args.device), unet, ema, optimizer_for(unet), loss_of,
        phase="chunks", steps=range(args.steps), lr=args.lr, seed=args.seed, batch=args.batch,
    )  # fmt: skip
    return ema.module.eval()


def rolled(unet: SpaceTimeUnet, args: argparse.Namespace, lead: Tensor, size: int) -> Tensor:
    """Videos (b c f h w) in [-1, 1] that follow `lead` (b d), made chunk by chunk."""
    generator = Generator().manual_seed(args.seed)
    noise = noise_of((len(lead), unet.channels, args.length, size, size), generator)
    chunks = roll_out(
        guide(unet.stream(), args.guidance), sampler(), noise.to(args.device).split(CHUNK, dim=2),
        steps=args.sampling_steps, level=args.level, cond=lead.to(args.device),
    )  # fmt: skip
    total = -(-args.length // CHUNK)
    return torch.cat(list(tqdm(chunks, "rolling out", total, unit="chunk")), dim=2).cpu()


def over_time(videos: Tensor, digits: Tensor, cache: Path) -> dict[str, list[float]]:
    """What is measured of each 8 frames in turn: the means over videos."""
    judges = judges_of_digits(videos.shape[-1], PIECE, cache)
    pieces = [piece for piece in videos.split(PIECE, dim=2) if piece.shape[2] == PIECE]
    found = [measured(piece, digits, judges) for piece in pieces]
    return {name: [float(each[name].mean()) for each in found] for name in SHOWN}


@torch.no_grad()
def costs(
    unet: SpaceTimeUnet, lengths: Sequence[int], size: int, device: str
) -> dict[str, list[tuple[float, float]]]:
    """Seconds, and MiB at the peak, of a chunk behind so many frames, streamed and otherwise."""
    found: dict[str, list[tuple[float, float]]] = {"streamed": [], "all frames again": []}
    for length in lengths:
        video = torch.randn(1, unet.channels, length + CHUNK, size, size, device=device)
        stream = unet.stream()
        for chunk in video[:, :, :length].split(CHUNK, dim=2):
            stream(chunk, 500)
        calls = {
            "streamed": partial(stream, video[:, :, length:], 500, commit=False),
            "all frames again": partial(unet, video, 500),
        }
        for name, call in calls.items():
            with Live() as live:
                call()
            kept = sum(t.nbytes for t in stream.kept) if name == "streamed" else 0
            found[name].append(
                (median(seconds(call) for _ in range(5)), (live.peak + kept) / 2**20)
            )
    return found


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def plot(
    measures: Mapping[str, Mapping[str, Sequence[float]]],
    lengths: Sequence[int],
    cost: Mapping[str, Sequence[tuple[float, float]]],
    path: Path,
) -> None:
    """Measures over the frames of a video, and costs over its length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 2.8), layout="constrained")
    axes = figure.subplots(1, 5)
    for axis, name in zip(axes, SHOWN, strict=False):
        for row, found in measures.items():
            frames = [PIECE * number for number in range(len(found[name]))]
            axis.plot(frames, found[name], label=row)
        axis.set(title=name, xlabel="frame", ylim=(0, None))
    axes[0].legend(fontsize="small")
    for axis, number, title in ((axes[3], 0, "frames a second"), (axes[4], 1, "MiB at the peak")):
        for row, found in cost.items():
            values = [CHUNK / each[0] if number == 0 else each[1] for each in found]
            axis.loglog(lengths, values, "o-", base=2, label=row)
        axis.set(title=f"{title}, one call", xlabel="frames before")
        axis.grid(True, which="both", alpha=0.3)
    axes[3].legend(fontsize="small")
    figure.savefig(path, dpi=80)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments`."""
    command = parser()
    args = command.parse_args(arguments)
    try:
        checkpoint = last_checkpoint(args.unet)
        data, size, _ = clips_of(checkpoint)
        if data != "digits" or not (checkpoint / EMBEDDING).exists():
            raise DataError(f"{checkpoint} must be of digits, told embeddings, as train.py does")
        encoders = Encoders(None, None, saved(checkpoint / EMBEDDING))
        make_folder(args.out)
        torch.manual_seed(args.seed)
        unet = made_causal(load_unet(checkpoint, FRAMES, size)).to(args.device)
        unet = train(unet, args, encoders, size)
        SpaceTimeUnetModel.from_unet(unet, sample_size=size).save_pretrained(args.out / "unet")
        asked = torch.arange(args.clips) % MovingDigits.cond_dim
        videos = rolled(unet, args, encoders.embedding.means[asked], size)
        real = MovingDigits(size, held_out=True)(
            args.clips, args.length, Generator().manual_seed(1)
        )
        measures = {
            "streamed": over_time(videos, asked, args.cache),
            "held-out real ones": over_time(real.videos, real.names.argmax(-1), args.cache),
        }
    except DataError as error:
        command.error(str(error))
    for row, found in measures.items():
        quarters = {name: quarters_of(values) for name, values in found.items()}
        print(f"{row}: " + "; ".join(f"{name} {values}" for name, values in quarters.items()))
    lengths = [length for length in (16, 32, 64, 128, 256) if length <= max(args.length, 16)]
    cost = costs(unet, lengths, size, args.device)
    for row, found in cost.items():
        shown = (f"{CHUNK / time:.0f} ({peak:.2f} MiB)" for time, peak in found)
        print(f"{row}, frames a second in one call behind {lengths} frames: {', '.join(shown)}")
    plot(measures, lengths, cost, args.out / "over-time.png")
    shown = write_videos(videos[:10], args.out)
    thinned = write_videos(videos[:10, :, :: max(args.length // 20, 1)], args.out, "thinned")
    print(f"wrote {', '.join(map(str, (*shown, *thinned, args.out / 'over-time.png')))}")
    return 0


def quarters_of(values: Sequence[float]) -> str:
    """The means of each quarter of some values, or all of them if there are few."""
    count = max(len(values) // 4, 1)
    parts = [values[start : start + count] for start in range(0, len(values), count)][:4]
    return " ".join(f"{sum(part) / len(part):.2f}" for part in parts)


if __name__ == "__main__":
    sys.exit(main())
