"""Print MiB at the peak of a training on a CPU, for which this process is a fresh one.

    PYTHONPATH=examples python -m tests.training.peak '[{"dim": 8}, [2, 3, 32, 32], "no"]'

Of the arguments of the U-Net, the shape of the batches, and the precision, two peaks are printed:
first that with all activations kept, then that under gradient checkpointing.
"""

import json
import sys
from functools import partial

import torch
from diffusers import DDPMScheduler
from diffusion import SCHEDULE, averaged, diffusion_loss, optimizer_for
from fitting import fit
from processes import join

from benchmarks.measure import peak_memory
from make_a_video_pytorch import SpaceTimeUnet
from make_a_video_pytorch.modules import resnet
from make_a_video_pytorch.ops.gradients import attention, convolution, norm


def without_gradients_by_hand(setattr=setattr):
    """Differentiate everything as torch does, as on a GPU."""
    for file in (resnet, attention, convolution, norm):
        setattr(file, "by_hand", lambda *tensors: False)


def train(arguments, shape, precision, steps):
    """Some steps of a training."""
    unet = SpaceTimeUnet(**arguments)
    scheduler = DDPMScheduler.from_config(SCHEDULE)
    x, batch, given = torch.zeros(shape), shape[0], {}
    if unet.config["cond_dim"] is not None:
        given["cond"] = torch.zeros(batch, unet.config["cond_dim"])
    if unet.config["context_dim"] is not None:
        given["context"] = torch.zeros(batch, 77, unet.config["context_dim"])
        given["context_mask"] = torch.ones(batch, 77, dtype=torch.bool)
    if unet.config["condition_on_fps"]:
        given["fps"] = torch.full((batch,), 8.0)

    def loss_of(called, draws):
        return diffusion_loss(partial(called, **given), scheduler, x, draws, "cpu")

    fit(
        join("cpu", mixed_precision=precision), unet, averaged(unet), optimizer_for(unet), loss_of,
        phase="", steps=range(steps), lr=1e-3, seed=0, batch=batch,
    )  # fmt: skip


def main(arguments, shape, precision):
    """Print both peaks."""
    torch.set_num_threads(1)
    without_gradients_by_hand()
    # what is loaded or built once
    train(arguments | {"dim": 4}, (1, *shape[1:-2], 4, 4), precision, steps=1)
    for again in (False, True):
        case = arguments | {"gradient_checkpointing": again}, shape, precision
        print(peak_memory(lambda case=case: train(*case, steps=2), "cpu"))


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
