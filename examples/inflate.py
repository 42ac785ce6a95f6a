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

import torch
from clips import MovingDigits, write_videos
from command_line import Parser, add_shared_options, make_folder, positive
from diffusers import DDPMScheduler, UNet2DModel
from diffusion import SCHEDULE, averaged, diffusion_loss, sample
from draws import Draws, noise_of
from errors import DataError
from fitting import fit
from processes import join
from torch import Generator, Tensor, nn
from torch.optim import AdamW

from make_a_video_pytorch import inflate, spatial_parameters, temporal_parameters
from make_a_video_pytorch.integrations.diffusers import InflatedDiffusersModel


def parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--frames", type=positive, default=8, help="frames in a clip")
    add("--steps-images", type=positive, default=800, help="training steps on images")
    add("--steps-video", type=positive, default=400, help="training steps on clips")
    add("--batch-images", type=positive, default=64, help="images in a step")
    add("--batch-video", type=positive, default=8, help="clips in a step")
    add_shared_options(
        parser, out="runs/inflate", clips=10, clips_help="images and videos to sample"
    )
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

    def loss_of(unet: nn.Module, draws: Draws) -> Tensor:
        x, names, *_ = clips(batch, frames, draws.generator)
        x = x.squeeze(2) if frames == 1 else x
        model = partial(velocity, unet, names.argmax(-1).to(args.device))
        return diffusion_loss(model, scheduler, x, draws, args.device)

    phase = "images" if frames == 1 else "video"
    fit(
        join(args.device), unet, ema, optimizer, loss_of,
        phase=phase, steps=range(steps), lr=args.lr, seed=args.seed, batch=batch,
    )  # fmt: skip
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
        noise = noise_of(shape, generator)
        return sample(model, noise, args.sampling_steps, args.device)

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
    InflatedDiffusersModel(video_unet).save_pretrained(args.out)

    if not torch.equal(samples(video_unet), images):
        raise RuntimeError("the inflated model gives other images than the image model")
    print("image samples: the same bit for bit, before and after")
    videos = samples(video_unet, args.frames)
    real = MovingDigits(SIZE)(256, args.frames, Generator().manual_seed(args.seed)).videos
    for name, clips in (("before", still), ("after", videos), ("real", real)):
        print(f"change from frame to frame, {name}: {change(clips):.3f}")
    print(f"wrote {', '.join(map(str, write_videos(torch.cat((still[:3], videos)), args.out)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
