"""Say how much memory a training of a SpaceTimeUnet takes on a GPU, before there is one.

    python examples/memory.py --size 64 --frames 16 --batch 8    # the U-Net of train.py
    python examples/memory.py --config unet.json --size 64 --frames 16 --batch 8 \\
        --shards 8 --mixed-precision bf16

A step of train.py is taken on tensors without data, which need no memory and no GPU. Not counted
is what no tensor holds: CUDA itself, with some hundred MiB, the workspace of convolutions, and
what is lost between the blocks of the allocator. The count was compared with trainings on a CPU,
with the kernels of a CPU in it, and not yet with one on a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from building import new_unet
from checkpoints import tried
from command_line import Parser, positive
from diffusers import DDPMScheduler
from diffusion import SCHEDULE, diffusion_loss, optimizer_for
from draws import Draws
from errors import DataError
from fake_gpu import Live, on_a_gpu
from sharding import units
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from make_a_video_pytorch import SpaceTimeUnet

Precision = Literal["no", "bf16", "fp16"]
TOKENS = 77  # of a text, as CLIP has them


class Memory(NamedTuple):
    """Bytes on each GPU.

    Attributes:
        parameters: of the U-Net.
        gradients: of those that have one; temporal parameters have none on images.
        optimizer: the two moments of AdamW.
        average: the averaged copy of the parameters.
        gathered: parameters and gradients that are whole at a time though they are sharded.
        activations: what a step takes beyond all that at its peak, when some of the gradients may
            not be there yet.
    """

    parameters: int
    gradients: int
    optimizer: int
    average: int
    gathered: int
    activations: int

    @property
    def total(self) -> int:
        """What the step takes at its peak."""
        return sum(self)


class Undrawn(Draws):
    """Random numbers without a value, which tensors without data are."""

    def integers(self, below: int, count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.long)

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape)


def memory_of(
    arguments: Mapping[str, object],
    shape: tuple[int, ...],
    *,
    mixed_precision: Precision = "no",
    gradient_checkpointing: bool = False,
    shards: int = 1,
) -> Memory:
    """What a training of `SpaceTimeUnet(**arguments)` takes on each GPU, as train.py does it.

    With `shards`, FSDP2 shards each ResnetBlock, each SpatioTemporalAttention, and the rest.

    Args:
        arguments: those of the U-Net.
        shape: of the images (b c h w) or videos (b c f h w) of a step on one GPU.
        mixed_precision: autocast of the forward pass, by accelerate's name for it.
        gradient_checkpointing: in place of the U-Net's own argument.
        shards: GPUs that share parameters, gradients, optimizer and average.

    Raises:
        ValueError: if the U-Net cannot be of such arguments, or does not take such a `shape`.
    """
    arguments = {**arguments, "gradient_checkpointing": gradient_checkpointing}
    live = Live()

    def keep_shard(parameter: Tensor) -> None:
        live.shard([parameter.grad], shards)

    with FakeTensorMode(), on_a_gpu(), live:
        unet = SpaceTimeUnet(**arguments)
        optimizer = optimizer_for(unet)
        scheduler = DDPMScheduler.from_config(SCHEDULE)
        x = torch.empty(shape)
        model = partial(unet, **conditions_of(unet, len(x)))
        parameters = live.shard(unet.parameters(), shards)
        for parameter in unet.parameters():
            parameter.register_post_accumulate_grad_hook(keep_shard)
        for _ in range(2):  # in the second there is what AdamW keeps
            live.peak = 0
            optimizer.zero_grad()
            with autocast(mixed_precision):
                loss = diffusion_loss(model, scheduler, x, Undrawn(0, 0), "cpu")
            loss.backward()
            nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            states = [state.values() for state in optimizer.state.values()]
            moments = live.shard((moment for state in states for moment in state), shards)
        grads = [p.grad for p in unet.parameters() if p.grad is not None]
        gradients = live.shard(grads, shards)
    return Memory(
        parameters=parameters,
        gradients=gradients,
        optimizer=moments,
        average=parameters,
        gathered=gathered(unet) if shards > 1 else 0,
        activations=live.peak - parameters - gradients - moments,
    )


def conditions_of(unet: SpaceTimeUnet, batch: int) -> dict[str, Tensor]:
    """All that the U-Net takes beside the noisy batch and its timesteps."""
    config, given = unet.config, {}
    if config["cond_dim"] is not None:
        given["cond"] = torch.empty(batch, config["cond_dim"])
    if config["context_dim"] is not None:
        given["context"] = torch.empty(batch, TOKENS, config["context_dim"])
        given["context_mask"] = torch.empty(batch, TOKENS, dtype=torch.bool)
    if config["condition_on_fps"]:
        given["fps"] = torch.empty(batch)
    return given


def autocast(mixed_precision: Precision) -> AbstractContextManager[None]:
    """Lower precision where torch knows it to be enough, or none of it."""
    if mixed_precision == "no":
        return nullcontext()
    # fp16 takes as much on a GPU; a CPU leaves more of it in full precision
    return torch.autocast("cpu", torch.bfloat16)


def gathered(unet: SpaceTimeUnet) -> int:
    """Bytes that a GPU needs beside its shards: the largest block, and what is in no block."""
    whole = bytes_of(unet)
    blocks = [bytes_of(part) for part in units(unet)]
    return 2 * (max(blocks) + whole - sum(blocks))  # parameters, and as much of gradients


def bytes_of(module: nn.Module) -> int:
    """Bytes of the parameters of a module."""
    return sum(parameter.nbytes for parameter in module.parameters())


def parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="arguments of the U-Net, as JSON")
    add("--dim", type=positive, default=32, help="features of the U-Net at full resolution")
    add("--size", type=positive, default=64, help="height and width of what the U-Net sees")
    add("--frames", type=positive, default=16, help="frames in a clip; 1 for images")
    add("--batch", type=positive, default=8, help="clips in a step on each GPU")
    add("--shards", type=positive, default=1, help="GPUs that share the U-Net, as by FSDP2")
    add("--mixed-precision", choices=get_args(Precision), default="no", help="of the forward pass")
    return parser


def config_of(args: argparse.Namespace) -> dict[str, object]:
    """The arguments of the U-Net, once it has taken a clip of this size."""
    asked = {"channels": 3, "cond_dim": None, "context_dim": None}
    with FakeTensorMode():
        return tried(new_unet(args, asked), args.frames, args.size).config


def table(columns: Mapping[str, Memory]) -> str:
    """A line for each part, with a column for each of `columns`."""
    lines = [f"{'':12}" + "".join(f"{title:>24}" for title in columns)]
    for name in (*Memory._fields, "total"):
        sizes = (readable(getattr(memory, name)) for memory in columns.values())
        lines.append(f"{name:12}" + "".join(f"{size:>24}" for size in sizes))
    return "\n".join(lines)


def readable(size: int) -> str:
    """Bytes in MiB, or in GiB from one on."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments`."""
    command = parser()
    args = command.parse_args(arguments)
    try:
        config = config_of(args)
    except DataError as error:
        command.error(str(error))
    frames = () if args.frames == 1 else (args.frames,)
    shape = (args.batch, config["channels"], *frames, args.size, args.size)
    step = {"mixed_precision": args.mixed_precision, "shards": args.shards}
    columns = {
        "activations kept": memory_of(config, shape, gradient_checkpointing=False, **step),
        "gradient checkpointing": memory_of(config, shape, gradient_checkpointing=True, **step),
    }
    print(table(columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
