"""Intervals hold what they promise: on Gaussians with known distances, in 200 trials each."""

import math

import pytest
import torch

from kao.metrics import METRICS, Reference, Sight, frechet_distance
from kao.metrics.scores import Z95

TRIALS = 200


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Pair:
    """Two Gaussians whose variances fall from 1 to `least`, the drawn one turned and moved."""

    def __init__(self, width, *, least=0.1, turn=0.2, shift=0.2):
        roots = torch.logspace(0, math.log10(least) / 2, width, dtype=torch.float64)
        self.real = torch.diag(roots)
        turned = torch.eye(width) + turn * normal(width, width, seed=1) / math.sqrt(width)
        self.drawn = self.real @ turned
        self.mean = shift * roots.mean() * torch.ones(width, dtype=torch.float64)
        self.width = width

    @property
    def distance(self):
        zero = torch.zeros(self.width, dtype=torch.float64)
        drawn, real = self.drawn.T @ self.drawn, self.real.T @ self.real
        return frechet_distance(self.mean, drawn, zero, real)

    def sights(self, n, m, seed):
        drawn = normal(n, self.width, seed=2 * seed) @ self.drawn + self.mean
        real = normal(m, self.width, seed=2 * seed + 1) @ self.real
        return tuple(Sight("inception-test", x.float()) for x in (real, drawn))


def scores(metric, pair, n, m):
    return [METRICS[metric](*pair.sights(n, m, 10 + k))[0] for k in range(TRIALS)]


def covered(found, truth):
    return sum(score.low <= truth <= score.high for score in found) / len(found)


CASES = [(4, 200, 400), (8, 400, 800), (16, 400, 800), (32, 400, 1000), (48, 400, 1000)]


@pytest.mark.parametrize(("width", "n", "m"), CASES)
def test_the_interval_of_fid_covers_its_expectation_at_that_number(width, n, m):
    found = scores("fid", Pair(width), n, m)
    assert 0.90 <= covered(found, sum(s.value for s in found) / TRIALS) <= 0.97


@pytest.mark.parametrize(("width", "n", "m"), CASES)
def test_the_interval_of_fid_infinity_covers_the_distance_of_the_distributions(width, n, m):
    pair = Pair(width)
    assert 0.90 <= covered(scores("fid_infinity", pair, n, m), pair.distance) <= 0.97


def polynomial_mmd(pair):
    """The kernel distance itself: every E (x . y / D + 1)^3 from moments of x . y."""
    real, drawn = pair.real.T @ pair.real, pair.drawn.T @ pair.drawn
    zero = torch.zeros(pair.width, dtype=torch.float64)

    def expected(mean_a, a, mean_b, b):
        # z = x . y: E z, E z^2 and E z^3 of independent normal vectors.
        first = mean_a @ mean_b
        spread = (a @ b).trace() + mean_a @ b @ mean_a + mean_b @ a @ mean_b
        third = first**3 + 3 * first * spread + 6 * mean_a @ b @ a @ mean_b
        w = pair.width
        return 1 + 3 * first / w + 3 * (spread + first**2) / w**2 + third / w**3

    return float(
        expected(pair.mean, drawn, pair.mean, drawn)
        + expected(zero, real, zero, real)
        - 2 * expected(pair.mean, drawn, zero, real)
    )


@pytest.mark.parametrize(("width", "n", "m"), [(4, 200, 400), (16, 400, 800)])
def test_the_interval_of_kid_covers_its_closed_form(width, n, m):
    pair = Pair(width, turn=0.5, shift=0.5)
    assert 0.90 <= covered(scores("kid", pair, n, m), polynomial_mmd(pair)) <= 0.97


@pytest.mark.parametrize(("metric", "widest"), [("fid", 1.3), ("fid_infinity", 1.3), ("kid", 1.65)])
def test_where_both_are_of_one_distribution_intervals_are_too_wide_rather_than_too_narrow(
    metric, widest
):
    found = scores(metric, Pair(16, turn=0, shift=0), 400, 800)
    values = torch.tensor([score.value for score in found])
    errors = torch.tensor([score.error for score in found]).square().mean().sqrt()
    truth = float(values.mean()) if metric == "fid" else 0.0
    assert covered(found, truth) >= 0.93
    assert 0.95 < float(errors / values.std()) < widest


@pytest.mark.parametrize("apart", [0.2, 0.0])
def test_fid_infinity_of_few_pictures_is_off_by_little_more_than_half_its_error_at_most(apart):
    """At n of 2.3 times the dimension, where the interval covers somewhat less than it says."""
    pair = Pair(32, turn=apart, shift=apart)
    found = scores("fid_infinity", pair, 74, 320)
    values = torch.tensor([score.value for score in found])
    errors = torch.tensor([score.error for score in found]).square().mean().sqrt()
    assert abs(values.mean() - pair.distance) < 0.6 * errors
    assert 0.9 < float(errors / values.std()) < 1.15
    assert 0.86 <= covered(found, pair.distance) <= 0.97


@pytest.mark.parametrize("metric", ["fid", "fid_infinity"])
def test_intervals_against_statistics_of_known_number_hold_the_sampling_of_both(metric):
    pair, found = Pair(16), []
    for k in range(TRIALS):
        real, drawn = pair.sights(400, 400, 10 + k)
        found += METRICS[metric](Reference(real.gaussian), drawn)
    expected = sum(score.value for score in found) / TRIALS
    truth = expected if metric == "fid" else pair.distance
    assert 0.90 <= covered(found, truth) <= 0.97
    assert all(score.error > 1.2 * score.own for score in found)


def test_the_error_of_drawn_pictures_alone_is_how_much_they_vary_against_fixed_real_ones():
    pair = Pair(8)
    real, _ = pair.sights(400, 800, 0)
    found = [METRICS["fid"](real, pair.sights(400, 3, 10 + k)[1])[0] for k in range(TRIALS)]
    values = torch.tensor([score.value for score in found])
    own = torch.tensor([score.own for score in found]).square().mean().sqrt()
    assert float(own) == pytest.approx(float(values.std()), rel=0.15)
    assert all(score.own < score.error for score in found)
    assert 0.90 <= ((values - values.mean()).abs() <= Z95 * own).double().mean() <= 0.98


@pytest.mark.parametrize("of", range(4), ids=["precision", "recall", "density", "coverage"])
def test_errors_of_shares_are_about_the_scatter_of_other_pictures(of, shares):
    values = torch.tensor([row[of].value for row in shares])
    errors = torch.tensor([row[of].error for row in shares]).square().mean().sqrt()
    assert 0.8 < float(errors / values.std()) < 1.6


@pytest.fixture(scope="module")
def shares():
    pair = Pair(4, turn=0.5, shift=0.5)
    return [METRICS["manifold"](*pair.sights(150, 200, 10 + k)) for k in range(60)]
