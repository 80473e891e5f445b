"""The line below which one new picture in a hundred lies, and how sure shares below it are."""

import math

import pytest
import torch

from kao.metrics.copy_line import CHANCE, low_quantile, possible_quantiles, share_below
from kao.metrics.scores import wilson

NEW = 1000


def exponential(*shape, generator):
    """Values with an exponential tail below, of which CHANCE lie below log(CHANCE)."""
    return -torch.empty(*shape, dtype=torch.float64).exponential_(generator=generator)


def gaussian(*shape, generator):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def rate(values, new, *, seed):
    heights = possible_quantiles(values, CHANCE, seed=seed)
    return share_below(new, low_quantile(values, CHANCE), heights)


@pytest.mark.parametrize("n", [25, 50, 250, 1000])
def test_one_in_a_hundred_lies_below_the_low_quantile_of_an_exponential_tail(n):
    sets = exponential(2000, n, generator=torch.Generator().manual_seed(n))
    lines = torch.tensor([low_quantile(values, CHANCE) for values in sets])
    assert lines.exp().mean().item() == pytest.approx(CHANCE, rel=0.1)


@pytest.mark.parametrize(
    ("tail", "n"), [(exponential, 50), (exponential, 250), (exponential, 1000), (gaussian, 50)]
)
def test_the_interval_of_new_pictures_covers_one_in_a_hundred(tail, n):
    generator = torch.Generator().manual_seed(n)
    found = [
        rate(tail(n, generator=generator), tail(NEW, generator=generator), seed=trial)
        for trial in range(200)
    ]
    above = sum(score.low > CHANCE for score in found) / len(found)
    below = sum(score.high < CHANCE for score in found) / len(found)
    assert above <= 0.04
    assert above + below <= 0.07


def test_the_true_quantile_lies_below_each_level_as_often_as_that_says():
    generator = torch.Generator().manual_seed(0)
    ranks = [
        possible_quantiles(exponential(50, generator=generator), CHANCE, seed=trial)
        .less(math.log(CHANCE))
        .double()
        .mean()
        .item()
        for trial in range(600)
    ]
    for level in (0.025, 0.25, 0.5, 0.75, 0.975):
        error = math.sqrt(level * (1 - level) / len(ranks))
        share = sum(rank < level for rank in ranks) / len(ranks)
        assert share == pytest.approx(level, abs=4 * error)


def test_the_more_pictures_draw_the_line_the_shorter_the_interval():
    generator = torch.Generator().manual_seed(0)

    def widths(n):
        scores = [
            rate(exponential(n, generator=generator), exponential(NEW, generator=generator), seed=t)
            for t in range(20)
        ]
        return sum(score.high - score.low for score in scores), sum(s.error for s in scores)

    for few, many in zip(widths(50), widths(500), strict=True):
        assert many < few / 2


def test_below_a_line_that_is_known_the_interval_is_wilsons():
    values = exponential(200, generator=torch.Generator().manual_seed(0))
    score = share_below(values, -2.0, torch.full((1000,), -2.0))
    assert (score.low, score.high) == pytest.approx(wilson(score.value, 0.0, 200), abs=1e-8)
    assert score.error == pytest.approx(score.own)


def test_the_own_error_is_that_of_the_samples_alone():
    generator = torch.Generator().manual_seed(0)
    values, new = exponential(50, generator=generator), exponential(NEW, generator=generator)
    score = rate(values, new, seed=0)
    low, high = wilson(score.value, 0.0, NEW)
    assert score.own == pytest.approx((high - low) / (2 * 1.959964))
    assert score.error > 1.5 * score.own


@pytest.mark.parametrize("copies", [0, 300, NEW])
def test_copies_far_below_the_line_are_as_sure_as_their_number(copies):
    generator = torch.Generator().manual_seed(0)
    new = exponential(NEW, generator=generator)
    new[:copies] = -100.0
    score = rate(exponential(250, generator=generator), new, seed=0)
    assert 0 <= score.low <= score.value <= score.high <= 1
    (least, _), (most, _) = (wilson(x, 0.0, NEW) for x in (copies / NEW, score.value))
    assert least - 1e-6 <= score.low <= most + 1e-6


def test_the_interval_is_a_function_of_the_seed():
    generator = torch.Generator().manual_seed(0)
    values, new = exponential(50, generator=generator), exponential(NEW, generator=generator)
    a, b, c = (rate(values, new, seed=seed) for seed in (0, 0, 1))
    assert a == b
    assert a.value == c.value
    assert a.interval != c.interval
