"""The training script, which says what each of its processes is, and stops where it is told to."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import building
import train
import training
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from processes import leave
from torch.distributed.tensor import DTensor

from tests.examples.models import embedding_of_digits

fit, save, join = training.fit, training.save_checkpoint, train.join


written = []  # below the folder of all tests, by what Python calls


def seeing(event, args):
    if event in ("open", "os.rename", "os.mkdir", "os.remove"):
        path, mode = str(args[0]), args[1] if event == "open" else "w"
        new = event != "os.mkdir" or not os.path.exists(path)
        own = Path(path).name.startswith("process-")
        if path.startswith(ROOT) and isinstance(mode, str) and set(mode) & set("wax+"):
            written.extend([path] * (new and not own))


def spying(accelerator, unet, ema, optimizer, *args, **kwargs):
    losses = fit(accelerator, unet, ema, optimizer, *args, **kwargs)
    states = [value for state in optimizer.state.values() for value in state.values()]
    kept = {
        "process": accelerator.process_index,
        "processes": accelerator.num_processes,
        "parts": kwargs["parts"],
        "sharded": sum(isinstance(p, DTensor) for p in unet.parameters()),
        "sharded_average": sum(isinstance(p, DTensor) for p in ema.parameters()),
        "sharded_states": sum(isinstance(value, DTensor) for value in states),
        "written": sorted(set(written)),
        "parameters": sum(1 for _ in unet.parameters()),
        "own": sum(
            (p.to_local() if isinstance(p, DTensor) else p).numel() for p in unet.parameters()
        ),
    }
    out = Path(os.environ["SPY"])
    out.mkdir(exist_ok=True)
    (out / f"process-{kept['process']}.json").write_text(json.dumps(kept))
    return losses


def stopping(out, step, *args):
    save(out, step, *args)
    if step == int(os.environ.get("STOP", -1)):
        raise KeyboardInterrupt


def as_on_gpus(*args, **settings):
    """The state that Accelerate has where its own FSDP2 is asked for, which it passes over here."""
    accelerator = join(*args, **settings)
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    accelerator.state.distributed_type = DistributedType.FSDP
    assert accelerator.is_fsdp2
    return accelerator


if __name__ == "__main__":
    if "SPY" in os.environ:
        ROOT = str(Path(os.environ["SPY"]).parent)
        sys.addaudithook(seeing)
    if "ACCELERATE_USE_FSDP" in os.environ:
        train.join = as_on_gpus
    if "SPY" in os.environ:
        training.fit = spying
    building.embedding_of_digits = embedding_of_digits  # that nobody waits for
    training.save_checkpoint = stopping
    leave(train.main())
