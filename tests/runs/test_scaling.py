from dataclasses import replace

import pytest

from kao.config import Request, RunConfig, dump
from kao.runs.scaling import ANCHOR_IMAGES, GROUPED, LONGER, Open, scaled

ALL = Open(width=True, groups=True, batch=True, rate=True, warmup=True)
FIXED = replace(ALL, width=False, groups=False)


def recipe(*words, length="10 minutes"):
    return Request.of("faces-32", words, {"length": length}).over(dump(RunConfig()))


def chosen(images, *, given="time", open_=ALL, words=()):
    config = scaled(recipe(*words), open_, images=images, given=given)
    return config.network.width, config.training.batch, config.optimizer.rate


def base():
    config = recipe()
    return config.network.width, config.training.batch, config.optimizer.rate


def test_at_the_anchor_a_recipe_stays_as_it_is():
    config = recipe()
    for given in ("time", "images"):
        assert scaled(config, ALL, images=ANCHOR_IMAGES, given=given) == config


def test_sixteen_times_the_time_doubles_the_width():
    assert chosen(16 * ANCHOR_IMAGES)[0] == 2 * base()[0]


def test_images_choose_the_width_of_the_time_that_they_take():
    assert chosen(3 * ANCHOR_IMAGES, given="images")[0] == chosen(3 * ANCHOR_IMAGES)[0]


@pytest.mark.parametrize("images", [1e5, 1e6, 1e7, 1e9])
@pytest.mark.parametrize("words", [(), ("network.heads=3", "network.width=60")])
def test_no_length_in_images_takes_more_than_so_many_times_as_long(images, words):
    width = recipe(*words).network.width
    operations = (chosen(images, given="images", words=words)[0] / width) ** 2
    assert operations <= LONGER


@pytest.mark.parametrize("images", [1e5, 1e6, 1e7, 1e9])
def test_heads_of_a_given_width_fit_every_width_that_is_chosen(images):
    words = ("network.heads=1", "network.head_width=24", "network.attention=[16,8,4]")
    config = scaled(recipe(*words), ALL, images=images, given="time")
    assert config.network.width % 24 == 0
    config.network.check(config.data.size)


def test_a_bound_on_the_width_is_kept():
    config = scaled(recipe(), ALL, images=1e9, given="time", widest=111)
    assert config.network.width == 96


@pytest.mark.parametrize("name", ["faces-32", "faces-64"])
@pytest.mark.parametrize("given", ["time", "images"])
def test_no_width_that_is_chosen_leaves_few_channels_in_a_group(name, given):
    recipe = Request.of(name, []).over(dump(RunConfig()))
    met = set()
    for power in range(10, 45):
        network = scaled(recipe, ALL, images=2**power, given=given).network
        met.add(network.width)
        if network.width == recipe.network.width:
            assert network == recipe.network
        else:
            assert GROUPED <= network.width / network.groups < 2 * GROUPED
    assert len(met) > 3


def test_groups_that_were_asked_for_stay():
    config = scaled(recipe(), replace(ALL, groups=False), images=1e9, given="time")
    assert config.network.groups == recipe().network.groups


def test_the_batch_grows_with_the_square_root_of_the_images_that_are_seen():
    sizes = [chosen(n * ANCHOR_IMAGES, open_=FIXED)[1] for n in (1, 4, 16)]
    assert sizes == [base()[1] * k for k in (1, 2, 4)]


@pytest.mark.parametrize("world", [2, 3, 100, 1000])
def test_every_process_gets_as_many_pictures(world):
    config = scaled(recipe(), ALL, images=ANCHOR_IMAGES, given="time", world=world)
    assert config.training.batch % world == 0 < config.training.batch
    assert config.training.batch < base()[1] + world


def test_the_rate_grows_with_the_root_of_the_batch_and_falls_with_the_width():
    assert chosen(16 * ANCHOR_IMAGES, open_=FIXED)[2] == pytest.approx(2 * base()[2])
    # Twice the width, twice the batch.
    assert chosen(16 * ANCHOR_IMAGES)[2] == pytest.approx(base()[2] * 2**0.5 / 2, rel=0.02)


def test_warmup_stays_as_many_steps():
    config = scaled(recipe(), FIXED, images=16 * ANCHOR_IMAGES, given="time")
    before = recipe()
    steps = before.optimizer.schedule.warmup / before.training.batch
    assert config.optimizer.schedule.warmup / config.training.batch == steps


@pytest.mark.parametrize("images", [1, 1e3, 1e5, 1e7, 1e9, 1e12])
@pytest.mark.parametrize("given", ["time", "images"])
@pytest.mark.parametrize("size", [32, 64])
def test_what_is_chosen_is_always_a_configuration_that_works(images, given, size):
    name = "faces-32" if size == 32 else "faces-64"
    config = Request.of(name, [], {"data": {"source": "toy"}}).over(dump(RunConfig()))
    config = scaled(config, ALL, images=images, given=given)
    config.check()
    width, batch = config.network.width, config.training.batch
    assert 32 <= width <= 256 and width % 16 == 0
    assert batch in (16, 32, 64, 128, 256)


def test_a_width_is_a_multiple_of_its_heads():
    assert chosen(30 * ANCHOR_IMAGES, words=("network.heads=6",))[0] % 48 == 0


@pytest.mark.parametrize(
    ("asked", "open_"),
    [
        ({}, ALL),
        ({"network": {"width": 64}}, FIXED),
        ({"network": {"groups": 16}}, replace(ALL, groups=False)),
        ({"training": {"batch": 8}}, replace(ALL, batch=False)),
        ({"optimizer": {"rate": 1e-4}}, replace(ALL, rate=False)),
        ({"optimizer": {"schedule": "constant"}}, replace(ALL, warmup=False)),
        ({"optimizer": {"schedule": {"warmup": 0}}}, replace(ALL, warmup=False)),
    ],
)
def test_what_was_asked_for_is_not_open(asked, open_):
    assert Open.of(recipe(), asked) == open_


def test_a_length_in_steps_says_how_many_and_so_leaves_the_batch():
    assert Open.of(recipe(length="1000 steps"), {}) == replace(ALL, batch=False)


def test_nothing_open_changes_nothing():
    closed = Open(width=False, groups=False, batch=False, rate=False, warmup=False)
    assert scaled(recipe(), closed, images=1e9, given="time") == recipe()
