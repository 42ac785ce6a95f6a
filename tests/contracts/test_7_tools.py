"""Contract 7: compilers, copies, distribution."""

import copy
import io
from datetime import timedelta

import pytest
import torch
import torch._dynamo.testing
import torch.distributed as dist
import torch.multiprocessing as mp
from packaging.version import Version
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from make_a_video_pytorch import SpaceTimeUnet, SpatioTemporalAttention
from tests.zoo import CONDITIONS, EVERY, EXTRA, ONE_STAGE, UNET, each, randomize

TORCH_2_6 = Version(torch.__version__).release < (2, 7)


# One U-Net of each kind will do: tracing one takes seconds.
COMPILED = {
    name: entry
    for name, entry in EVERY.items()
    if "unet" not in name or name in ("unet-causal", "unet-compressed")
}


@each(COMPILED)
def test_compiles_without_a_graph_break(entry, dynamo):
    module = randomize(entry.build(), 0.1)
    compiled = torch.compile(module, fullgraph=True, dynamic=False, backend="eager")
    video = entry.video()
    for x in (video[:, :, 0], video):
        out, expected = compiled(x, **entry.extra()), module(x, **entry.extra())
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["conv", "attention-bias", "attention-rotary", "down-both", "up-both"]
)
def test_one_graph_serves_many_shapes(name, dynamo):
    """Two, since the first may take equal sizes for one."""
    module, channels = randomize(EVERY[name].build(), 0.1), EVERY[name].shape[1]
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=counter)
    for b, f, h, w in [(2, 4, 6, 10), (3, 6, 8, 4), (2, 8, 4, 6), (5, 2, 12, 8)]:
        video = torch.randn(b, channels, f, h, w)
        torch.testing.assert_close(compiled(video), module(video), rtol=1e-4, atol=1e-5)
    assert counter.frame_count <= 2


def test_one_graph_serves_every_timestep(dynamo):
    unet = randomize(SpaceTimeUnet(**ONE_STAGE), 0.1)
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(unet, fullgraph=True, backend=counter)
    image = torch.randn(2, 3, 4, 6)
    for timestep in (999, 750, 500, 250, 1):
        torch.testing.assert_close(compiled(image, timestep), unet(image, timestep))
    assert counter.frame_count <= 2


def test_images_and_videos_take_turns_in_a_compiled_unet(dynamo):
    """Sizes become symbols at the second shape, in the checks of arguments too."""
    unet = randomize(SpaceTimeUnet(**ONE_STAGE, **CONDITIONS), 0.1)
    compiled = torch.compile(unet, fullgraph=True, backend="eager")
    conditions = {name: EXTRA[name]() for name in ("cond", "context", "fps")}
    for shape in [(2, 3, 4, 4, 6), (2, 3, 6, 4, 6), (2, 3, 4, 6)]:
        x = torch.randn(shape)
        given = {"cond_images": torch.randn(2, 2, *shape[2:]), **conditions}
        frames = torch.tensor([5.0, 7.0])
        expected = unet(x, frames, **given)
        torch.testing.assert_close(compiled(x, frames, **given), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pos_bias", [True, False])
def test_compiles_where_a_backend_is_chosen(pos_bias, dynamo):
    attn = SpatioTemporalAttention(7, dim_head=8, heads=3, pos_bias=pos_bias).bfloat16()
    compiled = torch.compile(attn, fullgraph=True, dynamic=False, backend="eager")
    video = torch.randn(2, 7, 3, 4, 5).bfloat16()
    torch.testing.assert_close(compiled(video), attn(video))


def difference(function, x, direction, step=1e-6):
    """The derivative of `function` along `direction`, by central differences."""
    with torch.no_grad():
        return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # it scripts its own decompositions
@each(EVERY)
def test_tangents_are_those_of_a_difference(entry):
    """Forward-mode derivatives, as MeanFlow and consistency training take them."""
    module = randomize(entry.build(), 0.2).double()
    extra, video = entry.extra(torch.float64), entry.video(dtype=torch.float64)
    for x in (video, video[:, :, 0]):
        direction = torch.randn_like(x)
        out, tangent = torch.func.jvp(lambda x: module(x, **extra), (x,), (direction,))
        expected = difference(lambda x: module(x, **extra), x, direction)
        torch.testing.assert_close(out, module(x, **extra))
        torch.testing.assert_close(tangent, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # as above
@each({name: EVERY[name] for name in ("conv", "attention-context", "unet-conditions")})
def test_tangents_of_parameters_alone(entry):
    module = randomize(entry.build(), 0.2).double()
    extra, video = entry.extra(torch.float64), entry.video(dtype=torch.float64)
    names, parameters = zip(*module.named_parameters(), strict=True)

    def call(flat):
        sizes = [p.numel() for p in parameters]
        parts = [f.view_as(p) for f, p in zip(flat.split(sizes), parameters, strict=True)]
        given = dict(zip(names, parts, strict=True))
        return torch.func.functional_call(module, given, (video,), extra)

    flat = torch.cat([p.detach().flatten() for p in parameters])
    direction = torch.randn_like(flat)
    _, tangent = torch.func.jvp(call, (flat,), (direction,))
    expected = difference(call, flat, direction)
    torch.testing.assert_close(tangent, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # as above
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # torch's
def test_tangents_of_other_transforms():
    """Of a gradient, as for a product with the Hessian, and of samples one by one."""
    attention = randomize(SpatioTemporalAttention(7, dim_head=8, heads=3), 0.2).double()
    video, direction = torch.randn(2, 2, 7, 3, 4, 5).double()

    def slope(x):
        return torch.func.grad(lambda x: attention(x).sin().sum())(x)

    def one_by_one(x):
        return torch.func.vmap(lambda x: attention(x[None])[0])(x)

    for function in (slope, one_by_one):
        _, tangent = torch.func.jvp(function, (video,), (direction,))
        expected = difference(function, video, direction)
        torch.testing.assert_close(tangent, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # as above
def test_a_loss_on_a_tangent_has_gradients():
    """MeanFlow (Geng et al. 2025): the derivative along x and the timestep together."""
    unet = randomize(SpaceTimeUnet(**ONE_STAGE), 0.2)
    x, timestep = torch.randn(2, 3, 2, 4, 6), torch.tensor([0.2, 0.7])
    tangents = torch.randn_like(x), torch.ones(2)
    out, tangent = torch.func.jvp(unet, (x, timestep), tangents)
    (out - tangent.detach()).square().mean().backward()
    assert all(p.grad is not None for p in unet.parameters())
    jacobian = torch.func.jacfwd(lambda t: unet(x, t))(timestep)
    torch.testing.assert_close(
        (jacobian * tangents[1]).sum(-1),
        torch.func.jvp(lambda t: unet(x, t), (timestep,), (tangents[1],))[1],
        rtol=1e-4,
        atol=1e-5,
    )


@each(EVERY)
def test_copies_are_the_module(entry):
    module = randomize(entry.build())
    video = entry.video()
    expected = module(video, **entry.extra())
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded = entry.build()
    loaded.load_state_dict(module.state_dict(), strict=True)
    for other in (copy.deepcopy(module), torch.load(file, weights_only=False), loaded):
        assert torch.equal(other(video, **entry.extra()), expected)


@each(EVERY)
def test_state_dicts_load_by_assignment_and_from_the_meta_device(entry):
    module = randomize(entry.build())
    with torch.device("meta"):
        empty = entry.build()
    empty.load_state_dict(module.state_dict(), strict=True, assign=True)
    video = entry.video()
    assert torch.equal(empty(video, **entry.extra()), module(video, **entry.extra()))


@each(EVERY)
def test_it_is_built_where_initialisation_is_turned_off(entry, monkeypatch):
    """As loaders do, by functions in the place of torch's that give None."""
    for name in dir(nn.init):
        if name.endswith("_") and not name.startswith("_"):
            monkeypatch.setattr(nn.init, name, lambda *args, **kwargs: None)
    empty = entry.build()
    monkeypatch.undo()
    module = randomize(entry.build())
    empty.load_state_dict(module.state_dict(), strict=True)
    video = entry.video()
    assert torch.equal(empty(video, **entry.extra()), module(video, **entry.extra()))


def run_of(rank: int, results, strategy: str, path: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    torch.manual_seed(0)
    unet = randomize(SpaceTimeUnet(**UNET), 0.1)
    video = torch.randn(2, 3, 4, 8, 12)
    if strategy == "ddp":
        model = DistributedDataParallel(unet)
    else:
        from torch.distributed.fsdp import fully_shard

        for block in (unet.mid_block1, unet.mid_attn, unet.mid_block2, *unet.downs[0][1]):
            fully_shard(block)
        model = fully_shard(unet)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(2):  # DDP speaks of unused parameters in the second step
        optimizer.zero_grad()
        out = model(video[rank : rank + 1], torch.tensor([5]))
        out.square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        out = model(video[:1], torch.tensor([5]))
    results[rank] = out.numpy()
    dist.destroy_process_group()


NO_FSDP2_ON_CPU = pytest.mark.skipif(
    TORCH_2_6,
    reason="FSDP2 of torch 2.6 needs a GPU: a CPU stream has no `record_event`",
)


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp2", marks=NO_FSDP2_ON_CPU)])
def test_two_processes_train_as_one(strategy, tmp_path):
    unet = randomize(SpaceTimeUnet(**UNET), 0.1)
    video = torch.randn(2, 3, 4, 8, 12)
    optimizer = torch.optim.SGD(unet.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        unet(video, torch.tensor([5])).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        expected = unet(video[:1], torch.tensor([5]))

    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(run_of, (results, strategy, str(tmp_path / "rendezvous")), nprocs=2)
        for rank in range(2):
            got = torch.from_numpy(results[rank])
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
