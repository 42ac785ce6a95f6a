"""Contract 8: four dependencies, no side effect, nothing printed."""

import subprocess
import sys

ALLOWED = {"torch", "einops", "beartype", "packaging"}

CODE = """
import sys, builtins, random, warnings
import torch, einops, einops.layers.torch, beartype, packaging.version  # and what they load
before, state, threads = set(sys.modules), torch.get_rng_state(), torch.get_num_threads()
dtype, seed = torch.get_default_dtype(), random.getstate()
with warnings.catch_warnings():
    warnings.simplefilter("error")
    import make_a_video_pytorch
new = {name.partition(".")[0] for name in set(sys.modules) - before}
assert torch.equal(state, torch.get_rng_state()) and seed == random.getstate()
assert threads == torch.get_num_threads() and dtype == torch.get_default_dtype()
print(*sorted(new - set(sys.stdlib_module_names)))
"""


def test_importing_loads_the_four_dependencies_only_and_prints_nothing():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert set(done.stdout.split()) <= ALLOWED | {"make_a_video_pytorch"}


def test_building_and_running_prints_nothing(capfd):
    import torch

    from make_a_video_pytorch import SpaceTimeUnet

    SpaceTimeUnet(dim=4, attn_dim_head=8)(torch.randn(1, 3, 8, 16, 16), 5)
    assert capfd.readouterr() == ("", "")
