from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kao.errors import ConfigError
from kao.networks import LinearUNetConfig, Takes
from kao.networks.cost import parameters
from kao.networks.linear_attention import ChannelNorm, MapAttention, linear_attention
from kao.networks.post_norm import Double, Halve, PostNormBlock, StandardisedConv

TINY = LinearUNetConfig(width=8, levels=(1, 2, 2, 4), heads=2, head_width=4)
LABEL = torch.tensor([10.0, 500.0])


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(config, size=16):
    """A network that says something: its last layer is drawn."""
    torch.manual_seed(0)
    network = config.build(channels=3, size=size)
    nn.init.normal_(network.conv_out.weight)
    return network


def attention(**changes):
    torch.manual_seed(0)
    options = {"linear": True, "heads": 2, "head_width": 4, "memory": 0, "norm": "layer"}
    return MapAttention(6, **{**options, "mean_values": False, **changes})


# --- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [36, 20, 28, 1, 7])
def test_four_levels_take_every_size(size):
    network = built(TINY, size)
    y = network(noise(2, 3, size, size), LABEL)
    assert y.shape == (2, 3, size, size)
    assert y.std() > 0


def test_pictures_need_not_be_square():
    assert built(TINY)(noise(2, 3, 18, 31), LABEL).shape == (2, 3, 18, 31)


def test_an_odd_map_is_halved_as_if_its_last_row_and_column_came_twice():
    torch.manual_seed(0)
    halve, x = Halve(4, 6, "unshuffle"), noise(2, 4, 5, 7)
    twice = torch.cat([x, x[:, :, -1:]], dim=2)
    twice = torch.cat([twice, twice[:, :, :, -1:]], dim=3)
    assert torch.equal(halve(x), halve(twice))
    assert halve(x).shape == (2, 6, 3, 4)


def test_a_doubled_map_is_cut_to_the_one_that_it_joins_before_it_is_convolved():
    torch.manual_seed(0)
    double, x, like = Double(4, 6), noise(2, 4, 3, 4), torch.empty(2, 1, 5, 7)
    each_twice = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(double(x, like), double.conv(each_twice[:, :, :5, :7]))


def test_folded_pixels_lie_in_channels_from_the_left_and_then_down():
    halve = Halve(2, 8, "unshuffle")
    halve.conv.weight.data = torch.eye(8).reshape(8, 8, 1, 1)
    halve.conv.bias.data.zero_()
    x = torch.arange(8.0).reshape(1, 2, 2, 2)
    assert halve(x).flatten().tolist() == list(range(8))


# --- attention ----------------------------------------------------------------------------------


def test_linear_attention_is_the_product_of_all_pairs_of_positions():
    # Shen et al. (2021), eq. 3: softmax over the channels of each query, and over positions for
    # each channel of the keys; written with its 15 x 15 matrix of weights.
    q, k, v = noise(3, 2, 2, 4, 15)
    weights = q.softmax(2).mT @ k.softmax(3)
    assert weights.shape[-2:] == (15, 15)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 15))
    expected = (weights @ v.mT).mT / 2  # the square root of the head's width
    torch.testing.assert_close(linear_attention(q, k, v), expected)


@pytest.mark.parametrize("linear", [True, False])
def test_what_is_remembered_counts_as_positions_more(linear):
    layer, x = attention(linear=linear, memory=3), noise(2, 6, 3, 5)
    q, k, v = layer.qkv(layer.norm_in(x)).reshape(2, 3, 2, 4, 15).unbind(1)
    (more_k, more_v) = (part.expand(2, -1, -1, -1) for part in layer.memory)
    k, v = torch.cat([more_k, k], -1), torch.cat([more_v, v], -1)
    if linear:
        weights = q.softmax(2).mT @ k.softmax(3) / 2
    else:
        weights = (q.mT @ k / 2).softmax(-1)
    expected = layer.out((weights @ v.mT).mT.reshape(2, 8, 3, 5))
    torch.testing.assert_close(layer(x), x + layer.norm_out(expected))


def test_mean_values_are_divided_by_the_positions():
    plain, mean = attention(), attention(mean_values=True)
    with torch.no_grad():
        mean.qkv.weight[16:].mul_(15)
    torch.testing.assert_close(plain(noise(2, 6, 3, 5)), mean(noise(2, 6, 3, 5)))


def test_the_cost_of_linear_attention_grows_as_the_map():
    from torch.utils.flop_counter import FlopCounterMode

    def flops(side, *, linear):
        q = torch.empty(3, 1, 2, 4, side * side, device="meta")
        with FlopCounterMode(display=False) as counter:
            if linear:
                linear_attention(*q)
            else:
                _ = (q[0].mT @ q[1]) @ q[2].mT
        return counter.get_total_flops()

    assert flops(16, linear=True) == 4 * flops(8, linear=True)
    assert flops(16, linear=False) == 16 * flops(8, linear=False)


def test_attention_is_linear_at_each_level_and_full_in_the_middle_and_where_it_is_named():
    def linear(config):
        return [m.linear for m in built(config).modules() if isinstance(m, MapAttention)]

    assert linear(TINY) == [True] * 4 + [False] + [True] * 4
    named = replace(TINY, full_attention=(3, 1))
    # Down, middle, up: the levels come in the other order on the way up.
    assert linear(named) == [True, False, True, False, False, False, True, False, True]


# --- norms --------------------------------------------------------------------------------------


def test_scale_and_mean_of_a_standardised_kernel_do_not_matter():
    torch.manual_seed(0)
    conv, x = StandardisedConv(4, 6), noise(2, 4, 5, 5)
    before = conv(x)
    with torch.no_grad():
        scale, shift = noise(6, 1, 1, 1, seed=2).exp(), noise(6, 1, 1, 1, seed=3)
        conv.weight.mul_(20 * scale).add_(shift)
    torch.testing.assert_close(conv(x), before, rtol=2e-3, atol=2e-3)


def test_a_standardised_kernel_has_mean_0_and_variance_1():
    torch.manual_seed(0)
    conv = StandardisedConv(32, 6)
    conv.weight.data.mul_(20).add_(3)
    conv.bias.data.zero_()
    middle = torch.zeros(9 * 32, 32, 3, 3)
    middle.view(9 * 32, -1).fill_diagonal_(1)
    kernel = conv(middle)[:, :, 1, 1]
    torch.testing.assert_close(kernel.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(kernel.var(0, correction=0), torch.ones(6), atol=1e-4, rtol=0)


def test_a_layer_norm_is_that_of_torch_over_channels_and_an_rms_norm_only_scales():
    x = noise(2, 6, 3, 5)
    layer = F.layer_norm(x.movedim(1, -1), (6,)).movedim(-1, 1)
    torch.testing.assert_close(ChannelNorm(6, "layer")(x), layer)
    rms = F.rms_norm(x.movedim(1, -1), (6,)).movedim(-1, 1)
    torch.testing.assert_close(ChannelNorm(6, "rms")(x), rms)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_a_norm_over_channels_rounds_what_it_says_and_nothing_before(kind, dtype):
    # A mean a hundred times the spread, of which the difference has few digits left.
    x, norm = (noise(2, 6, 3, 5) + 100).to(dtype), ChannelNorm(6, kind)
    said = norm(x)
    assert said.dtype is dtype
    assert torch.equal(said, norm(x.float()).to(dtype))
    assert torch.equal(norm(torch.zeros_like(x)), torch.zeros_like(x))


def test_a_block_is_convolution_norm_and_silu_twice_around_a_skip():
    torch.manual_seed(0)
    block = PostNormBlock(4, 6, embedding=5, dropout=0.0, groups=2, standardised=True)
    x, embedding = noise(2, 4, 5, 5), noise(2, 5)
    scale, shift = block.level(embedding)[:, :, None, None].chunk(2, dim=1)
    h = F.silu(block.norm_in(block.conv_in(x)) * (1 + scale) + shift)
    expected = block.skip(x) + F.silu(block.norm_out(block.conv_out(h)))
    torch.testing.assert_close(block(x, embedding), expected)


# --- options ------------------------------------------------------------------------------------


def test_the_form_with_rms_norms_has_the_published_number_of_parameters():
    # Counted on Unet(dim=16) of denoising_diffusion_pytorch 2.3.4.
    config = LinearUNetConfig(
        width=16,
        norm="rms",
        attention_norm="rms",
        standardised=False,
        memory=4,
        full_attention=(3,),
    )
    with torch.device("meta"):
        assert parameters(config.build(channels=3, size=32)) == 2_439_043


def test_theta_sets_the_slowest_wave():
    slow, fast = built(TINY), built(replace(TINY, theta=100.0))
    assert not torch.equal(
        slow(noise(2, 3, 16, 16), LABEL),
        fast(noise(2, 3, 16, 16), LABEL),
    )


@pytest.mark.parametrize(
    ("changes", "size", "words"),
    [
        ({"blocks": 0}, 16, "blocks = 0, heads = 2 and head_width = 4 must all be 1 or more."),
        ({"levels": ()}, 16, "network.levels = [], blocks"),
        ({"width": 7}, 16, "network.width = 7; the sinusoidal embedding needs an even width"),
        ({"first": 5}, 16, "network.first = 5; expected an even number of channels, or 0"),
        ({"groups": 3}, 16, "network.groups = 3; expected 1, 2, 4, 8, 16 or 32."),
        ({"norm": "rms", "groups": 4}, 16, 'groups = 4 does nothing with network.norm = "rms"'),
        (
            {"mean_values": True, "full_attention": (0, 1, 2, 3)},
            16,
            "network.mean_values = true does nothing with full attention at every level",
        ),
        ({"memory": -1}, 16, "network.memory = -1; expected 0 or more."),
        ({"kernel": 4}, 16, "network.kernel = 4; expected an odd number"),
        ({"theta": float("nan")}, 16, "network.theta = nan; expected a number above 1"),
        ({"theta": float("inf")}, 16, "network.theta = inf; expected"),
        ({"dropout": 1.0}, 16, "network.dropout = 1.0; expected 0 or more, below 1."),
        ({"full_attention": (4,)}, 16, "names the level 4, but network.levels has 4, counted"),
        ({"stem": 2}, 17, "multiple of 2, and data.size = 17: try 16, or stem = 1."),
    ],
)
def test_what_does_not_fit_is_told_with_what_would(changes, size, words):
    with pytest.raises(ConfigError) as caught:
        replace(TINY, **changes).build(channels=3, size=size)
    assert words in str(caught.value)


def test_tokens_are_refused():
    with pytest.raises(ConfigError, match=r'"linear_unet" reads no tokens.*"dit"'):
        TINY.build(channels=3, size=16, takes=Takes(tokens=8))
