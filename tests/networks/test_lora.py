import builtins

import pytest
import torch
from torch import nn

from kao.errors import ConfigError, MissingExtraError
from kao.networks import NETWORKS, UNetConfig
from kao.networks.lora import adapt, begin, is_adapter, merged

SMALL = {
    "unet": UNetConfig(width=8, levels=(1, 2), attention=(8,), groups=2),
    "dit": NETWORKS["dit"](width=16, depth=2, heads=2, patch=4),
    "linear_unet": NETWORKS["linear_unet"](width=8, levels=(1, 2), heads=2, head_width=4),
}


def made(name):
    torch.manual_seed(0)
    network = SMALL[name].build(channels=3, size=16).eval()
    return filled(network)


def filled(network):
    """Nothing is zero, so that every layer is heard."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def seen(network):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 16, 16, generator=generator)
    with torch.no_grad():
        return network(x, torch.tensor([10.0, 600.0]), None)


@pytest.mark.parametrize("name", SMALL)
def test_a_network_with_fresh_adapters_is_what_it_was(name):
    network = made(name)
    before = seen(network)
    adapt(network, rank=2, alpha=4.0)
    assert torch.equal(seen(network), before)
    assert any(is_adapter(n) for n, _ in network.named_parameters())


@pytest.mark.parametrize("name", SMALL)
def test_merged_it_draws_the_same_under_the_names_of_a_plain_network(name):
    network = made(name)
    names = list(network.state_dict())
    before = seen(network)
    adapt(network, rank=2, alpha=4.0)
    filled(network)
    with_adapters = seen(network)
    assert not torch.allclose(with_adapters, before, atol=1e-2)
    plain = merged(network)
    assert list(plain.state_dict()) == names
    torch.testing.assert_close(seen(plain), with_adapters, rtol=1e-4, atol=1e-4)
    assert torch.equal(seen(network), with_adapters)  # which is another, and stays


def test_outside_of_the_blocks_there_are_no_adapters():
    network = made("unet")
    adapt(network, rank=2, alpha=2.0)
    outer = {n.partition(".")[0] for n, _ in network.named_parameters() if is_adapter(n)}
    assert outer == {"down", "middle", "up"}


def test_the_projections_of_attention_and_of_the_noise_level_have_adapters():
    network = made("unet")
    adapt(network, rank=2, alpha=2.0)
    adapted = {n.split(".lora_")[0] for n, _ in network.named_parameters() if is_adapter(n)}
    assert {"middle.0.attention.qkv", "middle.0.attention.out", "middle.0.body.level"} <= adapted
    assert not any(name.endswith("conv_in") for name in adapted)


def test_plain_weights_go_into_a_network_with_adapters():
    plain, network = made("unet"), made("unet")
    adapt(network, rank=2, alpha=2.0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not is_adapter(name):
                parameter.zero_()
    begin(network, plain.state_dict())
    assert torch.equal(seen(network), seen(plain))


def test_adapters_can_be_counted_without_memory():
    with torch.device("meta"):
        network = SMALL["unet"].build(channels=3, size=16)
        adapt(network, rank=2, alpha=2.0)
    assert {p.device.type for p in network.parameters()} == {"meta"}


def test_a_network_without_such_layers_is_refused():
    with pytest.raises(ConfigError, match=r'set finetune\.train = "all"'):
        adapt(nn.Sequential(nn.Conv2d(3, 3, 3)), rank=2, alpha=2.0)


def test_layers_that_keep_magnitudes_take_no_adapters_and_it_is_said():
    network = NETWORKS["edm2"](width=8, levels=(1, 2), attention=(8,), head_width=8).build(
        channels=3, size=16
    )
    with pytest.raises(ConfigError, match=r"This EDM2 has no plain .* that preserve magnitudes"):
        adapt(network, rank=2, alpha=2.0)


def test_without_peft_the_extra_is_named(monkeypatch):
    network, real = made("unet"), builtins.__import__

    def without(name, *rest, **options):
        if name == "peft":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"\[lora\]"):
        adapt(network, rank=2, alpha=2.0)
