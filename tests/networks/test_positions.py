from dataclasses import replace

import pytest
import torch
from dits import LABEL, OPTIONS, TINY, asleep, awake, every_option, pictures

from kao.errors import ConfigError
from kao.networks import Conditions
from kao.networks.conditions import whole
from kao.networks.positions import places, places_told, rotated, rotation, sincos
from kao.networks.token_attention import SelfAttention


def test_positions_count_patches_from_the_upper_left_x_first():
    assert places(2, 2, of=2).tolist() == [[[0, 0], [1, 0], [0, 1], [1, 1]]]


def test_a_picture_of_another_size_lies_between_the_same_borders():
    # Two small patches to one large, around its centre.
    x = places(8, 8, of=4)[0, :8, 0]
    torch.testing.assert_close(x.view(4, 2).mean(1), torch.arange(4.0))
    assert x[1] - x[0] == 0.5


@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24)])
def test_coordinates_of_whole_pictures_are_their_positions(height, width):
    told = places_told(whole(height, width)[None], patch=4, of=4)
    torch.testing.assert_close(told, places(height // 4, width // 4, of=4))


def test_coordinates_of_a_part_are_the_positions_of_that_part():
    part = whole(16, 16)[None, :, 8:, 4:12]
    torch.testing.assert_close(
        places_told(part, patch=4, of=4),
        places(4, 4, of=4).view(1, 4, 4, 2)[:, 2:, 1:3].flatten(1, 2),
    )


def test_fixed_positions_are_those_of_peebles_and_xie():
    # Sines and cosines of the column, then of the row, at 10000^(-i / (C / 4)).
    table = sincos(places(4, 4, of=4), 8)
    frequencies = 10_000.0 ** -(torch.arange(2) / 2)
    x, y = 3 * frequencies, 2 * frequencies
    expected = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()])
    torch.testing.assert_close(table[0, 2 * 4 + 3], expected)


@pytest.mark.parametrize("positions", ["sincos", "rotary"])
def test_coordinates_decide_the_positions_and_are_seen_as_well(positions):
    network = awake(replace(TINY, positions=positions), coordinates=True)
    seen = []
    network.conv_in.register_forward_hook(lambda module, args, patches: seen.append(args[0]))
    x, part = pictures(8, 8), whole(16, 16)[:, 4:12, 8:].expand(2, -1, -1, -1)
    network(x, LABEL, Conditions(where=part))
    assert torch.equal(seen[0][:, 3:], part)
    with torch.no_grad():
        network.conv_in.weight[:, 3:] = 0  # blind to them, it has the positions alone
    there, anywhere = network(x, LABEL, Conditions(where=part)), network(x, LABEL)
    assert (there - anywhere).abs().mean() > 1e-3


def test_without_a_place_of_its_own_a_part_is_a_small_whole_picture():
    network = awake(TINY, coordinates=True)
    x = pictures(8, 8)
    told = Conditions(where=whole(8, 8).expand(2, -1, -1, -1))
    torch.testing.assert_close(network(x, LABEL), network(x, LABEL, told))


def test_rotary_attention_depends_on_relative_positions_alone():
    torch.manual_seed(0)
    attention = SelfAttention(16, heads=2, dropout=0.0, qk_norm=False)
    h, at = torch.randn(2, 12, 16), places(3, 4, of=4)
    here = attention(h, rotation(at, 8))
    moved = attention(h, rotation(at + torch.tensor([5.0, -2.5]), 8))
    torch.testing.assert_close(here, moved, rtol=1e-4, atol=1e-5)
    stretched = attention(h, rotation(2 * at, 8))
    assert (here - stretched).abs().max() > 1e-3


@pytest.mark.parametrize("axis", [0, 1])
def test_half_of_the_pairs_turn_with_x_and_half_with_y(axis):
    x = torch.ones(1, 1, 1, 8)
    at = torch.zeros(1, 1, 2)
    at[..., axis] = 1.5
    turned = rotated(x, rotation(at, 8)).view(2, 2, 2)  # first or second of a pair, axis, frequency
    angle = 1.5 * 100.0 ** -(torch.arange(2) / 2)
    expected = torch.ones(2, 2, 2)
    expected[0, axis], expected[1, axis] = angle.cos() - angle.sin(), angle.cos() + angle.sin()
    torch.testing.assert_close(turned, expected)


def test_learned_positions_begin_small_and_are_for_one_size():
    network = asleep(OPTIONS["learned"])
    assert network.positions.shape == (16, 16)
    assert network.positions.std().item() == pytest.approx(0.02, rel=0.2)
    for shape in ((8, 8), (16, 20)):
        with pytest.raises(ConfigError, match="learned positions for 16 x 16 pixels, and was"):
            network(pictures(*shape), LABEL)


@every_option
def test_a_token_elsewhere_is_another_token(config):
    # The same pixels in the other order: without positions, the same answer in that order.
    network, x = awake(config), pictures()
    assert not torch.allclose(network(x.flip(3), LABEL), network(x, LABEL).flip(3), atol=1e-3)
    patches = x.unflatten(3, (4, 4)).flip(3).flatten(3)
    there = network(x, LABEL).unflatten(3, (4, 4)).flip(3).flatten(3)
    assert not torch.allclose(network(patches, LABEL), there, atol=1e-3)
