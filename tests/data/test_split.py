import numpy as np
import pytest
import torch

from kao.data.split import check_split, held_out_count, split
from kao.errors import ConfigError


def alone(count):
    """A set without duplicates."""
    return np.arange(count)


def in_groups(count, of):
    """A set in which each picture is there so many times, one after the other."""
    return np.arange(count) // of * of


@pytest.mark.parametrize(("count", "held"), [(1, 0), (18, 0), (18, 5), (1000, 20), (1000, 999)])
def test_every_picture_is_either_trained_on_or_held_out(count, held):
    train, out = split(alone(count), held)
    assert len(out) == held
    assert train.dtype == out.dtype == torch.int64
    assert sorted([*train.tolist(), *out.tolist()]) == list(range(count))


def test_with_nothing_held_out_all_pictures_are_there_in_their_order():
    train, out = split(in_groups(100, 2), 0)
    assert torch.equal(train, torch.arange(100)) and not len(out)


def test_the_same_pictures_are_held_out_every_time():
    for one, other in zip(split(alone(1000), 20), split(alone(1000), 20), strict=True):
        assert torch.equal(one, other)


def test_pictures_held_out_of_a_smaller_share_are_among_those_of_a_larger_one():
    few, many = (set(split(in_groups(1000, 2), held)[1].tolist()) for held in (20, 200))
    assert few < many


def test_pictures_are_held_out_all_over_the_set():
    """A set that is sorted by class must not lose its first or last one."""
    held = split(alone(10_000), 256)[1]
    tenths = torch.bincount(held // 1000, minlength=10)
    # 25.6 expected in each tenth, with a standard deviation of 4.7.
    assert tenths.min() >= 8 and tenths.max() <= 45


@pytest.mark.parametrize(("of", "held"), [(2, 20), (3, 20), (7, 500)])
def test_no_group_of_near_duplicates_lies_on_both_sides(of, held):
    groups = np.random.default_rng(0).permutation(1000) % (1000 // of)
    first = np.array([np.flatnonzero(groups == one)[0] for one in groups])
    train, out = split(first, held)
    assert not set(first[train].tolist()) & set(first[out].tolist())
    assert held - of < len(out) <= held


def test_large_and_small_groups_are_held_out_alike():
    """Drawn by groups and not by pictures, or large ones would come first."""
    groups = np.concatenate([np.arange(5000), 5000 + in_groups(5000, 5)])
    held = split(groups, 1200)[1]
    large = (held >= 5000).sum() / len(held)
    assert large == pytest.approx(5 / 10, abs=0.08)  # 1,000 groups of five among 5,000 of one


def test_a_group_that_is_larger_than_what_is_held_out_is_trained_on():
    groups = np.concatenate([np.zeros(900, np.int64), np.arange(900, 1000)])
    train, out = split(groups, 20)
    assert set(range(900)) <= set(train.tolist()) and len(out) == 20


@pytest.mark.parametrize(
    ("count", "held"), [(1, 0), (499, 0), (500, 10), (5000, 100), (12_800, 256), (10**6, 256)]
)
def test_one_in_fifty_is_held_out_by_itself_but_never_too_many_or_of_too_few(count, held):
    assert held_out_count(count, "auto") == held


@pytest.mark.parametrize("asked", [0, 1, 17])
def test_as_many_are_held_out_as_are_asked_for(asked):
    assert held_out_count(18, asked) == check_split(alone(18), asked) == asked


def test_by_itself_a_group_counts_once():
    assert check_split(in_groups(2000, 4), "auto") == 10
    nearly_all = np.concatenate([np.zeros(990, np.int64), np.arange(990, 1000)])
    assert check_split(nearly_all, "auto") == 0  # or nothing but the one picture were trained on


@pytest.mark.parametrize(
    ("groups", "asked"), [(np.zeros(1000, np.int64), 20), (in_groups(1000, 50), 49)]
)
def test_a_number_that_no_whole_groups_give_is_refused(groups, asked):
    with pytest.raises(ConfigError, match=rf"data\.held_out = {asked} .* near duplicates"):
        check_split(groups, asked)


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
