from dataclasses import replace

import pytest
import torch

from kao.errors import ConfigError
from kao.networks import NETWORKS, Conditions, Takes, UNetConfig
from kao.networks.dropout import seeded
from kao.networks.lora import adapt, is_adapter
from kao.networks.selecting import choose

SMALL = {
    "unet": UNetConfig(width=8, levels=(1, 2), attention=(8,), groups=2),
    "dit": NETWORKS["dit"](width=16, depth=3, heads=2, patch=4),
    "linear_unet": NETWORKS["linear_unet"](width=8, levels=(1, 2), heads=2, head_width=4),
    "edm2": NETWORKS["edm2"](width=8, levels=(1, 2), blocks=1, attention=(8,), head_width=8),
}


def made(name, *, takes=Takes(), **changes):
    torch.manual_seed(0)
    network = replace(SMALL[name], **changes).build(channels=3, size=16, takes=takes)
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


@pytest.mark.parametrize(
    ("name", "changes", "scales"),
    [
        ("dit", {}, {"layers.0.level.weight", "level_out.bias"}),
        ("linear_unet", {}, {"middle.0.block.level.weight"}),
        ("unet", {"level": "film"}, {"middle.0.body.level.weight"}),
        ("unet", {"level": "add"}, set()),
        ("edm2", {}, set()),
    ],
)
def test_what_scales_a_norm_by_the_noise_level_learns_with_the_norms(name, changes, scales):
    chosen = choose(made(name, **changes), "norms_attention")
    assert scales <= set(chosen)
    assert any("level" in n for n in chosen) == bool(scales)


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
    with seeded(network, torch.tensor([7])):
        network(torch.randn(1, 3, 16, 16), torch.tensor([3.0]), None).sum().backward()
    assert told and not any(told)
    assert network.conv_in.weight.grad is None and network.conv_out.weight.grad is not None


NCSNPP = {
    "levels": (1, 2, 2),
    "blocks": 1,
    "attention": (),
    "resample": "projected",
    "embedding": "fourier",
    "input_pyramid": True,
}
TOLD = Takes(augmentations=2, classes=2)


@pytest.mark.parametrize(
    ("name", "changes"), [*((name, {}) for name in SMALL), ("unet", NCSNPP)], ids=[*SMALL, "ncsnpp"]
)
def test_what_frozen_blocks_say_does_not_move_in_a_step(name, changes):
    # Of NCSN++ a block at 16, the halving, and one at 8, which sees the picture again.
    network, count = made(name, takes=TOLD, dropout=0.0, **changes), 3 if changes else 2
    learning = choose(network, "all", freeze=count)
    said = []
    owner = list(network.blocks())[count - 1].owner
    owner.register_forward_hook(lambda module, args, h: said.append(h.detach().clone()))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    told = Conditions(augmentation=torch.eye(2), label=torch.tensor([0, 1]))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    for _ in range(2):
        network(x, torch.tensor([3.0, 400.0]), told).sum().backward()
        optimizer.step()
    assert torch.equal(*said)
    moved = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    assert moved and moved <= set(learning)


def test_the_picture_is_brought_to_levels_behind_the_frozen_blocks_by_what_learns():
    learning = choose(made("unet", **NCSNPP), "all", freeze=3)
    assert [n for n in learning if n.startswith("pyramid")] == [
        "pyramid.1.0.weight",
        "pyramid.1.0.bias",
    ]


def test_classes_that_are_new_learn_though_frozen_blocks_are_told_them():
    network = made("unet", takes=TOLD)
    learning = choose(network, "all", freeze=2, new=["classes.weight"])
    assert "classes.weight" in learning and "augmented.weight" not in learning


def test_there_must_be_a_block_left():
    network = made("dit")
    with pytest.raises(ConfigError, match=r"finetune.freeze = 3, and this DiT has 3 blocks"):
        choose(network, "all", freeze=3)
