from dataclasses import replace

import pytest
import torch

from kao.errors import ConfigError
from kao.networks import Conditions, Takes, UNetConfig
from kao.networks.conditions import whole

TINY = UNetConfig(width=8, levels=(1, 2), blocks=1, attention=(), dropout=0.0)
LABEL = torch.tensor([10.0, 500.0])
X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def seeded(config=TINY, **takes):
    torch.manual_seed(0)
    return config.build(channels=3, size=16, takes=Takes(**takes))


def awake(config=TINY, **takes):
    """A network whose every weight has moved, as after some training."""
    network = seeded(config, **takes)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


# --- coordinates --------------------------------------------------------------------------------


def test_coordinates_are_of_pixel_centres_x_to_the_right_and_then_y_downwards():
    x, y = whole(2, 4)
    assert x.tolist() == [[-0.75, -0.25, 0.25, 0.75]] * 2
    assert y.tolist() == [[-0.5] * 4, [0.5] * 4]


def test_a_part_of_a_picture_has_a_part_of_its_coordinates():
    # Half the size at the upper right: x from 0 to 1, y from -1 to 0.
    part = whole(8, 8)[:, :4, 4:]
    torch.testing.assert_close(part[0], (whole(4, 4)[0] + 1) / 2)
    torch.testing.assert_close(part[1], (whole(4, 4)[1] - 1) / 2)


@pytest.mark.parametrize("stem", [1, 2])
def test_coordinates_are_two_more_channels_of_what_the_network_sees(stem):
    network = seeded(replace(TINY, stem=stem), coordinates=True)
    assert network.conv_in.weight.shape == (8, (3 + 2) * stem**2, 3, 3)
    assert network(X, LABEL).shape == X.shape


def test_where_nothing_is_said_the_picture_is_whole():
    network = awake(coordinates=True)
    where = whole(16, 16).expand(2, -1, -1, -1)
    assert torch.equal(network(X, LABEL), network(X, LABEL, Conditions(where=where)))
    assert torch.equal(network(X, LABEL), network(X, LABEL, Conditions()))


def test_the_same_pixels_elsewhere_are_drawn_otherwise():
    network = awake(coordinates=True)
    elsewhere = whole(16, 16).expand(2, -1, -1, -1) / 2
    there = network(X, LABEL, Conditions(where=elsewhere))
    assert (network(X, LABEL) - there).abs().mean() > 1e-3


def test_each_picture_is_told_its_own_place():
    network = awake(coordinates=True)
    where = torch.stack([whole(16, 16), whole(16, 16) / 2])
    together = network(X, LABEL, Conditions(where=where))
    alone = network(X[1:], LABEL[1:], Conditions(where=where[1:]))
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)


def test_a_network_with_coordinates_takes_pictures_of_other_sizes():
    network = awake(coordinates=True)
    assert network(X[..., :8, :8], LABEL).shape == (2, 3, 8, 8)


# --- what was done to a picture -----------------------------------------------------------------


def test_zeros_are_what_is_said_of_a_picture_to_which_nothing_was_done():
    network = awake(augmentations=9)
    nothing = Conditions(augmentation=torch.zeros(2, 9))
    assert torch.equal(network(X, LABEL), network(X, LABEL, nothing))


def test_what_was_done_to_a_picture_changes_it_and_no_other():
    network = awake(augmentations=9)
    done = torch.zeros(2, 9)
    done[1, 4] = 1
    plain, told = network(X, LABEL), network(X, LABEL, Conditions(augmentation=done))
    assert torch.equal(plain[0], told[0])
    assert (plain[1] - told[1]).abs().mean() > 1e-3


def test_the_gradient_reaches_the_weights_of_what_was_done():
    network = awake(augmentations=9)
    network(X, LABEL, Conditions(augmentation=torch.ones(2, 9))).square().mean().backward()
    assert network.augmented.weight.grad.norm() > 0


# --- networks without ---------------------------------------------------------------------------


def test_networks_of_one_seed_agree_with_and_without_augmentations():
    plain, other = seeded().state_dict(), seeded(augmentations=9).state_dict()
    assert set(other) - set(plain) == {"augmented.weight"}
    assert all(torch.equal(plain[name], other[name]) for name in plain)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (Conditions(where=torch.zeros(2, 2, 16, 16)), "build it with coordinates=True"),
        (Conditions(augmentation=torch.zeros(2, 9)), "build it with as many augmentations"),
    ],
)
def test_a_condition_that_would_be_lost_is_refused(condition, words):
    with pytest.raises(ConfigError) as caught:
        seeded()(X, LABEL, condition)
    assert words in str(caught.value)


def test_a_network_says_what_its_pictures_must_be_a_multiple_of():
    config = replace(TINY, levels=(1, 2, 2), stem=2)
    assert config.multiple == 8
    config.check(3 * config.multiple)
    with pytest.raises(ConfigError):
        config.check(3 * config.multiple + config.multiple // 2)


@pytest.mark.parametrize("strange", [-1, 4])
def test_a_class_that_there_is_not_is_refused(strange):
    takes = Takes(classes=3)
    takes.refuse_unheard(Conditions(label=torch.arange(4)))
    with pytest.raises(ConfigError, match=rf"tells 3 classes apart, .* label {strange}: give it 0"):
        takes.refuse_unheard(Conditions(label=torch.tensor([0, strange])))


def test_classes_elsewhere_than_on_the_cpu_are_not_waited_for():
    # A tensor without values: to look at one raises.
    label = torch.empty(2, dtype=torch.int64, device="meta")
    Takes(classes=3).refuse_unheard(Conditions(label=label))
