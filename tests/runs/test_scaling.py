from dataclasses import replace

import pytest

from kao.config import Request, RunConfig, dump
from kao.runs.scaling import ANCHOR_IMAGES, Open, scaled

ALL = Open(width=True, batch=True, rate=True, warmup=True)


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


def test_four_times_the_images_double_the_width():
    assert chosen(4 * ANCHOR_IMAGES, given="images")[0] == 2 * base()[0]


def test_both_rules_agree_on_the_width_for_the_images_that_are_seen():
    # Twice the width sees a quarter of the images in the same time: 16 / 4.
    assert chosen(16 * ANCHOR_IMAGES) == chosen(4 * ANCHOR_IMAGES, given="images")


def test_the_batch_grows_with_the_square_root_of_the_images_that_are_seen():
    fixed = replace(ALL, width=False)
    sizes = [chosen(n * ANCHOR_IMAGES, open_=fixed)[1] for n in (1, 4, 16)]
    assert sizes == [base()[1] * k for k in (1, 2, 4)]


def test_the_rate_grows_with_the_root_of_the_batch_and_falls_with_the_width():
    fixed = replace(ALL, width=False)
    assert chosen(16 * ANCHOR_IMAGES, open_=fixed)[2] == pytest.approx(2 * base()[2])
    # Twice the width, twice the batch.
    assert chosen(16 * ANCHOR_IMAGES)[2] == pytest.approx(base()[2] * 2**0.5 / 2, rel=0.02)


def test_warmup_stays_as_many_steps():
    config = scaled(recipe(), replace(ALL, width=False), images=16 * ANCHOR_IMAGES, given="time")
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
        ({"network": {"width": 64}}, replace(ALL, width=False)),
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
    closed = Open(width=False, batch=False, rate=False, warmup=False)
    assert scaled(recipe(), closed, images=1e9, given="time") == recipe()
