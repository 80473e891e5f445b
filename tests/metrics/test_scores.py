"""Intervals of shares, and the variance of an estimate from parts left out."""

import math

import pytest
import torch

from kao.metrics.scores import jackknife_variance, wilson


def test_an_interval_of_a_share_stays_within_it():
    for share, error in ((0.0, 0.0), (1.0, 0.0), (0.5, 0.4), (0.98, 0.02), (0.01, 0.01)):
        low, high = wilson(share, error, 50)
        assert 0 <= low <= share <= high <= 1
        assert high > low


def test_of_independent_pictures_it_is_wilsons_interval():
    """20 of 50: the textbook's formula, solved for the share."""
    low, high = wilson(0.4, math.sqrt(0.4 * 0.6 / 50), 50)
    for end in (low, high):
        assert abs(end - 0.4) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / 50), rel=1e-9)


def test_a_larger_error_widens_it_and_a_smaller_one_does_not_narrow_it():
    own = math.sqrt(0.4 * 0.6 / 50)
    widths = [high - low for low, high in (wilson(0.4, own * k, 50) for k in (0.2, 1, 2))]
    assert widths[0] == pytest.approx(widths[1])
    assert widths[2] > 1.8 * widths[1]


def test_the_jackknife_of_a_mean_is_its_variance():
    x = torch.randn(30, generator=torch.Generator().manual_seed(0)).double()
    left_out = (x.sum() - x) / 29
    assert jackknife_variance(left_out) == pytest.approx(x.var().item() / 30)
