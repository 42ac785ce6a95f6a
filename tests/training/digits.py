"""Small models of moving digits, trained as the examples train theirs."""

from __future__ import annotations

from collections.abc import Callable

from clips import MovingDigits
from diffusers import DDPMScheduler
from diffusion import SCHEDULE, averaged, diffusion_loss, high_timesteps, optimizer_for
from draws import Draws, noise_of
from fitting import fit
from processes import join
from torch import Generator, Tensor, nn

from make_a_video_pytorch import SpaceTimeUnet

SIZE, FRAMES = 12, 6
Model = Callable[..., Tensor]


def small_unet(**arguments: int) -> SpaceTimeUnet:
    """One that learns in a minute."""
    return SpaceTimeUnet(
        dim=16,
        channels=1,
        dim_mult=(1, 2),
        self_attns=(False, True),
        temporal_compression=(False, False),
        resnet_block_depths=(1, 1),
        attn_dim_head=16,
        attn_heads=2,
        **arguments,
    )


def train(
    module: nn.Module,
    steps: range,
    model_for: Callable[[nn.Module, Tensor, Draws], Model],
    *,
    batch: int = 8,
    frames: int = FRAMES,
    lr: float = 3e-3,
    most_noise: bool = False,
) -> nn.Module:
    """Train the parameters of `module`, called as `model_for` says; the averaged one."""
    digits, scheduler = MovingDigits(SIZE), DDPMScheduler(**SCHEDULE)
    ema, optimizer = averaged(module), optimizer_for(module)

    def loss_of(called: nn.Module, draws: Draws) -> Tensor:
        clips = digits(batch, frames, draws.generator).videos
        x = clips if frames > 1 else clips.squeeze(2)
        timesteps = high_timesteps(scheduler, batch, draws) if most_noise else None
        model = model_for(called, x, draws)
        return diffusion_loss(model, scheduler, x, draws, "cpu", timesteps)

    fit(
        join("cpu"), module, ema, optimizer, loss_of,
        phase="training", steps=steps, lr=lr, seed=0, batch=batch,
    )  # fmt: skip
    return ema.module.eval()


def held_out(count: int) -> Tensor:
    """Clips of digits that are never trained on (b 1 f h w)."""
    return MovingDigits(SIZE, held_out=True)(count, FRAMES, Generator().manual_seed(1)).videos


def noise(shape: tuple[int, ...]) -> Tensor:
    """The same for samples that are compared."""
    return noise_of(shape, Generator().manual_seed(2))
