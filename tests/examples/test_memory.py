"""The memory that a training is said to take; tests/training measures one."""

import json
import re

import memory
import pytest

from benchmarks.measure import MIB, peak_memory
from make_a_video_pytorch import SpaceTimeUnet, temporal_parameters

SMALL = {
    "dim": 24, "dim_mult": (1, 3), "self_attns": (False, True), "resnet_block_depths": (1, 1),
    "temporal_compression": (False, False), "attn_dim_head": 16, "attn_heads": 3,
}  # fmt: skip
WIDE = SMALL | {"dim": 128, "dim_mult": (1, 2)}  # the parameters take more than the activations
VIDEO = (2, 3, 7, 12, 20)


@pytest.fixture(scope="module")
def parts():
    """What a training of `SMALL` on `VIDEO` takes."""
    return memory.memory_of(SMALL, VIDEO)


def test_the_parts_of_a_training_on_videos(parts):
    count = [p.numel() for p in SpaceTimeUnet(**SMALL).parameters()]
    assert parts.parameters == parts.gradients == parts.average == 4 * sum(count)
    assert parts.optimizer == 2 * parts.parameters + 4 * len(count)  # and the number of steps
    assert parts.gathered == 0
    assert parts.total == 5 * parts.parameters + 4 * len(count) + parts.activations


def test_temporal_parameters_have_no_gradient_on_images():
    unet = SpaceTimeUnet(**SMALL)
    temporal = 4 * sum(p.numel() for p in temporal_parameters(unet))
    parts = memory.memory_of(SMALL, (2, 3, 12, 20))
    assert parts.parameters == parts.average == memory.bytes_of(unet)
    assert parts.gradients == parts.parameters - temporal > 0 < temporal
    assert parts.optimizer < 2 * parts.parameters


def test_shards_share_all_but_activations_and_what_is_gathered():
    one, three, many = (memory.memory_of(WIDE, VIDEO, shards=n) for n in (1, 3, 64))
    for name in ("parameters", "gradients", "optimizer", "average"):
        assert getattr(three, name) == pytest.approx(getattr(one, name) / 3, rel=1e-3)
    unet = SpaceTimeUnet(**WIDE)
    blocks = [unet.mid_block1, unet.mid_block2, unet.mid_attn]
    for first, further, attention, _ in (*unet.downs, *unet.ups):
        blocks += [first, *further] if attention is None else [first, *further, attention]
    root = memory.bytes_of(unet) - sum(map(memory.bytes_of, blocks))
    assert three.gathered == many.gathered == 2 * (max(map(memory.bytes_of, blocks)) + root)
    # at the peak of one not all of its gradients are there yet, for which it needs less beyond them
    assert one.activations < three.activations < many.activations
    assert many.activations < one.activations + one.gradients
    assert many.total < three.total < one.total


def test_more_videos_take_more_and_checkpointing_takes_less_of_activations_alone(parts):
    again = memory.memory_of(SMALL, VIDEO, gradient_checkpointing=True)
    doubled = memory.memory_of(SMALL, (2 * VIDEO[0], *VIDEO[1:]))
    assert again[:-1] == parts[:-1] == doubled[:-1]
    assert 3 * again.activations < 2 * parts.activations
    assert doubled.activations == pytest.approx(2 * parts.activations, rel=0.1)


def test_lower_precision_takes_less_of_activations_alone(parts):
    bf16, fp16 = (memory.memory_of(SMALL, VIDEO, mixed_precision=p) for p in ("bf16", "fp16"))
    assert bf16 == fp16
    assert bf16[:-1] == parts[:-1]  # they stay in full precision
    assert bf16.activations < 0.9 * parts.activations


def test_nothing_is_allocated_however_large_the_training():
    large = SMALL | {"dim": 512, "dim_mult": (1, 4)}
    parts = []
    taken = peak_memory(lambda: parts.append(memory.memory_of(large, (64, 3, 32, 128, 128))), "cpu")
    assert parts[0].parameters > 500 * MIB
    assert parts[0].activations > 1e6 * MIB
    assert taken < 200


@pytest.fixture
def asked(monkeypatch):
    """What is asked of `memory_of`, and what it answers."""
    calls, truly = [], memory.memory_of

    def memory_of(arguments, shape, **options):
        calls.append((arguments, shape, options, truly(arguments, shape, **options)))
        return calls[-1][-1]

    monkeypatch.setattr(memory, "memory_of", memory_of)
    return calls


def test_the_command_line_prints_a_table_of_both_ways(tmp_path, asked, capsys):
    config = tmp_path / "unet.json"
    config.write_text(json.dumps(SMALL))
    options = f"--config {config} --size 20 --frames 7 --batch 2 --shards 3 --mixed-precision bf16"
    assert memory.main(options.split()) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.split() == ["activations", "kept", "gradient", "checkpointing"]
    cells = {line.split()[0]: re.findall(r"([\d.]+) MiB", line) for line in lines}
    assert [*cells] == [*memory.Memory._fields, "total"]
    for again, (arguments, shape, step, parts) in enumerate(asked):
        assert arguments.items() >= SMALL.items()
        assert shape == (2, 3, 7, 20, 20)
        assert step == {
            "mixed_precision": "bf16", "shards": 3, "gradient_checkpointing": bool(again)
        }  # fmt: skip
        for name, column in cells.items():
            assert column[again] == f"{getattr(parts, name) / MIB:.1f}"


def test_one_frame_is_an_image_and_the_default_is_the_u_net_of_the_training(asked, capsys):
    memory.main(["--size", "16", "--frames", "1", "--batch", "5", "--dim", "8"])
    arguments, shape, *_ = asked[0]
    assert shape == (5, 3, 16, 16)
    assert (arguments["dim"], arguments["dim_mult"], arguments["channels"]) == (8, (1, 2), 3)
    assert arguments["condition_on_fps"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "15"], "`height` (=15) must be divisible by 4, two to the number of stages"),
        (["--config", "none"], "cannot be read as JSON: "),
        (["--config", "[3]"], "must hold an object of arguments by name"),
        (["--config", '{"dims": 3}'], "unexpected keyword argument 'dims'"),
        (["--mixed-precision", "fp8"], "invalid choice: 'fp8'"),
        (["--shards", "0"], "invalid positive value: '0'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(options, message, tmp_path, capsys):
    if options[0] == "--config":
        config = tmp_path / "unet.json"
        config.write_text(options[1])
        options = ["--config", str(config)]
    with pytest.raises(SystemExit, match="2"):
        memory.main(options)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_sizes_are_readable():
    assert memory.readable(3 * 2**29) == "1.50 GiB"
    assert memory.readable(2**29) == "512.0 MiB"
