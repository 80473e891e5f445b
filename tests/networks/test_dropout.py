import copy

import pytest
import torch
from torch import nn

from kao.errors import ConfigError
from kao.networks.dropout import Dropout, seeded

SEEDS = torch.arange(64)
SHARE = 0.3


def kept(seeds=SEEDS, *, layers=1, shape=(8, 16, 16), share=SHARE):
    """Which elements each layer keeps, (L, B, N), as numbers of mean 0 and variance 1."""
    network = nn.ModuleList(Dropout(share) for _ in range(layers))
    ones = torch.ones(len(seeds), *shape)
    with seeded(network, seeds):
        masks = torch.stack([layer(ones).flatten(1) != 0 for layer in network])
    return (masks.float() - (1 - share)) / (share * (1 - share)) ** 0.5


def correlation(one, other):
    """In standard deviations of what independent masks would have."""
    return float((one * other).mean() * one.numel() ** 0.5)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.13, 0.5, 0.9])
def test_the_share_is_dropped_and_the_mean_kept(share):
    layer, h = Dropout(share), torch.ones(64, 8, 16, 16, dtype=torch.float64)
    with seeded(layer, SEEDS):
        out = layer(h)
    off = (share * (1 - share) / h.numel()) ** 0.5
    assert float((out == 0).double().mean()) == pytest.approx(share, abs=4 * off)
    assert out.max().item() == pytest.approx(1 / (1 - share), rel=2e-4 if share > 0.8 else 2e-5)


def test_each_picture_and_each_place_is_dropped_as_often_as_the_share_says():
    masks = kept(torch.arange(512), shape=(4, 8, 8))[0]
    for means in (masks.mean(0) * 512**0.5, masks.mean(1) * 256**0.5):  # of variance 1
        assert float(means.square().mean()) == pytest.approx(1, abs=0.3)
        assert float(means.abs().max()) < 4.5


@pytest.mark.parametrize("apart", [1, 2, 3, 4, 16, 64, 256])
def test_elements_are_independent_of_their_neighbours(apart):
    masks = kept()[0]
    assert abs(correlation(masks[:, apart:], masks[:, :-apart])) < 4


@pytest.mark.parametrize("apart", [1, 2, 8, 32])
def test_pictures_are_independent(apart):
    masks = kept()[0]
    assert abs(correlation(masks[apart:], masks[:-apart])) < 4


def test_layers_and_steps_are_independent():
    one, other = kept(layers=2)
    later = kept(SEEDS + 64)[0]
    assert max(abs(correlation(a, b)) for a, b in ((one, other), (one, later))) < 4
    # Nor does one layer's mask of a picture come again, further on, as another's.
    assert max(abs(correlation(one[:, 4 * i :], other[:, : -4 * i])) for i in (1, 2, 3)) < 4


def test_a_picture_loses_the_same_in_any_batch_layout_and_precision():
    h = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    layer = Dropout(SHARE)

    def dropped(h, seeds):
        with seeded(layer, seeds):
            return layer(h) == 0

    expected = dropped(h, SEEDS[:4])
    assert torch.equal(dropped(h[1:3], SEEDS[1:3]), expected[1:3])
    assert torch.equal(
        dropped(h.contiguous(memory_format=torch.channels_last), SEEDS[:4]), expected
    )
    assert torch.equal(dropped(h.bfloat16(), SEEDS[:4]), expected)
    assert torch.equal(dropped(h, SEEDS[:4] + 1)[:3], expected[1:])


def test_the_masks_are_those_of_splitmix64():
    def mixed(z):
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    golden, seed, number = 0x9E3779B97F4A7C15, 12345, 1
    key = mixed((mixed((seed + golden) % 2**64) + golden * number) % 2**64)
    hashes = [mixed((key + golden * i) % 2**64) for i in range(5)]
    parts = [(h >> 16 * j) % 2**16 for h in hashes for j in range(4)][:18]
    signed = [part - 2**16 if part >= 2**15 else part for part in parts]

    network = nn.Sequential(Dropout(0.5), Dropout(0.5))
    with seeded(network, torch.tensor([seed])):
        out = network[number](torch.ones(1, 18))[0]
    assert out.tolist() == [2.0 if value >= 0 else 0.0 for value in signed]


def test_the_gradient_passes_where_the_activation_did():
    layer, h = Dropout(SHARE), torch.ones(2, 50, requires_grad=True)
    with seeded(layer, SEEDS[:2]):
        out = layer(h)
        out.sum().backward()
    assert torch.equal(h.grad, out.detach())


def test_it_neither_asks_nor_moves_the_global_generator():
    before = torch.get_rng_state()
    kept()
    assert torch.equal(torch.get_rng_state(), before)


def test_without_seeds_it_is_refused_where_it_would_drop_and_nothing_where_it_would_not():
    layer, h = Dropout(SHARE), torch.ones(2, 3)
    with pytest.raises(ConfigError, match="seeded"):
        layer(h)
    with seeded(layer, SEEDS[:2]):
        layer(h)
    with pytest.raises(ConfigError, match="seeded"):
        layer(h)
    assert copy.deepcopy(layer).eval()(h) is h
    assert Dropout(0.0)(h) is h


def test_a_compiled_layer_drops_the_same():
    layer, h = nn.Sequential(Dropout(SHARE)), torch.ones(4, 3, 5)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for seeds in (SEEDS[:4], SEEDS[4:8]):
        with seeded(layer, seeds):
            assert torch.equal(compiled(h), layer(h))
