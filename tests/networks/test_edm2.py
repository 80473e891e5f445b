import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from kao.errors import ConfigError
from kao.networks import Conditions, EDM2Config, Takes
from kao.networks.cost import parameters
from kao.networks.edm2 import MPAttention, MPBlock
from kao.networks.magnitude import (
    MPConv,
    MPFourier,
    MPLinear,
    mp_cat,
    mp_silu,
    mp_sum,
    pixel_norm,
    renormalise,
)

SMALL = EDM2Config(width=32, levels=(1, 2), blocks=2, attention=(8,), head_width=16)
LABEL = torch.tensor([10.0, 500.0])


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(config=SMALL, *, gain=1.0):
    """A network whose gains are not those that it starts with."""
    torch.manual_seed(0)
    network = config.build(channels=3, size=16)
    for parameter in network.parameters():
        if parameter.numel() == 1:
            parameter.data.fill_(gain)
    return network


def magnitude(x):
    return x.detach().square().mean().sqrt().item()


def rows(network):
    """Root mean square of every row of every weight."""
    weights = [m.weight for m in network.modules() if isinstance(m, MPConv | MPLinear)]
    return torch.cat([w.detach().flatten(1).square().mean(1).sqrt() for w in weights])


def step(network, optimiser, *, seed=1):
    optimiser.zero_grad()
    (
        network(noise(2, 3, 16, 16, seed=seed), LABEL) - noise(2, 3, 16, 16, seed=99)
    ).square().mean().backward()
    optimiser.step()


# --- published sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "millions"),
    # Karras et al. (2024a): EDM2-XS to XXL on latents of 64x64x4 with the classes of ImageNet.
    [(128, 125), (192, 280), (256, 498), (320, 777), (384, 1119), (448, 1523)],
)
def test_a_published_network_has_the_published_number_of_parameters(width, millions):
    with torch.device("meta"):
        config = EDM2Config(width=width)
        network = config.build(channels=4, size=64, takes=Takes(classes=1000))
    assert parameters(network) / 1e6 == pytest.approx(millions, abs=0.6)


# --- magnitudes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        lambda x: MPConv(64, 48, 1)(x),
        lambda x: mp_silu(x),
        lambda x: mp_sum(x, noise(8, 64, 16, 16, seed=2), 0.3),
        lambda x: mp_cat(x, noise(8, 16, 16, 16, seed=2)),
        lambda x: pixel_norm(7 * x),
    ],
    ids=["convolution", "silu", "sum", "cat", "pixel_norm"],
)
def test_each_layer_keeps_a_magnitude_of_1(made):
    torch.manual_seed(0)
    assert magnitude(made(noise(8, 64, 16, 16))) == pytest.approx(1, abs=0.02)


def test_the_cosines_of_every_level_have_magnitude_1():
    waves = MPFourier(128)(torch.linspace(-1500, 1100, 27))
    assert waves.square().mean(1).sqrt().tolist() == pytest.approx([1] * 27, abs=0.1)
    assert torch.corrcoef(waves).triu(1).abs().max() < 0.95  # neighbours are told apart


def test_the_frequencies_are_normal_and_the_phases_even():
    waves = MPFourier(256)
    assert waves.frequencies.std() == pytest.approx(1, abs=0.02)
    assert waves.frequencies.mean() == pytest.approx(0, abs=1e-3)
    assert waves.phases.sort().values.diff().max() < 2 / 256


def test_both_lists_of_channels_have_an_equal_say():
    a, b = mp_cat(noise(2, 60, 8, 8), noise(2, 20, 8, 8, seed=2)).split([60, 20], dim=1)
    assert a.square().sum().item() == pytest.approx(b.square().sum().item(), rel=0.05)


def test_activations_keep_their_magnitude_through_the_depth_at_the_start():
    network, met = built(replace(SMALL, levels=(1, 2, 2), blocks=3), gain=0.0), []
    for stage in (*network.down, *network.middle, *network.up):
        stage.register_forward_hook(lambda module, args, h: met.append(magnitude(h)))
    network(noise(2, 3, 16, 16), LABEL)
    assert len(met) == 11 + 2 + 14
    # What lies outside the picture is zero, and costs the rim of a small map some of it.
    assert 0.75 < min(met)
    assert max(met) < 1.1


def test_the_size_of_a_weight_does_not_matter():
    network = built().eval()
    other = copy.deepcopy(network)
    for i, module in enumerate(m for m in other.modules() if isinstance(m, MPConv | MPLinear)):
        module.weight.data.mul_(1.5 + i)
    x = noise(2, 3, 16, 16)
    torch.testing.assert_close(other(x, LABEL), network(x, LABEL), rtol=1e-4, atol=1e-4)


def test_weights_keep_their_magnitude_while_they_learn():
    network = built()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    for seed in range(5):
        step(network, optimiser, seed=seed)
    assert (rows(network) - 1).abs().max() > 1e-3  # the step leaves the sphere
    network(noise(2, 3, 16, 16), LABEL)
    torch.testing.assert_close(rows(network), torch.ones_like(rows(network)), atol=2e-5, rtol=0)


def test_a_gradient_is_tangential_to_its_weight():
    network = built()
    network(noise(2, 3, 16, 16), LABEL).square().mean().backward()
    for module in network.modules():
        if isinstance(module, MPConv | MPLinear):
            weight, gradient = module.weight.flatten(1), module.weight.grad.flatten(1)
            along = F.cosine_similarity(weight, gradient, dim=1)
            assert along.abs().max() < 1e-3


# --- renormalising ------------------------------------------------------------------------------


def test_to_renormalise_twice_is_to_do_it_once_to_the_bit():
    network = built()
    for parameter in network.parameters():
        parameter.data.mul_(3).add_(noise(*parameter.shape))
    renormalise(network)
    once = copy.deepcopy(network.state_dict())
    renormalise(network)
    assert all(torch.equal(once[name], value) for name, value in network.state_dict().items())


def test_two_passes_may_come_before_one_backward_pass():
    def gradients(passes):
        network = built()
        network.conv_in.weight.data.mul_(3)  # so that the first of them has something to do
        losses = [network(noise(2, 3, 16, 16), LABEL).square().mean() for _ in range(passes)]
        sum(losses).backward()
        return [parameter.grad for parameter in network.parameters()]

    for once, twice in zip(gradients(1), gradients(2), strict=True):
        torch.testing.assert_close(twice, 2 * once)


def test_drawing_leaves_weights_as_they_are():
    network = built().eval()
    for parameter in network.parameters():
        parameter.data.mul_(3)
    before = copy.deepcopy(network.state_dict())
    network(noise(2, 3, 16, 16), LABEL)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_weights_that_are_not_trained_stay_as_they_are():
    network = built()
    network.conv_in.weight.data.mul_(3)
    network.conv_in.weight.requires_grad_(False)
    before = network.conv_in.weight.clone()
    network(noise(2, 3, 16, 16), LABEL)
    assert torch.equal(network.conv_in.weight, before)


def test_a_run_that_stops_between_steps_goes_on_as_if_it_had_not():
    def trained(stops):
        network = built()
        optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
        for seed in range(4):
            if stops and seed == 2:
                network(noise(2, 3, 16, 16), LABEL)  # a look at it, in training mode
                weights, moments = copy.deepcopy((network.state_dict(), optimiser.state_dict()))
                network = built(gain=0.3)
                network.load_state_dict(weights)
                optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
                optimiser.load_state_dict(moments)
            step(network, optimiser, seed=seed)
        return network.state_dict()

    through, stopped = trained(False), trained(True)
    assert all(torch.equal(through[name], stopped[name]) for name in through)


# --- what it is made of -------------------------------------------------------------------------


def test_it_starts_as_nothing_by_its_gain_and_not_by_its_last_layer():
    network = SMALL.build(channels=3, size=16)
    assert network.conv_out.gain.item() == 0
    assert rows(network.conv_out).tolist() == pytest.approx([1] * 3, abs=1e-4)


def test_a_block_on_the_way_down_is_normed_and_one_on_the_way_up_is_not():
    torch.manual_seed(0)
    x, embedding = noise(2, 8, 4, 4), noise(2, 6)
    for normed in (True, False):
        block = MPBlock(8, 12, embedding=6, dropout=0.0, normed=normed)
        block.gain.data.fill_(0.7)
        start = pixel_norm(block.skip(x)) if normed else x
        scale = 1 + 0.7 * block.level(embedding)[:, :, None, None]
        h = block.conv_out(mp_silu(block.conv_in(mp_silu(start)) * scale))
        end = start if normed else block.skip(x)
        expected = (0.7 * end + 0.3 * h) / (0.7**2 + 0.3**2) ** 0.5
        torch.testing.assert_close(block(x, embedding), expected)


def test_the_first_layer_sees_a_channel_of_ones_beside_the_picture():
    network, seen = built(), []
    network.conv_in.register_forward_hook(lambda module, args, h: seen.append(args[0]))
    x = noise(2, 3, 16, 16)
    network(x, LABEL)
    assert torch.equal(seen[0], torch.cat([x, torch.ones(2, 1, 16, 16)], dim=1))


def test_the_embedding_has_magnitude_1_whatever_is_told():
    torch.manual_seed(0)
    network = SMALL.build(channels=3, size=16, takes=Takes(classes=2))
    network.classes.weight.data.normal_(std=5)
    told = []
    network.middle[0].register_forward_hook(lambda module, args, h: told.append(args[1]))
    network(noise(2, 3, 16, 16), LABEL, Conditions(label=torch.tensor([0, 1])))
    embedding = network.embed(LABEL) + network.classes.weight[:2]
    expected = mp_silu(embedding / embedding.square().mean(1, keepdim=True).sqrt())
    torch.testing.assert_close(told[0], expected)


def test_in_fp16_what_a_stage_says_is_cut_and_elsewhere_not():
    network = built().half().eval()
    stage = network.middle[1]
    stage.block.register_forward_hook(lambda module, args, h: 1000 * torch.sign(h))
    h, embedding = noise(2, 64, 8, 8), noise(2, 64)
    assert stage(h.half(), embedding.half()).abs().unique().tolist() == [256]
    assert stage.float()(h, embedding).abs().unique().tolist() == [1000]


def test_attention_weighs_by_cosines():
    torch.manual_seed(0)
    layer, x = MPAttention(8, head_width=4), noise(2, 8, 3, 5)
    q, k, v = layer.qkv(x).reshape(2, 3, 2, 4, 15).unbind(1)
    cosines = F.normalize(q, dim=2).mT @ F.normalize(k, dim=2)
    assert cosines.abs().max() <= 1 + 1e-6
    weights = (cosines * 4**0.5).softmax(-1)
    seen = (weights @ (F.normalize(v, dim=2) * 4**0.5).mT).mT.reshape(x.shape)
    torch.testing.assert_close(layer(x), mp_sum(x, layer.out(seen), 0.3))


def test_a_query_of_any_size_asks_the_same():
    torch.manual_seed(0)
    layer, x = MPAttention(8, head_width=8), noise(2, 8, 3, 5)
    q, k, v = layer.qkv(x).chunk(3, dim=1)
    before = layer(x)
    layer.qkv.register_forward_hook(lambda module, args, h: torch.cat([9 * q, 5 * k, v], dim=1))
    torch.testing.assert_close(layer(x), before)


# --- what does not fit --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "size", "words"),
    [
        ({"blocks": 0}, 16, "levels = [1, 2], blocks = 0 and head_width = 16 must all be 1 or"),
        ({"levels": ()}, 16, "levels = [], blocks"),
        ({"dropout": float("nan")}, 16, "network.dropout = nan; expected 0 or more, below 1."),
        ({"levels": (1,) * 1000}, 16, "has 1,000 levels, each of half the size of the one before"),
        ({}, 17, "a multiple of 2, and data.size = 17: try 16, or fewer levels."),
        ({"attention": (5,)}, 16, "names the size 5, which no level has at data.size = 16"),
        ({"head_width": 24}, 16, "network.head_width = 24 must divide the 64 channels at size 8"),
    ],
)
def test_what_does_not_fit_is_told_with_what_would(changes, size, words):
    with pytest.raises(ConfigError) as caught:
        replace(SMALL, **changes).build(channels=3, size=size)
    assert words in str(caught.value)


def test_tokens_are_refused():
    with pytest.raises(ConfigError, match=r'"edm2" reads no tokens.*"dit"'):
        SMALL.build(channels=3, size=16, takes=Takes(tokens=8))
