"""Inflated models under compilers, in threads and in several processes."""

import threading
from datetime import timedelta

import pytest
import torch
import torch._dynamo.testing
import torch.distributed as dist
import torch.multiprocessing as mp
from packaging.version import Version
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from make_a_video_pytorch import InflatedModel, per_frame, spatial_parameters
from tests.image_models import FORMS, Net, PixelAttention, inflated, sample_of

TORCH_2_6 = Version(torch.__version__).release < (2, 7)


def video(b=2, f=3, **kwargs):
    return torch.randn(b, 3, f, 5, 7, **kwargs)


def timestep(b=2):
    return torch.linspace(0.1, 0.9, b)


# Torch 2.6 cannot compile these results, nor export a module that sets an attribute.
NOT_IN_TORCH_2_6 = {"ordered", "dataclass", "frozen"} if TORCH_2_6 else set()


@pytest.mark.parametrize("form", sorted(FORMS.keys() - {"object"} - NOT_IN_TORCH_2_6))
def test_compiles_to_one_graph_for_images_and_one_for_videos(form, dynamo):
    model = inflated(Net(form), moved=True)
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend=counter)
    for _ in range(2):
        for x in (video(), video()[:, :, 0]):
            out, expected = compiled(x, timestep()), model(x, timestep())
            assert type(out) is type(expected)
            torch.testing.assert_close(sample_of(out), sample_of(expected))
    assert counter.frame_count == 2
    assert model.clip.sizes is None


def test_compiles_with_every_kind_of_argument(dynamo):
    model = inflated(Net(), moved=True)
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")
    given = {"gain": [per_frame(torch.randn(2, 3, 3))]}
    kwargs = dict(context=torch.randn(2, 4, 4), low_res=video(), given=given)
    x, t = video(), per_frame(torch.rand(2, 3))
    torch.testing.assert_close(compiled(x, t, **kwargs), model(x, t, **kwargs))


@pytest.mark.parametrize("reentrant", [None, False])
def test_a_compiled_model_learns_the_same(reentrant, dynamo):
    model = inflated(Net(reentrant=reentrant), moved=True)
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    x, t = video(), timestep()
    grads = []
    for run in (model, compiled):
        model.zero_grad()
        run(x, t).square().mean().backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-5)


class Small(nn.Module):
    """For what takes seconds: a part that may be compiled and checkpointed, and what is around."""

    def __init__(self, reentrant=None, breaks=False):
        super().__init__()
        self.reentrant, self.breaks = reentrant, breaks
        self.conv_in, self.conv_out = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)
        self.middle = PixelAttention(4)

    def forward(self, x):
        x = self.conv_in(x).tanh()
        if self.breaks:
            torch._dynamo.graph_break()
        if self.reentrant is None:
            return self.conv_out(self.middle(x))
        return self.conv_out(checkpoint(self.middle, x, use_reentrant=self.reentrant))


def grads_of(model, run, x):
    model.zero_grad()
    run(x).square().mean().backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_part_of_the_original_can_be_compiled(reentrant, dynamo):
    model, eager = inflated(Small(reentrant), moved=True), inflated(Small())
    eager.load_state_dict(model.state_dict())
    model.model.middle.compile(fullgraph=True, dynamic=False, backend="eager")
    for x in (video(), video()[:, :, 0]):
        got, expected = grads_of(model, model, x), grads_of(eager, eager, x)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own
def test_a_graph_break_in_the_original_is_no_harm(dynamo):
    model = inflated(Small(breaks=True), moved=True)
    compiled = torch.compile(model, dynamic=False, backend="eager")
    for x in (video(), video()[:, :, 0]):
        got, expected = grads_of(model, compiled, x), grads_of(model, model, x)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert model.clip.sizes is None


def test_one_graph_serves_many_sizes(dynamo):
    model = inflated(Small(), moved=True)
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    for b, f, h, w in [(2, 4, 6, 10), (3, 6, 8, 7), (2, 8, 7, 6), (5, 3, 12, 8)]:
        x = torch.randn(b, 3, f, h, w)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    assert counter.frame_count <= 2


@pytest.mark.skipif(TORCH_2_6, reason="see above")
def test_it_can_be_exported():
    model = inflated(Net(), moved=True)
    x, t = video(), timestep()
    exported = torch.export.export(model, (x, t)).module()
    torch.testing.assert_close(exported(x, t), model(x, t))


def test_functional_transforms():
    model = bare(Net())
    x, t = video(), timestep()
    parameters = dict(model.named_parameters())

    def loss(parameters):
        return torch.func.functional_call(model, parameters, (x, t)).square().mean()

    grads = torch.func.grad(loss)({name: p.detach() for name, p in parameters.items()})
    model(x, t).square().mean().backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(grads[name], parameter.grad)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # it scripts its own decompositions
@pytest.mark.parametrize("of", ["x", "parameters"])
def test_tangents_are_those_of_a_difference(of):
    """The attention of the model itself is foreign, and fused."""
    model = bare(Net()).double()
    x, t = video().double(), timestep().double()
    names, tensors = zip(*model.named_parameters(), strict=True)
    tensors = (x,) if of == "x" else tuple(p.detach() for p in tensors)

    def call(*tensors):
        if of == "x":
            return model(tensors[0], t)
        return torch.func.functional_call(model, dict(zip(names, tensors, strict=True)), (x, t))

    directions = tuple(map(torch.randn_like, tensors))
    out, tangent = torch.func.jvp(call, tensors, directions)
    ahead, behind = (
        call(*(p + step * d for p, d in zip(tensors, directions, strict=True)))
        for step in (1e-6, -1e-6)
    )
    torch.testing.assert_close(out, model(x, t))
    torch.testing.assert_close(tangent, (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-6)


def bare(net: Net) -> InflatedModel:
    """`net`, inflated, with one Parameter for each weight and none that is not used."""
    nn.utils.parametrize.remove_parametrizations(net.up, "weight")
    net.context = net.tokens.drop = None
    return inflated(net, moved=True)


def replica_of(model):
    """As nn.parallel.replicate does, which needs GPUs."""
    replicas = {module: module._replicate_for_data_parallel() for module in model.modules()}
    for module, replica in replicas.items():
        for name, child in module._modules.items():
            replica._modules[name] = replicas.get(child)
        replica._parameters.update(module._parameters)
    return replicas[model]


@pytest.mark.parametrize("wrapped", [False, True])
def test_replicas_in_threads_do_not_mix_their_videos(wrapped):
    model = bare(Net())
    inputs = [video(), video(3, 2), torch.randn(6, 3, 5, 7)]  # 6 rows each
    with torch.no_grad():
        expected = [model(x, 0.5) for x in inputs]
    if wrapped:  # since the last call
        model.model.down = nn.Sequential(model.model.down)
    wrong = []

    def work(index):
        replica = replica_of(model)
        for _ in range(100):
            with torch.no_grad():
                wrong.append(not torch.equal(replica(inputs[index], 0.5), expected[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 300
    assert not any(wrong)
    with torch.no_grad():
        assert torch.equal(model(inputs[2], 0.5), expected[2])
        assert torch.equal(model(inputs[0], 0.5), expected[0])


def built(frozen: bool):
    torch.manual_seed(0)
    model = bare(Net(reentrant=False))
    for parameter in spatial_parameters(model) if frozen else ():
        parameter.requires_grad_(False)
    return model


def trained(model, batches):
    """What `model` gives after a step on each batch."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for x in batches:
        optimizer.zero_grad()
        model(x, 0.5).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        return model(torch.ones(1, 3, 3, 5, 7).cumsum(2), 0.5)


def batches():
    return torch.randn(3, 2, 3, 3, 5, 7, generator=torch.Generator().manual_seed(1))


def run_of(rank: int, results, strategies: list[str], path: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    for strategy in strategies:
        model = built(strategy == "ddp-frozen")
        if strategy == "fsdp2":
            from torch.distributed.fsdp import fully_shard

            net = model.model
            for part in (net.conv_in, net.pixels, net.tokens, net.up):
                fully_shard(part)
            fully_shard(model)
        else:
            model = DistributedDataParallel(model)
        results[rank, strategy] = trained(model, batches()[:, rank : rank + 1]).numpy()
    dist.destroy_process_group()


def test_two_processes_train_as_one(tmp_path):
    # FSDP2 of torch 2.6 needs a GPU: a CPU stream has no `record_event`
    strategies = ["ddp", "ddp-frozen"] if TORCH_2_6 else ["ddp", "ddp-frozen", "fsdp2"]
    before = built(False)(torch.ones(1, 3, 3, 5, 7).cumsum(2), 0.5)
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(run_of, (results, strategies, str(tmp_path / "rendezvous")), nprocs=2)
        results = dict(results)
    for strategy in strategies:
        expected = trained(built(strategy == "ddp-frozen"), batches())
        assert not torch.allclose(before, expected, rtol=1e-2, atol=1e-2)
        for rank in range(2):
            got = torch.from_numpy(results[rank, strategy])
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
