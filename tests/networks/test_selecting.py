import pytest
import torch

from kao.errors import ConfigError
from kao.networks import NETWORKS, UNetConfig
from kao.networks.lora import adapt, is_adapter
from kao.networks.selecting import choose

SMALL = {
    "unet": UNetConfig(width=8, levels=(1, 2), attention=(8,), groups=2),
    "dit": NETWORKS["dit"](width=16, depth=3, heads=2, patch=4),
    "linear_unet": NETWORKS["linear_unet"](width=8, levels=(1, 2), heads=2, head_width=4),
    "edm2": NETWORKS["edm2"](width=8, levels=(1, 2), blocks=1, attention=(8,), head_width=8),
}


def made(name):
    torch.manual_seed(0)
    network = SMALL[name].build(channels=3, size=16)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def learns(network):
    return [n for n, p in network.named_parameters() if p.requires_grad]


def test_by_default_all_of_it_learns():
    network = made("unet")
    assert choose(network, "all") == [n for n, _ in network.named_parameters()]


@pytest.mark.parametrize("name", SMALL)
def test_of_norms_and_attention_alone_no_other_convolution_learns(name):
    network = made(name)
    chosen = choose(network, "norms_attention")
    assert chosen == learns(network)
    assert any("attention" in n for n in chosen)
    assert not any(n.startswith(("conv_in", "conv_out", "embed")) for n in chosen)
    assert len(chosen) < len(list(network.parameters()))


def test_of_adapters_alone_nothing_else_learns():
    network = made("unet")
    adapt(network, rank=2, alpha=2.0)
    assert choose(network, "lora") == [n for n, _ in network.named_parameters() if is_adapter(n)]


@pytest.mark.parametrize("train", ["all", "norms_attention"])
def test_what_is_new_learns_whatever_is_chosen(train):
    network = made("unet")
    assert "conv_in.weight" in choose(network, train, freeze=2, new=["conv_in.weight"])


@pytest.mark.parametrize("name", SMALL)
def test_what_frozen_blocks_compute_stays_and_no_gradient_goes_through_them(name):
    network = made(name)
    count = 2
    choose(network, "all", freeze=count)
    owners = [part.owner for part in network.blocks()]
    assert not any(p.requires_grad for owner in owners[:count] for p in owner.parameters())
    assert all(p.requires_grad for p in owners[count].parameters())
    told = []
    owners[count - 1].register_forward_hook(lambda *given: told.append(given[2].requires_grad))
    if name == "dit":  # whose blocks work on tokens by themselves in a method of their own
        told.append(network.layers[count - 1].mlp[0].weight.requires_grad)
    network(torch.randn(1, 3, 16, 16), torch.tensor([3.0]), None).sum().backward()
    assert told and not any(told)
    assert network.conv_in.weight.grad is None and network.conv_out.weight.grad is not None


def test_there_must_be_a_block_left():
    network = made("dit")
    with pytest.raises(ConfigError, match=r"finetune.freeze = 3, and this DiT has 3 blocks"):
        choose(network, "all", freeze=3)
