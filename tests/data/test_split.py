import pytest
import torch

from kao.data.split import held_out_count, split
from kao.errors import ConfigError


@pytest.mark.parametrize(("count", "held"), [(1, 0), (18, 0), (18, 5), (1000, 20), (1000, 999)])
def test_every_picture_is_either_trained_on_or_held_out(count, held):
    train, out = split(count, held)
    assert len(out) == held
    assert train.dtype == out.dtype == torch.int64
    assert sorted([*train.tolist(), *out.tolist()]) == list(range(count))


def test_with_nothing_held_out_all_pictures_are_there_in_their_order():
    train, out = split(100, 0)
    assert torch.equal(train, torch.arange(100)) and not len(out)


def test_the_same_pictures_are_held_out_every_time():
    for one, other in zip(split(1000, 20), split(1000, 20), strict=True):
        assert torch.equal(one, other)


def test_pictures_held_out_of_a_smaller_share_are_among_those_of_a_larger_one():
    few, many = (set(split(1000, held)[1].tolist()) for held in (20, 200))
    assert few < many


def test_pictures_are_held_out_all_over_the_set():
    """A set that is sorted by class must not lose its first or last one."""
    held = split(10_000, 256)[1]
    tenths = torch.bincount(held // 1000, minlength=10)
    # 25.6 expected in each tenth, with a standard deviation of 4.7.
    assert tenths.min() >= 8 and tenths.max() <= 45


@pytest.mark.parametrize(
    ("count", "held"), [(1, 0), (499, 0), (500, 10), (5000, 100), (12_800, 256), (10**6, 256)]
)
def test_one_in_fifty_is_held_out_by_itself_but_never_too_many_or_of_too_few(count, held):
    assert held_out_count(count, "auto") == held


@pytest.mark.parametrize("asked", [0, 1, 17])
def test_as_many_are_held_out_as_are_asked_for(asked):
    assert held_out_count(18, asked) == asked


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (-1, "data.held_out = -1; expected a number from 0 up"),
        (18, "data.held_out = 18 of 18 pictures leaves none to train on: hold fewer out"),
        (4000, "data.held_out = 4,000 of 18 pictures leaves none to train on"),
    ],
)
def test_a_number_that_leaves_nothing_is_refused(asked, words):
    with pytest.raises(ConfigError) as caught:
        held_out_count(18, asked)
    assert words in str(caught.value)
