"""Every optimiser moves sharded weights as it moves whole ones."""

import pytest
import torch
from several import several
from torch import nn

from kao import shards
from kao.processes import join
from kao.training.optimizers import OPTIMIZERS

CPU = torch.device("cpu")
HERE = [name for name in OPTIMIZERS if name != "adamw8bit"]  # works on a GPU only
STEPS = 3


def model():
    torch.manual_seed(0)
    return nn.ModuleList([nn.Conv2d(8, 9, 3), nn.Linear(10, 16), nn.Linear(16, 10)])


def moved(name, network):
    """Weights, and the method's own average, after some steps along made-up gradients."""
    method = OPTIMIZERS[name]()
    optimizer = method.build(
        network.named_parameters(), rate=0.01, betas=(0.9, 0.99), weight_decay=0.1
    )
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        for parameter in network.parameters():
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = shards.like(gradient, parameter)
        optimizer.step()
    average = method.averages(optimizer, network).values()
    return shards.whole(network.state_dict()), [shards.whole(a.average) for a in average]


def _sharded():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    processes, told = join(CPU), {}
    mesh = init_device_mesh("cpu", (processes.world,))
    for name in HERE:
        network = model()
        fully_shard(network[0], mesh=mesh)  # beside plain ones, as the loss's are
        fully_shard(network[1], mesh=mesh)
        told[name] = moved(name, network)
    return told


@pytest.fixture(scope="module")
def both():
    return several(2, _sharded)


@pytest.mark.parametrize("name", HERE)
def test_two_processes_with_half_the_weights_each_move_them_as_one(name, both):
    weights, averages = moved(name, model())
    for rank in both:
        sharded, theirs = rank[name]
        for there, here in zip([sharded, *theirs], [weights, *averages], strict=True):
            assert all(torch.allclose(there[key], here[key], atol=1e-6) for key in here)
