from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

from kao.config import Request, RunConfig, dump
from kao.errors import ConfigError
from kao.networks import NETWORKS, UNetConfig
from kao.networks.cost import parameters
from kao.networks.layers import AttentionBlock, ResidualBlock, attend, group_norm, sinusoids

TINY = UNetConfig(width=8, levels=(1, 2), blocks=1, attention=(), dropout=0.0)
LABEL = torch.tensor([10.0, 500.0])

OPTIONS = [
    replace(TINY, stem=stem, level=level, resample=resample, heads=heads, attention=attention)
    for stem, level, resample, heads, attention in product(
        (1, 2, 4), ("add", "film"), ("conv", "residual"), (1, 2), ((), (24 // 4, 24 // 2))
    )
    if not attention or stem == 2
]
every_option = pytest.mark.parametrize("config", OPTIONS, ids=str)


def pictures(size, *, seed=1):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def asleep(config, size):
    """A network as it starts: all that ends a branch is zero."""
    torch.manual_seed(0)
    return config.build(channels=3, size=size)


def awake(config, size):
    """A network whose every weight has moved, as after some training."""
    network = asleep(config, size)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


# --- published sizes ----------------------------------------------------------------------------


def test_the_defaults_are_the_cifar_10_network_of_ho_et_al():
    # Ho et al. (2020), appendix B: 35.7 million parameters.
    with torch.device("meta"):
        assert parameters(UNetConfig().build(channels=3, size=32)) == 35_746_307


def test_the_anime_64_recipe_is_that_network_with_narrower_levels_and_28_million_parameters():
    config = Request.of("anime-64").over(dump(RunConfig()))
    assert config.data.size == 64
    assert config.network == replace(UNetConfig(), levels=(1, 1, 2, 2))
    assert parameters(config.build_denoiser("meta").network) == 28_482_307


# --- the contract of every network --------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_the_registry_builds_with_its_defaults(name):
    with torch.device("meta"):
        network = NETWORKS[name]().build(channels=3, size=32)
        assert network(torch.empty(2, 3, 32, 32), torch.empty(2), None).shape == (2, 3, 32, 32)


@every_option
def test_a_picture_keeps_its_shape(config):
    assert awake(config, 24)(pictures(24), LABEL).shape == (2, 3, 24, 24)


@pytest.mark.parametrize("size", [8, 20, 36])
@pytest.mark.parametrize("channels", [1, 4])
def test_sizes_and_channels_are_free(size, channels):
    network = TINY.build(channels=channels, size=size)
    x = torch.zeros(1, channels, size, size)
    assert network(x, torch.zeros(1)).shape == x.shape


@every_option
def test_a_network_starts_as_nothing(config):
    assert asleep(config, 24)(pictures(24), LABEL).abs().max() == 0


@every_option
def test_the_gradient_reaches_every_parameter(config):
    network = awake(config, 24)
    network(pictures(24), LABEL).square().mean().backward()
    dead = [n for n, p in network.named_parameters() if p.grad is None or p.grad.norm() < 1e-6]
    assert dead == []


@every_option
def test_the_noise_level_changes_the_picture(config):
    network = awake(config, 24)
    x = pictures(24)
    at_10, at_500 = network(x, torch.full((2,), 10.0)), network(x, torch.full((2,), 500.0))
    assert (at_10 - at_500).abs().mean() > 0.01 * at_10.abs().mean()


def test_each_picture_is_told_its_own_noise_level():
    network = awake(TINY, 16)
    x = pictures(16)
    together = network(x, LABEL)
    for i in range(2):
        alone = network(x[i : i + 1], LABEL[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", ["add", "film"])
def test_a_step_in_bf16_is_near_one_in_float32(level):
    network = awake(replace(TINY, width=32, level=level, attention=(8,), heads=4), 16)
    x = pictures(16)

    def step():
        network.zero_grad()
        y = network(x, LABEL).float()
        y.square().mean().backward()
        return y.detach(), torch.cat([p.grad.flatten() for p in network.parameters()])

    exact, exact_gradient = step()
    with torch.autocast("cpu", torch.bfloat16):
        rough, rough_gradient = step()
    assert not torch.equal(exact, rough)
    assert (exact - rough).norm() < 0.05 * exact.norm()
    assert torch.cosine_similarity(exact_gradient, rough_gradient, dim=0) > 0.99


@every_option
def test_a_state_dict_carries_the_whole_network(config):
    network = awake(config, 24)
    other = asleep(config, 24)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(pictures(24), LABEL), network(pictures(24), LABEL))


# --- options ------------------------------------------------------------------------------------


def test_dropout_acts_in_training_and_not_in_drawing():
    network = awake(replace(TINY, dropout=0.5), 16)
    x = pictures(16)
    network.train()
    assert not torch.equal(network(x, LABEL), network(x, LABEL))
    network.eval()
    assert torch.equal(network(x, LABEL), network(x, LABEL))


@pytest.mark.parametrize(
    ("attention", "maps"),
    # Down, middle, up: with two blocks a level, each named size gets 2 + 3, and the middle has 1.
    [((), [4]), ((8,), [8, 8, 4, 8, 8, 8]), ((4,), [4, 4, 4, 4, 4, 4])],
)
def test_attention_is_used_at_the_sizes_that_are_named_and_in_the_middle(attention, maps):
    network = asleep(replace(TINY, levels=(1, 1, 2), blocks=2, attention=attention), 16)
    met = []
    for module in network.modules():
        if isinstance(module, AttentionBlock):
            module.register_forward_hook(lambda module, args, h: met.append(h.shape[-1]))
    network(pictures(16), LABEL)
    assert met == maps


def test_attention_sees_the_far_corner():
    torch.manual_seed(0)
    block = AttentionBlock(8, heads=2, groups=32)
    nn.init.normal_(block.out.weight)
    # The norm, too, spreads a change over the whole map; without it only attention does.
    block.norm = nn.Identity()
    x = torch.randn(1, 8, 6, 6)
    changed = x.clone()
    changed[:, :, 0, 0] += 1
    assert ((block(x) - block(changed))[:, :, 1:, 1:].abs().amax(1) > 1e-4).all()


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_the_softmax_of_scaled_products(heads):
    # Vaswani et al. (2017), eq. 1, written out a head at a time.
    torch.manual_seed(0)
    block = AttentionBlock(8, heads=heads, groups=32)
    nn.init.normal_(block.out.weight)
    x = torch.randn(2, 8, 3, 5)
    q, k, v = block.qkv(block.norm(x)).flatten(2).chunk(3, dim=1)
    mixed = []
    for head in range(heads):
        own = slice(head * 8 // heads, (head + 1) * 8 // heads)
        weights = (q[:, own].mT @ k[:, own] / (8 / heads) ** 0.5).softmax(-1)
        mixed.append(v[:, own] @ weights.mT)
    expected = x + block.out(torch.cat(mixed, dim=1).reshape(x.shape))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("positions", [16, 64])
def test_attention_on_a_cpu_is_that_of_torch_to_the_bit(positions):
    q, k, v = torch.randn(3, 2, 4, 6, positions, generator=torch.Generator().manual_seed(0))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = nn.functional.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT
    assert torch.equal(attend(q, k, v), expected)


def test_film_scales_and_shifts_the_second_norm():
    torch.manual_seed(0)
    block = ResidualBlock(4, 4, embedding=6, dropout=0.0, groups=32, film=True)
    nn.init.normal_(block.conv_out.weight)
    x, embedding = torch.randn(2, 4, 5, 5), torch.randn(2, 6)
    scale, shift = block.level(embedding)[:, :, None, None].chunk(2, dim=1)
    h = block.norm_out(block.conv_in(nn.functional.silu(block.norm_in(x))))
    expected = x + block.conv_out(nn.functional.silu(h * (1 + scale) + shift))
    torch.testing.assert_close(block(x, embedding), expected)


@pytest.mark.parametrize("channels", [4, 8, 16, 32, 48, 64, 96, 128, 256])
def test_no_group_of_a_norm_is_one_channel_which_would_hide_the_noise_level(channels):
    norm = group_norm(channels, 32)
    assert norm.num_groups <= 32
    assert channels // norm.num_groups >= 2


@pytest.mark.parametrize("groups", [1, 4, 32])
def test_no_norm_of_a_network_has_more_groups_than_it_is_told(groups):
    network = asleep(replace(TINY, width=64, attention=(8,), groups=groups), 16)
    norms = [m for m in network.modules() if isinstance(m, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {groups}


def test_the_groups_of_published_widths_are_32():
    assert [group_norm(width, 32).num_groups for width in (128, 256, 512)] == [32, 32, 32]


def test_a_label_becomes_sines_and_cosines_of_falling_frequency():
    # Ho et al. (2020): frequencies 10000^(-i / (half - 1)), from 1 to 1e-4.
    embedded = sinusoids(torch.tensor([0.0, 3.0]), 8)
    angles = 3 * 10_000.0 ** -(torch.arange(4) / 3)
    assert embedded[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    torch.testing.assert_close(embedded[1], torch.cat([angles.sin(), angles.cos()]))


# --- what does not fit --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "size", "words"),
    [
        ({"blocks": 0}, 16, "levels = [1, 2], blocks = 0 and heads = 1 must all be 1 or more."),
        ({"levels": ()}, 16, "levels = [], blocks"),
        ({"levels": (1, 0)}, 16, "levels = [1, 0], blocks"),
        ({"heads": 0}, 16, "heads = 0 must all be"),
        ({"width": 7}, 16, "network.width = 7; the sinusoidal embedding needs an even width of at"),
        ({"width": 7}, 16, "try 8."),
        ({"width": 2}, 16, "try 4."),
        ({"groups": 0}, 16, "network.groups = 0; expected 1, 2, 4, 8, 16 or 32."),
        ({"groups": 12}, 16, "network.groups = 12; expected 1, 2, 4"),
        ({"dropout": 1.0}, 16, "network.dropout = 1.0; expected 0 or more, below 1."),
        ({"dropout": -0.1}, 16, "network.dropout = -0.1; expected"),
        (
            {"levels": (1, 2, 2), "stem": 2},
            36,
            "network.levels = [1, 2, 2] with stem = 2 needs a size that is a multiple of 8, and "
            "data.size = 36: try 32, or fewer levels.",
        ),
        ({"stem": 4}, 3, "try 8, or fewer levels."),
        (
            {"attention": (8, 5)},
            16,
            "network.attention names the size 5, which no level has at data.size = 16: the "
            "feature maps are [16, 8] pixels wide.",
        ),
        ({"heads": 3}, 16, "network.heads = 3 must divide the 16 channels at size 8: change heads"),
        ({"heads": 16, "attention": (16,)}, 16, "must divide the 8 channels at size 16"),
    ],
)
def test_what_does_not_fit_is_told_with_what_would(changes, size, words):
    with pytest.raises(ConfigError) as caught:
        replace(TINY, **changes).build(channels=3, size=size)
    assert words in str(caught.value)


def test_heads_need_not_divide_where_nothing_attends():
    replace(TINY, width=12, levels=(1, 4), heads=16).check(16)
