import copy
import pickle
from dataclasses import replace

import pytest
import torch

from kao.networks import UNetConfig
from kao.networks.attention import AttentionBlock
from kao.networks.cost import activation_bytes, counting, flops
from kao.networks.dropout import Dropout, seeded
from kao.networks.layers import ResidualBlock
from kao.networks.recompute import recompute

SMALL = UNetConfig(width=8, levels=(1, 2), blocks=2, attention=(8,), heads=2, dropout=0.3)
NETWORKS = {
    "conv": SMALL,
    "residual": replace(SMALL, resample="residual", level="film"),
    "stem": replace(SMALL, stem=2, attention=(4,)),
}
every_network = pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
both_modes = pytest.mark.parametrize("mode", ["blocks", "all"])

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
LABEL = torch.tensor([10.0, 500.0])


def awake(config):
    torch.manual_seed(0)
    network = config.build(channels=3, size=16)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def step(network):
    """The output and every gradient of one step, dropout included."""
    network.zero_grad()
    with seeded(network, torch.tensor([7, 8])):
        y = network(X, LABEL)
        y.square().mean().backward()
    return y.detach(), {name: p.grad.clone() for name, p in network.named_parameters()}


def runs(network, kind):
    """How often each module of a kind starts in one step."""
    count = 0

    def counted(module, args):
        nonlocal count
        count += 1

    # Before, not after: a second run ends as soon as the last thing that it must bring is there.
    hooks = [
        module.register_forward_pre_hook(counted)
        for module in network.modules()
        if isinstance(module, kind)
    ]
    step(network)
    for hook in hooks:
        hook.remove()
    return count / len(hooks)


@both_modes
@every_network
def test_gradients_are_the_same_to_the_bit_with_dropout(config, mode):
    network = awake(config)
    y, gradients = step(network)
    recompute(network, mode)
    again, same = step(network)
    assert torch.equal(y, again)
    assert [name for name in gradients if not torch.equal(gradients[name], same[name])] == []


@pytest.mark.parametrize("resample", ["conv", "conv_right"])
def test_strided_convolutions_are_not_run_again(resample):
    network = awake(replace(SMALL, resample=resample))
    strided = [stage.body for stage in network.down if stage.halves]
    owners = [part.owner for part in network.parts()]
    stages = [*network.down, *network.middle, *network.up]
    left = [stage.body for stage in stages if not any(stage is owner for owner in owners)]
    assert len(left) == 1 and left[0] is strided[0]


@both_modes
def test_gradients_are_the_same_to_the_bit_under_bf16(mode):
    network = awake(SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        _, gradients = step(network)
        recompute(network, mode)
        _, same = step(network)
    assert [name for name in gradients if not torch.equal(gradients[name], same[name])] == []


@every_network
def test_blocks_keep_less_than_none_and_all_less_than_blocks(config):
    with torch.device("meta"):
        network = config.build(channels=3, size=16)
        kept = {}
        for mode in ("none", "blocks", "all"):
            recompute(network, mode)
            kept[mode] = activation_bytes(network, (3, 16, 16), batch=2)
    assert kept["all"] < 0.7 * kept["blocks"] < 0.7 * 0.7 * kept["none"]


@both_modes
def test_bytes_counted_on_the_meta_device_are_those_of_a_step(mode):
    network = awake(SMALL)
    with torch.device("meta"):
        shapes = SMALL.build(channels=3, size=16)
    for each in (network, shapes):
        recompute(each, mode)
    with seeded(network, torch.tensor([7, 8])), counting(network) as kept:
        network(X, LABEL)
    assert kept.bytes == activation_bytes(shapes, (3, 16, 16), batch=2)


def test_blocks_run_twice_and_attention_once():
    network = awake(SMALL)
    assert runs(network, Dropout) == 1
    recompute(network, "blocks")
    assert (runs(network, Dropout), runs(network, AttentionBlock)) == (2, 1)


def test_all_runs_attention_and_upsampling_and_the_head_twice():
    network = awake(SMALL)
    recompute(network, "all")
    assert runs(network, AttentionBlock) == 2
    assert runs(network, torch.nn.Upsample) == 2
    assert runs(network, torch.nn.GroupNorm) == 2  # the head's included


@both_modes
def test_names_and_modules_stay_as_they_are(mode):
    network = awake(SMALL)
    names, modules = list(network.state_dict()), [type(m) for m in network.modules()]
    recompute(network, mode)
    assert list(network.state_dict()) == names
    assert [type(m) for m in network.modules()] == modules
    assert sum(isinstance(m, ResidualBlock) for m in network.modules()) > 0


@pytest.mark.parametrize("first", ["blocks", "all"])
def test_none_undoes_what_was_set_before(first):
    network = awake(SMALL)
    recompute(network, first)
    recompute(network, "none")
    assert runs(network, Dropout) == 1
    assert runs(network, AttentionBlock) == 1


@both_modes
def test_setting_a_mode_twice_recomputes_once(mode):
    network = awake(SMALL)
    recompute(network, mode)
    recompute(network, mode)
    assert runs(network, Dropout) == 2


def test_drawing_runs_nothing_twice():
    network = awake(SMALL).eval()
    plain = network(X, LABEL)
    recompute(network, "all")
    with torch.no_grad():
        assert torch.equal(network(X, LABEL), plain)


def test_operations_of_a_forward_pass_do_not_change():
    with torch.device("meta"):
        network = SMALL.build(channels=3, size=16)
        before = flops(network, (3, 16, 16))
        recompute(network, "all")
        assert flops(network, (3, 16, 16)) == before


@both_modes
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))],
    ids=["deep copy", "pickle"],
)
def test_a_copy_answers_with_its_own_weights_and_is_taught_itself(copied, mode):
    network, plain = awake(SMALL), awake(SMALL)
    recompute(network, mode)
    other = copied(network)
    with torch.no_grad():
        for parameter in (*other.parameters(), *plain.parameters()):
            parameter.mul_(0.9)
    y, gradients = step(plain)
    again, same = step(other)
    assert torch.equal(y, again)
    assert [name for name in gradients if not torch.equal(gradients[name], same[name])] == []
    assert all(parameter.grad is None for parameter in network.parameters())
    assert runs(other, Dropout) == 2
