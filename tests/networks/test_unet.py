import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from kao.errors import ConfigError
from kao.networks import Takes, UNetConfig
from kao.networks.attention import AttentionBlock, attend
from kao.networks.embeddings import Fourier, sinusoids
from kao.networks.layers import ResidualBlock, group_norm

TINY = UNetConfig(width=8, levels=(1, 2), blocks=1, attention=(), dropout=0.0)
LABEL = torch.tensor([10.0, 500.0])


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


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attention", "maps"),
    # Down, middle, up: with two blocks a level, each named size gets 2 + 3, and the middle has 1.
    [((), [4]), ((8,), [8, 8, 4, 8, 8, 8]), ((4,), [4, 4, 4, 4, 4, 4])],
)
def test_attention_is_used_at_the_sizes_that_are_named_and_in_the_middle(attention, maps):
    config = replace(TINY, levels=(1, 1, 2), blocks=2, attention=attention)
    assert maps_with_attention(config, 16) == maps


def maps_with_attention(config, size):
    network = asleep(config, size)
    met = []
    for module in network.modules():
        if isinstance(module, AttentionBlock):
            module.register_forward_hook(lambda module, args, h: met.append(h.shape[-1]))
    network(pictures(size), LABEL)
    return met


def test_attention_may_be_left_out_of_the_middle_and_all_but_the_last_block_on_the_way_up():
    config = replace(TINY, levels=(1, 1, 2), blocks=2, attention=(8,))
    assert maps_with_attention(replace(config, middle_attention=False), 16) == [8, 8, 8, 8, 8]
    assert maps_with_attention(replace(config, up_attention="last"), 16) == [8, 8, 4, 8]
    last = asleep(replace(config, up_attention="last"), 16).up
    at_8 = [isinstance(stage.attention, AttentionBlock) for stage in last]
    assert at_8.index(True) == 6  # three blocks and a doubling at 4, then the third block


def test_heads_follow_the_width_of_one():
    config = replace(TINY, levels=(1, 2), attention=(16,), head_width=4)
    heads = {
        m.qkv.in_channels: m.heads
        for m in asleep(config, 16).modules()
        if isinstance(m, AttentionBlock)
    }
    assert heads == {8: 2, 16: 4}


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


def test_normed_queries_and_keys_do_not_see_how_large_their_weights_are():
    torch.manual_seed(0)
    block = AttentionBlock(8, heads=2, groups=32, qk_norm=True)
    nn.init.normal_(block.out.weight)
    x = torch.randn(2, 8, 6, 6)
    before = block(x)
    with torch.no_grad():
        block.qkv.weight[:16] *= 7
        block.qkv.bias[:16] *= 7
    torch.testing.assert_close(block(x), before, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        block.norm_q.weight *= 7
    assert (block(x) - before).abs().mean() > 1e-3


def test_normed_queries_and_keys_are_divided_by_their_root_mean_square_a_head_at_a_time():
    torch.manual_seed(0)
    block = AttentionBlock(8, heads=2, groups=32, qk_norm=True)
    nn.init.normal_(block.out.weight)
    nn.init.normal_(block.norm_q.weight)
    nn.init.normal_(block.norm_k.weight)
    x = torch.randn(2, 8, 3, 5)
    q, k, v = block.qkv(block.norm(x)).flatten(2).unflatten(1, (3, 2, 4)).unbind(1)
    q, k = (
        gain[:, None] * each / (each.square().mean(2, keepdim=True) + 1e-6).sqrt()
        for each, gain in ((q, block.norm_q.weight), (k, block.norm_k.weight))
    )
    expected = x + block.out(attend(q, k, v).reshape(x.shape))
    torch.testing.assert_close(block(x), expected)


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


def test_the_other_frequencies_stop_before_a_ten_thousandth():
    # Nichol & Dhariwal (2021): frequencies 10000^(-i / half).
    embedded = sinusoids(torch.tensor([3.0]), 8, endpoint=False)[0]
    angles = 3 * 10_000.0 ** -(torch.arange(4) / 4)
    torch.testing.assert_close(embedded, torch.cat([angles.sin(), angles.cos()]))


def test_fourier_frequencies_are_spread_like_draws_of_a_normal_law_of_16():
    frequencies = Fourier(4096).frequencies
    drawn = 16 * torch.randn(100_000, generator=torch.Generator().manual_seed(0)).abs()
    for share in (0.1, 0.5, 0.9):
        expected = drawn.quantile(share).item()
        assert frequencies.quantile(share).item() == pytest.approx(expected, rel=0.02)
    assert frequencies.square().mean().sqrt().item() == pytest.approx(16, rel=0.01)


def test_fourier_features_are_sines_and_cosines_of_turns_of_a_thousandth_of_the_label():
    # Karras et al. (2022): c_noise is a label of 250 ln(sigma) over 1000.
    features = Fourier(8)
    c_noise = torch.tensor([0.3])
    angles = 2 * math.pi * c_noise * features.frequencies
    expected = torch.cat([angles.sin(), angles.cos()])
    torch.testing.assert_close(features(1000 * c_noise)[0], expected)


def test_a_network_keeps_the_frequencies_that_it_is_given():
    config = replace(TINY, embedding="fourier")
    network, other = awake(config, 16), asleep(config, 16)
    assert network.embed[0].in_features == 2 * config.width
    network.features.frequencies.copy_(torch.rand(8))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(pictures(16), LABEL), network(pictures(16), LABEL))


def test_a_label_scale_of_a_quarter_tells_level_4000_as_1000():
    config = replace(TINY, label_scale=0.25)
    plain, scaled = awake(TINY, 16), awake(config, 16)
    assert torch.equal(plain(pictures(16), LABEL), scaled(pictures(16), 4 * LABEL))


# --- skips and the picture itself ---------------------------------------------------------------


def test_a_skip_scale_of_the_root_of_a_half_keeps_the_variance():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 64, 32, 32, generator=generator)

    def variance(scale):
        block = AttentionBlock(64, heads=1, groups=32, skip_scale=scale)
        nn.init.dirac_(block.out.weight)
        # The values become independent noise of variance 1: what attention found is as loud as x.
        noise = torch.randn(1, 64, 32, 32, generator=generator)
        block.out.register_forward_hook(lambda module, args, h: noise)
        return block(x).var().item()

    assert variance(1.0) == pytest.approx(2, rel=0.02)
    assert variance(math.sqrt(0.5)) == pytest.approx(1, rel=0.02)


def test_every_skip_of_a_network_is_scaled():
    # With all branches at zero a block is its skip, scaled: what is left is a power of the scale.
    config = replace(TINY, levels=(1,), blocks=1, attention=(16,), skip_scale=0.5)
    network = asleep(config, 16)
    x, embedding = torch.randn(2, 8, 16, 16), torch.zeros(2, 32)
    stage = network.middle[0]
    torch.testing.assert_close(stage(x, embedding), 0.25 * x)


@pytest.mark.parametrize("stem", [1, 2])
def test_the_pyramid_brings_the_picture_to_every_level(stem):
    config = replace(TINY, levels=(1, 2, 2), stem=stem, input_pyramid=True, skip_scale=0.5)
    network = asleep(config, 16)
    assert [layer[0].in_channels for layer in network.pyramid] == [3 * stem**2, 8]
    seen = {}
    for i, stage in enumerate(network.down):
        stage.register_forward_hook(lambda module, args, h, i=i: seen.__setitem__(i, (args[0], h)))
    x = pictures(16)
    network(x, LABEL)
    # Stages: block, halving, block, halving, block.
    first = 0.5 * (seen[1][1] + network.pyramid[0](nn.functional.pixel_unshuffle(x, stem)))
    torch.testing.assert_close(seen[2][0], first)
    second = 0.5 * (seen[3][1] + network.pyramid[1](first))
    torch.testing.assert_close(seen[4][0], second)


def test_the_pyramid_is_kept_for_the_way_up():
    network = asleep(replace(TINY, input_pyramid=True), 16)
    joined = []
    for stage in network.up:
        stage.register_forward_hook(lambda module, args, h: joined.append(args[2]))
    with torch.no_grad():
        network.pyramid[0][0].bias.fill_(1000.0)
    network(pictures(16), LABEL)
    # On the way up: two blocks at 8, of which the second takes the halved map back in.
    assert joined[1].mean() > 900


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
            "network.attention names the size 5, which no level has at data.size = 16: choose of "
            "the feature maps, which are [16, 8] pixels wide.",
        ),
        ({"heads": 3}, 16, "network.heads = 3 must divide the 16 channels at size 8: change heads"),
        ({"heads": 16, "attention": (16,)}, 16, "must divide the 8 channels at size 16"),
        ({"head_width": -1}, 16, "network.head_width = -1; expected 0, for heads as many as"),
        ({"head_width": 3}, 16, "network.head_width = 3 must divide the 16 channels at size 8"),
        ({"head_width": 8, "heads": 2}, 16, "network.heads = 2 does nothing beside network.head"),
        ({"norm_eps": 0.0}, 16, "network.norm_eps = 0.0; expected a small number above 0"),
        ({"norm_eps": math.nan}, 16, "network.norm_eps = nan; expected"),
        ({"skip_scale": 0.0}, 16, "network.skip_scale = 0.0; expected a number above 0, up to 1"),
        ({"skip_scale": math.inf}, 16, "network.skip_scale = inf; expected"),
        ({"label_scale": 0.0}, 16, "network.label_scale = 0.0; expected a number above 0: 1"),
        ({"dropout": math.nan}, 16, "network.dropout = nan; expected"),
        ({"resample_filter": "fir"}, 16, 'does nothing with network.resample = "conv": set'),
        ({"levels": (2,), "input_pyramid": True}, 16, "does nothing with one level, since nothing"),
    ],
)
def test_what_does_not_fit_is_told_with_what_would(changes, size, words):
    with pytest.raises(ConfigError) as caught:
        replace(TINY, **changes).build(channels=3, size=size)
    assert words in str(caught.value)


def test_heads_need_not_divide_where_nothing_attends():
    replace(TINY, width=12, levels=(1, 4), heads=16).check(16)


def test_heads_of_a_middle_without_attention_are_not_looked_at():
    replace(TINY, heads=3, middle_attention=False).check(16)


def test_a_network_that_is_to_read_tokens_is_refused():
    with pytest.raises(ConfigError) as caught:
        TINY.build(channels=3, size=16, takes=Takes(tokens=5))
    assert 'kind "unet" reads no tokens, and is to read some of width 5' in str(caught.value)
