"""What every network must do, whatever it is made of: a small one of each kind and option."""

import copy
from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import nn

from kao.errors import ConfigError
from kao.networks import (
    NETWORKS,
    Conditions,
    DiTConfig,
    EDM2Config,
    LinearUNetConfig,
    Takes,
    UNetConfig,
)
from kao.networks.conditions import whole
from kao.networks.dropout import seeded
from kao.networks.recompute import recompute

SIZE = 24
UNET = UNetConfig(width=8, levels=(1, 2), blocks=1, attention=(), dropout=0.0)
STEM = replace(UNET, stem=2, attention=(12, 6))
LINEAR = LinearUNetConfig(width=8, levels=(1, 2), blocks=1, heads=2, head_width=4, groups=4)
DIT = DiTConfig(width=16, depth=2, heads=2, patch=4)
MAGNITUDE = EDM2Config(width=8, levels=(1, 2), blocks=1, attention=(), head_width=8)

SMALL = {
    "unet": UNET,
    "unet-stem": replace(STEM, heads=2),
    "unet-stem-4": replace(UNET, stem=4, level="film", resample="residual"),
    "unet-film": replace(STEM, level="film"),
    "unet-residual": replace(STEM, resample="residual", heads=2),
    "unet-conv-right": replace(UNET, resample="conv_right", norm_eps=1e-6),
    "unet-projected": replace(UNET, resample="projected", skip_scale=sqrt(0.5)),
    "unet-fir": replace(UNET, resample="residual", resample_filter="fir", level="film"),
    "unet-adm": replace(STEM, level="film", resample="residual", embedding="adm", head_width=4),
    "unet-fourier": replace(UNET, embedding="fourier"),
    "unet-label-scale": replace(UNET, label_scale=0.25),
    "unet-qk-norm": replace(STEM, qk_norm=True, heads=2),
    "unet-no-middle": replace(STEM, middle_attention=False),
    "unet-up-last": replace(STEM, blocks=2, up_attention="last"),
    "unet-pyramid": replace(STEM, input_pyramid=True),
    "unet-ncsnpp": replace(
        UNET,
        levels=(1, 2, 2),
        attention=(12,),
        up_attention="last",
        resample="projected",
        resample_filter="fir",
        skip_scale=sqrt(0.5),
        norm_eps=1e-6,
        embedding="fourier",
        input_pyramid=True,
    ),
    "linear_unet": LINEAR,
    "linear_unet-stem": replace(LINEAR, stem=2, kernel=3, down="conv", activation="silu"),
    "linear_unet-deep": replace(LINEAR, levels=(1, 1, 2, 2), blocks=2),
    "linear_unet-rms": replace(
        LINEAR,
        groups=8,
        first=12,
        full_attention=(1,),
        memory=2,
        norm="rms",
        attention_norm="rms",
        standardised=False,
        theta=1000.0,
    ),
    "dit": DIT,
    "dit-rotary": replace(DIT, positions="rotary", norm="rms", qk_norm=True),
    "dit-small-patches": replace(DIT, patch=2, mlp_ratio=2.0, embedding="ddpm"),
    "edm2": MAGNITUDE,
    "edm2-stem": replace(MAGNITUDE, stem=2, attention=(12, 6)),
}
"""By the kind's name, and after a hyphen what is special about it; without dropout."""

BY_KIND = {kind: SMALL[kind] for kind in NETWORKS if kind in SMALL}
"""One of each kind, for facts that options do not change."""

every_network = pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)
every_kind = pytest.mark.parametrize("config", BY_KIND.values(), ids=BY_KIND)

LABEL = torch.tensor([10.0, 500.0])
EVERYTHING = Takes(coordinates=True, augmentations=9, classes=3)


def pictures(size=SIZE, *, count=2, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, channels, size, size, generator=generator)


def asleep(config, *, takes=Takes(), size=SIZE, channels=3):
    """A network as it starts."""
    torch.manual_seed(0)
    return config.build(channels=channels, size=size, takes=takes)


def awake(config, *, takes=Takes(), size=SIZE, channels=3):
    """A network whose every weight has moved, as after some training."""
    network = asleep(config, takes=takes, size=size, channels=channels)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
            if parameter.numel() == 1:  # a gain that starts at zero: a branch is more than a trace
                parameter.add_(0.5)
    return network


def told_everything():
    """Something of each kind of condition, another one for each of two pictures."""
    where = torch.stack([whole(SIZE, SIZE), whole(SIZE, SIZE) / 2])
    done = torch.eye(2, 9)
    return Conditions(where=where, augmentation=done, label=torch.tensor([0, 2]))


def dead(network):
    """Names of the parameters that no gradient reached."""
    return [n for n, p in network.named_parameters() if p.grad is None or p.grad.norm() < 1e-6]


def test_every_kind_has_a_small_network_here():
    assert set(BY_KIND) == set(NETWORKS)
    assert {type(config) for config in SMALL.values()} == set(NETWORKS.values())
    assert {name.split("-")[0] for name in SMALL} == set(NETWORKS)


# --- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_of_the_registry_builds_with_its_defaults(kind):
    with torch.device("meta"):
        network = NETWORKS[kind]().build(channels=3, size=32).eval()
        assert network(torch.empty(2, 3, 32, 32), torch.empty(2), None).shape == (2, 3, 32, 32)


@every_network
def test_a_picture_keeps_its_shape_at_sizes_that_are_odd_multiples(config):
    without = replace(
        config, **({"attention": ()} if isinstance(config, UNetConfig | EDM2Config) else {})
    )
    for times in (3, 5):
        size = times * config.multiple
        assert awake(without, size=size)(pictures(size), LABEL).shape == (2, 3, size, size)


@every_network
@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (4, 8)])
def test_channels_are_free(config, channels, outputs):
    network = config.build(channels=channels, size=SIZE, outputs=outputs)
    x = torch.zeros(1, channels, SIZE, SIZE)
    assert network(x, torch.zeros(1)).shape == (1, outputs, SIZE, SIZE)


@pytest.mark.parametrize("name", [name for name in SMALL if SMALL[name].multiple > 1])
def test_a_size_that_is_no_multiple_is_refused(name):
    config = SMALL[name]
    with pytest.raises(ConfigError, match=f"multiple of {config.multiple}"):
        config.check(3 * config.multiple + config.multiple // 2)


@pytest.mark.parametrize("name", [name for name in SMALL if SMALL[name].multiple > 1])
def test_a_picture_whose_sides_do_not_fit_is_refused_with_ones_that_do(name):
    multiple = SMALL[name].multiple
    with torch.device("meta"):
        network = SMALL[name].build(channels=3, size=SIZE)
        for height, width in ((SIZE, SIZE + 1), (SIZE + 1, SIZE)):
            words = f"of {width} x {height} pixels, .* of {multiple}: show it {SIZE} x {SIZE}."
            with pytest.raises(ConfigError, match=words):
                network(torch.empty(2, 3, height, width), torch.empty(2))


# --- as it starts -------------------------------------------------------------------------------


@every_network
def test_a_network_starts_as_nothing(config):
    network = asleep(config, takes=EVERYTHING)
    assert network(pictures(), LABEL, told_everything()).abs().max() == 0


@every_network
def test_what_a_network_takes_leaves_the_other_weights_as_they_were(config):
    plain = asleep(config).state_dict()
    other = asleep(config, takes=Takes(augmentations=9, classes=3)).state_dict()
    assert set(other) - set(plain) == {"augmented.weight", "classes.weight"}
    assert [name for name in plain if not torch.equal(plain[name], other[name])] == []


@every_kind
def test_the_outer_parts_have_the_same_names_in_all_networks(config):
    network = asleep(config, takes=EVERYTHING)
    names = {"conv_in", "conv_out", "embed", "augmented", "classes"}
    assert names <= dict(network.named_children()).keys()
    assert network.takes == EVERYTHING


@every_kind
def test_all_blocks_lie_in_lists_of_the_network(config):
    network = asleep(config)
    lists = [child for child in network.children() if isinstance(child, nn.ModuleList)]
    inside = {id(module) for blocks in lists for module in blocks.modules()}
    assert network.blocks()
    assert all(id(part.owner) in inside for part in network.blocks())


# --- what it listens to -------------------------------------------------------------------------


@every_network
def test_the_gradient_reaches_every_parameter(config):
    network = awake(config, takes=EVERYTHING)
    network(pictures(), LABEL, told_everything()).square().mean().backward()
    assert dead(network) == []


@every_network
def test_the_noise_level_changes_the_picture(config):
    network, x = awake(config), pictures()
    at_10, at_500 = network(x, torch.full((2,), 10.0)), network(x, torch.full((2,), 500.0))
    assert (at_10 - at_500).abs().mean() > 0.01 * at_10.abs().mean()


@every_network
def test_each_picture_is_told_its_own_level_class_place_and_augmentation(config):
    network, x, told = awake(config, takes=EVERYTHING), pictures(), told_everything()
    together = network(x, LABEL, told)
    for i in range(2):
        own = slice(i, i + 1)
        said = Conditions(told.where[own], told.augmentation[own], told.label[own])
        alone = network(x[own], LABEL[own], said)
        torch.testing.assert_close(together[own], alone, rtol=1e-4, atol=1e-5)


@every_kind
@pytest.mark.parametrize("field", ["where", "augmentation", "label"])
def test_each_thing_that_is_said_changes_the_picture(config, field):
    network, x = awake(config, takes=EVERYTHING), pictures()
    said = Conditions(**{field: getattr(told_everything(), field)})
    assert (network(x, LABEL) - network(x, LABEL, said))[1].abs().mean() > 1e-4


@every_kind
@pytest.mark.parametrize("field", ["where", "augmentation", "label"])
def test_a_condition_that_would_be_lost_is_refused(config, field):
    said = Conditions(**{field: getattr(told_everything(), field)})
    with pytest.raises(ConfigError, match=r"This network .* given .*: build it with"):
        asleep(config)(pictures(), LABEL, said)


# --- classes ------------------------------------------------------------------------------------


@every_kind
def test_a_network_told_classes_begins_as_one_that_is_not(config):
    plain, other = awake(config), asleep(config, takes=Takes(classes=3))
    missing = other.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["classes.weight"]
    label = Conditions(label=torch.tensor([0, 2]))
    assert torch.equal(plain(pictures(), LABEL), other(pictures(), LABEL, label))


@every_kind
def test_no_label_is_the_label_after_the_last(config):
    network, x = awake(config, takes=Takes(classes=3)), pictures()
    none = Conditions(label=torch.tensor([3, 3]))
    assert torch.equal(network(x, LABEL), network(x, LABEL, none))


@every_kind
def test_each_class_and_no_class_learn_apart(config):
    network = awake(config, takes=Takes(classes=3))
    said = Conditions(label=torch.arange(4))
    network(pictures(count=4), LABEL.repeat(2), said).square().mean().backward()
    rows = network.classes.weight.grad
    assert (rows.norm(dim=1) > 1e-6).all()
    assert len(rows.unique(dim=0)) == 4


# --- precision, copies, memory ------------------------------------------------------------------


@every_network
def test_a_step_in_bf16_is_near_one_in_float32(config):
    network, x = awake(config), pictures()

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


@every_network
def test_a_state_dict_carries_the_whole_network(config):
    network, other = awake(config, takes=EVERYTHING), asleep(config, takes=EVERYTHING)
    other.load_state_dict(network.state_dict())
    x, told = pictures(), told_everything()
    assert torch.equal(other(x, LABEL, told), network(x, LABEL, told))


@every_network
def test_a_copy_is_the_network_and_learns_for_itself(config):
    network = awake(config)
    other = copy.deepcopy(network)
    assert torch.equal(other(pictures(), LABEL), network(pictures(), LABEL))
    other(pictures(), LABEL).square().mean().backward()
    assert all(parameter.grad is None for parameter in network.parameters())


@every_network
def test_recomputing_gives_the_same_gradients_to_the_bit(config):
    network, x = awake(replace(config, dropout=0.3), takes=EVERYTHING), pictures()

    def step():
        network.zero_grad()
        with seeded(network, torch.tensor([7, 8])):
            y = network(x, LABEL, told_everything())
            y.square().mean().backward()
        return [y.detach(), *(p.grad.clone() for p in network.parameters())]

    kept = step()
    for mode in ("blocks", "all"):
        recompute(network, mode)
        assert all(torch.equal(a, b) for a, b in zip(kept, step(), strict=True)), mode


@every_kind
def test_dropout_acts_in_training_and_not_in_drawing(config):
    network, x = awake(replace(config, dropout=0.5)), pictures()

    def answer(*seeds):
        with seeded(network, torch.tensor(seeds)):
            return network(x, LABEL)

    network.train()
    assert torch.equal(answer(1, 2), answer(1, 2))
    assert not (answer(1, 2) == answer(3, 4)).flatten(1).all(1).any()
    with pytest.raises(ConfigError, match="seeded"):
        network(x, LABEL)
    network.eval()
    assert torch.equal(network(x, LABEL), answer(1, 2))


@every_kind
def test_what_is_dropped_of_a_picture_depends_on_no_other_picture(config):
    network, x = awake(replace(config, dropout=0.3), takes=EVERYTHING), pictures()

    def gradients(*rows):
        network.zero_grad()
        for here in rows:
            with seeded(network, torch.tensor([7, 8])[here]):
                told = Conditions(*(None if each is None else each[here] for each in everything))
                network(x[here], LABEL[here], told).square().sum().backward()
        return [p.grad.clone() for p in network.parameters()]

    everything = told_everything()
    whole_batch, in_pieces = gradients(slice(0, 2)), gradients(slice(0, 1), slice(1, 2))
    for one, other in zip(whole_batch, in_pieces, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(one.abs().max()))
