"""The configurations of `accelerate launch` say what the script then does; none ran on a GPU."""

import argparse
from pathlib import Path

import pytest
import train
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env

LAUNCH = Path(train.__file__).parent / "launch"


def test_each_is_tested_and_says_that_it_was_not_run():
    names = {path.name for path in LAUNCH.iterdir()}
    assert names == {"one_node.yaml", "several_nodes.yaml", "fsdp2.yaml"}
    for name in names:
        text = (LAUNCH / name).read_text()
        assert "Not run on GPUs yet." in text
        assert f"accelerate launch --config_file examples/launch/{name}" in text


@pytest.mark.parametrize(
    ("name", "machines", "processes", "sharded"),
    [
        ("one_node", 1, 8, False),
        ("several_nodes", 4, 32, False),
        ("fsdp2", 1, 8, True),
    ],
)
def test_accelerate_reads_it_and_the_script_what_it_passes_on(
    name, machines, processes, sharded, monkeypatch
):
    path = LAUNCH / f"{name}.yaml"
    config = load_config_from_file(str(path))
    kind = DistributedType.FSDP if sharded else DistributedType.MULTI_GPU
    assert config.distributed_type == kind
    assert (config.num_machines, config.num_processes) == (machines, processes)
    # as the launcher does: what the file says is as if it were said on the command line
    args = launch_command_parser().parse_args(["--config_file", str(path), train.__file__])
    args, *_ = _validate_launch_command(args)
    environment = prepare_multi_gpu_env(args)
    assert args.nproc_per_node == str(processes // machines)
    if sharded:
        assert environment["FSDP_VERSION"] == "2"
        assert environment["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    for key, value in environment.items():
        if key.startswith(("ACCELERATE_", "FSDP_")):
            monkeypatch.setenv(key, value)
    read: argparse.Namespace = train.parser().parse_args([])
    assert read.mixed_precision == "bf16"
    assert read.shard is sharded
