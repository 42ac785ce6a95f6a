"""The training script as one runs it, small."""

import sys

import train

TINY = "--dim 4 --frames 8 --size 16 --batch-images 2 --batch-video 2 --clips 3 --sampling-steps 2"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SCRIPT = [sys.executable, train.__file__]


def run(*arguments, out):
    """Run the script in this process; its exit code."""
    return train.main([*TINY.split(), "--out", str(out), *map(str, arguments)])


def last(out):
    """The last checkpoint of a run."""
    return train.last_checkpoint(out)
