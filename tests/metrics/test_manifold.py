import pytest
import torch

from kao.errors import DataError
from kao.metrics import Sight, pairs, precision_recall_density_coverage


def sight(n, *, seed, width=3, shift=0.0, scale=1.0):
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    return Sight("faces-test", scale * x + shift)


def literally(real, drawn):
    """The four definitions, from all distances at once."""
    x, y = real.features.double(), drawn.features.double()

    def radius(a, k):
        return torch.cdist(a, a).sort(1).values[:, k]  # the first is itself

    across = torch.cdist(x, y)
    return (
        (across <= radius(x, 3)[:, None]).any(0).double().mean(),
        (across <= radius(y, 3)).any(1).double().mean(),
        (across < radius(x, 5)[:, None]).double().sum(0).mean() / 5,
        (across.amin(1) < radius(x, 5)).double().mean(),
    )


def test_they_are_the_published_definitions():
    real, drawn = sight(120, seed=0), sight(90, seed=1, shift=0.8, scale=0.7)
    found = precision_recall_density_coverage(real=real, drawn=drawn, label="faces-test")
    assert [score.name.split()[0] for score in found] == [
        "precision",
        "recall",
        "density",
        "coverage",
    ]
    for score, expected in zip(found, literally(real, drawn), strict=True):
        assert score.value == pytest.approx(float(expected), rel=1e-12)


def spread(trials, *, n, width, **how):
    """Values of many trials with other pictures, or with other drawn ones alone; and of errors."""
    found = [
        precision_recall_density_coverage(
            real=sight(n, seed=2 * t if trials == "both" else 0, width=width),
            drawn=sight(n, seed=2 * t + 1, width=width, **how),
        )
        for t in range(60)
    ]
    value, error, own = (
        torch.tensor([[getattr(score, name) for score in scores] for scores in found])
        for name in ("value", "error", "own_error")
    )
    return value.std(0), (error if trials == "both" else own).square().mean(0).sqrt()


@pytest.mark.parametrize("trials", ["both", "drawn"])
@pytest.mark.parametrize("how", [{}, {"shift": 0.2, "scale": 0.8}, {"scale": 0.6}])
def test_errors_are_how_much_other_pictures_change_the_numbers(trials, how):
    seen, said = spread(trials, n=200, width=8, **how)
    # The standard deviation of 60 has an error of 9 %, and one real set is not another.
    assert (said / seen).min() > 0.75 and (said / seen).max() < 1.35


def test_of_a_set_with_itself_they_are_all_one():
    real = sight(100, seed=0, width=40)
    for score in precision_recall_density_coverage(real=real, drawn=real):
        assert score.value == 1
        assert score.low <= 1 <= score.high


def test_features_far_from_zero_lose_no_digits():
    near, far = (
        precision_recall_density_coverage(
            real=Sight("faces-test", sight(80, seed=0).features.double() + away),
            drawn=Sight("faces-test", sight(80, seed=1).features.double() + away),
        )
        for away in (0, 1e4)
    )
    assert [score.value for score in near] == [score.value for score in far]


def test_sets_far_apart_have_none_of_it():
    found = precision_recall_density_coverage(
        real=sight(60, seed=0), drawn=sight(60, seed=1, shift=100)
    )
    for score in found:
        assert score.value == 0
        assert score.low == 0
    precision, recall, _, coverage = found
    assert all(0.03 < score.high < 0.1 for score in (precision, recall, coverage))


def test_a_lost_mode_costs_recall_and_coverage_and_not_precision():
    real = Sight(
        "faces-test", torch.cat([sight(100, seed=0).features, sight(100, seed=1).features + 9])
    )
    precision, recall, _, coverage = precision_recall_density_coverage(
        real=real, drawn=sight(200, seed=2)
    )
    assert precision.value > 0.9
    assert 0.4 < recall.value < 0.55
    assert 0.4 < coverage.value < 0.55


def test_it_does_not_matter_how_many_distances_are_held_at_a_time(monkeypatch):
    real, drawn = sight(70, seed=0), sight(60, seed=1, shift=0.3)
    at_once = precision_recall_density_coverage(real=real, drawn=drawn)
    monkeypatch.setattr(pairs, "_PAIRS", 300)
    assert precision_recall_density_coverage(real=real, drawn=drawn) == at_once


def test_on_the_border_a_picture_is_within_closed_balls_and_not_within_open_ones():
    """Sixty real ones in a row, a step apart, and all drawn ones three steps past the last.

    The third neighbour of the last is 3 away, and so are they; the fifth of the last but one is 4
    away, and so are they.  Only the ball of the last reaches them, with its fifth 5 away.
    """
    real = Sight("faces-test", torch.arange(60.0)[:, None])
    drawn = Sight("faces-test", torch.full((60, 1), 62.0))
    precision, _, density, coverage = precision_recall_density_coverage(real=real, drawn=drawn)
    assert precision.value == 1
    assert density.value == pytest.approx(1 / 5)
    assert coverage.value == pytest.approx(1 / 60)


def test_too_few_pictures_and_other_spaces_are_refused():
    with pytest.raises(DataError, match=r"^39 pictures \(drawn\) are too few .* expected 40"):
        precision_recall_density_coverage(real=sight(90, seed=0), drawn=sight(39, seed=1))
    with pytest.raises(DataError, match=r"^Features of 4 numbers \(drawn\).*of 3 \(real\)"):
        precision_recall_density_coverage(real=sight(90, seed=0), drawn=sight(90, seed=1, width=4))
