"""Train a diffusers UNet2DModel on images of digits, inflate it, and teach it to move.

    python examples/inflate.py            # four minutes on two CPU cores

The image model is any: here a UNet2DModel with DDPMScheduler, trained on pictures of digits.
`inflate` adds temporal parts, and those alone are trained on clips. The image model stays what it
was, bit for bit, and the temporal parts are a motion module in a file of their own.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from clips import DataError, MovingDigits
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import save_file
from torch import Generator, Tensor, nn
from torch.optim import AdamW
from tqdm import tqdm
from train import (
    SCHEDULE,
    Parser,
    averaged,
    device,
    diffusion_loss,
    learning_rate,
    make_folder,
    positive,
    sample,
    write_videos,
)

from make_a_video_pytorch import inflate, spatial_parameters, temporal_parameters


def parser() -> Parser:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/inflate"), help="folder for the results")
    add("--frames", type=positive, default=8, help="frames in a clip")
    add("--steps-images", type=positive, default=800, help="training steps on images")
    add("--steps-video", type=positive, default=400, help="training steps on clips")
    add("--batch-images", type=positive, default=64, help="images in a step")
    add("--batch-video", type=positive, default=8, help="clips in a step")
    add("--lr", type=float, default=2e-3, help="highest learning rate")
    add("--clips", type=positive, default=10, help="images and videos to sample")
    add(
        "--sampling-steps",
        type=positive,
        choices=range(1, SCHEDULE["num_train_timesteps"] + 1),
        metavar="STEPS",
        default=40,
        help="denoising steps of a sample",
    )
    add("--seed", type=int, default=0, help="of weights, data and noise")
    add("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


SIZE = 12  # height and width in pixels


def image_unet() -> UNet2DModel:
    """A small U-Net of diffusers for pictures of digits, told which digit."""
    return UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=32,
        num_class_embeds=10,
    )


def velocity(unet: nn.Module, names: Tensor, x: Tensor, timestep: Tensor) -> Tensor:
    """What `unet` predicts for digits of these `names` (b), images or videos."""
    return unet(x, timestep, class_labels=names).sample


def train(
    unet: nn.Module,
    parameters: list[nn.Parameter],
    args: argparse.Namespace,
    *,
    frames: int,
    batch: int,
    steps: int,
) -> nn.Module:
    """Train `parameters` of `unet` on clips of so many frames; return the averaged model."""
    clips = MovingDigits(SIZE)
    ema = averaged(unet)
    optimizer = AdamW(parameters, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    scheduler = DDPMScheduler(**SCHEDULE)
    with tqdm(range(steps), desc="images" if frames == 1 else "video", unit="step") as bar:
        for step in bar:
            generator = Generator().manual_seed(args.seed * 1_000_003 + step)
            x, names = clips(batch, frames, generator)
            x = x.squeeze(2) if frames == 1 else x
            model = partial(velocity, unet, names.argmax(-1).to(args.device))
            loss = diffusion_loss(model, scheduler, x, generator, args.device)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, args.lr)
            optimizer.step()
            ema.update_parameters(unet)
            bar.set_postfix(loss=f"{loss.item():.4f}")
    return ema.module


def change(clips: Tensor) -> float:
    """How much a pixel changes from frame to frame, in the mean over `clips` (b c f h w)."""
    return float(clips.diff(dim=2).abs().mean())


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments`."""
    command = parser()
    args = command.parse_args(arguments)
    if args.frames < 2:
        command.error(f"--frames {args.frames} must be 2 or more, for anything to move")
    try:
        make_folder(args.out)
    except DataError as error:
        command.error(str(error))
    torch.manual_seed(args.seed)

    def samples(unet: nn.Module, *frames: int) -> Tensor:
        names = (torch.arange(args.clips) % 10).to(args.device)
        shape = (args.clips, 1, *frames, SIZE, SIZE)
        generator = Generator().manual_seed(args.seed)
        model = partial(velocity, unet.eval(), names)
        return sample(model, shape, args.sampling_steps, generator, args.device)

    unet = image_unet().to(args.device)
    parameters = list(unet.parameters())
    unet = train(unet, parameters, args, frames=1, batch=args.batch_images, steps=args.steps_images)
    images = samples(unet)

    video_unet = inflate(unet, heads=4, dim_head=32)
    print(video_unet.extra_repr())
    for parameter in spatial_parameters(video_unet):
        parameter.requires_grad_(False)
    still = samples(video_unet, args.frames)
    parameters = temporal_parameters(video_unet)
    video_unet = train(
        video_unet.train(), parameters, args,
        frames=args.frames, batch=args.batch_video, steps=args.steps_video,
    )  # fmt: skip
    save_file(video_unet.temporal_state_dict(), args.out / "motion.safetensors")

    if not torch.equal(samples(video_unet), images):
        raise RuntimeError("the inflated model gives other images than the image model")
    print("image samples: the same bit for bit, before and after")
    videos = samples(video_unet, args.frames)
    real, _ = MovingDigits(SIZE)(256, args.frames, Generator().manual_seed(args.seed))
    for name, clips in (("before", still), ("after", videos), ("real", real)):
        print(f"change from frame to frame, {name}: {change(clips):.3f}")
    write_videos(torch.cat((still[:3], videos)), args.out)
    print(f"wrote {', '.join(str(args.out / f'samples.{kind}') for kind in ('gif', 'png'))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
