from dataclasses import replace

import pytest
import torch
from torch import nn

from kao.networks import UNetConfig
from kao.networks.layers import ResidualBlock
from kao.networks.resampling import (
    FIRDown,
    FIRUp,
    doubling,
    doubling_conv,
    filtered_conv,
    halving,
    halving_conv,
)

TINY = UNetConfig(width=8, levels=(1, 2), blocks=1, attention=(), dropout=0.0)


def asleep(config, size):
    """A network as it starts: all that ends a branch is zero."""
    torch.manual_seed(0)
    return config.build(channels=3, size=size)


def upfirdn(x, taps, *, up, down, before, after):
    """Put zeros in, pad, correlate with the outer product of the taps, drop pixels: by definition.

    Karras et al. (2020a), for one channel, (H, W), float64, written as sums.
    """
    wide = torch.zeros(x.shape[0] * up, x.shape[1] * up, dtype=x.dtype)
    wide[::up, ::up] = x
    # The zeros behind the last pixel count as padding.
    padded = nn.functional.pad(wide, (before, after - up + 1, before, after - up + 1))
    rows, columns = (n - len(taps) + 1 for n in padded.shape)
    y = torch.zeros(rows, columns, dtype=x.dtype)
    for i, a in enumerate(taps):
        for j, b in enumerate(taps):
            y += a * b * padded[i : i + rows, j : j + columns]
    return y[::down, ::down]


def test_fir_filters_are_those_of_their_definition():
    x = torch.randn(2, 3, 6, 10, generator=torch.Generator().manual_seed(0)).double()
    taps = torch.tensor([1, 3, 3, 1]) / 8
    down, up = FIRDown()(x), FIRUp()(x)
    assert (down.shape, up.shape) == ((2, 3, 3, 5), (2, 3, 12, 20))
    for b in range(2):
        for c in range(3):
            smaller = upfirdn(x[b, c], taps, up=1, down=2, before=1, after=1)
            larger = upfirdn(x[b, c], 2 * taps, up=2, down=1, before=2, after=2)
            torch.testing.assert_close(down[b, c], smaller)
            torch.testing.assert_close(up[b, c], larger)


@pytest.mark.parametrize("name", ["box", "fir"])
def test_a_filter_keeps_a_flat_map_flat_but_for_its_edges(name):
    flat = torch.full((1, 2, 12, 12), 3.0)
    for resample in (halving(name), doubling(name)):
        torch.testing.assert_close(resample(flat)[:, :, 1:-1, 1:-1].unique(), torch.tensor([3.0]))


def test_the_box_filter_is_the_mean_of_four_and_the_nearest_pixel():
    x = torch.randn(1, 2, 4, 4)
    means = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    torch.testing.assert_close(halving("box")(x), means)
    nearest = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(doubling("box")(x), nearest)


@pytest.mark.parametrize(("right", "padding"), [(True, (0, 1, 0, 1)), (False, (1, 1, 1, 1))])
def test_the_strided_convolution_pads_right_and_below_only_where_it_is_told_to(right, padding):
    torch.manual_seed(0)
    layer, x = halving_conv(4, right=right), torch.randn(2, 4, 8, 8)
    conv = next(m for m in layer.modules() if isinstance(m, nn.Conv2d))
    padded = nn.functional.pad(x, padding)
    expected = nn.functional.conv2d(padded, conv.weight, conv.bias, stride=2)
    assert expected.shape == (2, 4, 4, 4)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("name", ["box", "fir"])
def test_a_filtered_convolution_is_one_kernel_with_a_stride(name):
    # Filters without bounds between them commute; the picture is held away from the edges.
    torch.manual_seed(0)
    layer = filtered_conv(3, 4, name)
    x = nn.functional.pad(torch.randn(2, 3, 4, 4), (4, 4, 4, 4))
    expected = nn.functional.conv2d(halving_of_each_shift(x, name), layer[0].weight, layer[0].bias)
    torch.testing.assert_close(layer(x)[:, :, 1:-1, 1:-1], expected[:, :, ::2, ::2])


def halving_of_each_shift(x, name):
    """The filter at every pixel: four halvings of the picture, shifted, put together."""
    y = torch.zeros(*x.shape[:2], x.shape[2], x.shape[3])
    for i in (0, 1):
        for j in (0, 1):
            y[:, :, i::2, j::2] = halving(name)(x.roll((-i, -j), dims=(2, 3)))
    return y[:, :, 1:-2, 1:-2]


@pytest.mark.parametrize("name", ["box", "fir"])
@pytest.mark.parametrize("change", [halving, doubling])
def test_a_residual_block_changes_size_in_both_branches(change, name):
    torch.manual_seed(0)
    resample = change(name)
    block = ResidualBlock(
        4, 4, embedding=6, dropout=0.0, groups=32, film=False, resample=resample, projected=True
    )
    nn.init.normal_(block.conv_out.weight)
    x, embedding = torch.randn(2, 4, 8, 8), torch.randn(2, 6)
    h = block.conv_in(resample(nn.functional.silu(block.norm_in(x))))
    h = block.norm_out(h + block.level(embedding)[:, :, None, None])
    expected = block.skip(resample(x)) + block.conv_out(nn.functional.silu(h))
    torch.testing.assert_close(block(x, embedding), expected)
    assert isinstance(block.skip, nn.Conv2d)


def test_only_projected_networks_have_convolutions_on_the_skips_of_resampling():
    def projections(resample):
        network = asleep(replace(TINY, levels=(1, 1, 1), resample=resample), 16)
        stages = [s for s in (*network.down, *network.up) if not s.joins]
        bodies = [s.body for s in stages if isinstance(s.body, ResidualBlock)]
        return sum(isinstance(body.skip, nn.Conv2d) for body in bodies)

    assert (projections("residual"), projections("projected")) == (0, 4)


def test_conv_right_has_the_same_parameters_in_the_same_order():
    plain = asleep(TINY, 16).state_dict().values()
    right = asleep(replace(TINY, resample="conv_right"), 16).state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(plain, right, strict=True))


def test_doubling_repeats_each_pixel_before_its_convolution():
    torch.manual_seed(0)
    layer, x = doubling_conv(4), torch.randn(2, 4, 3, 5)
    nearest = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(layer(x), layer[1](nearest))
