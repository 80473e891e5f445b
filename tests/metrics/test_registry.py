"""What every metric promises, and what each says when it cannot be computed."""

import pytest
import torch

from kao.errors import ConfigError, DataError
from kao.metrics import METRICS, SPACES, Sight, kernel

USUAL = "faces-test"
CLASSES = 5
ALONE = METRICS["is"]  # which looks at no real picture


def sight(n, *, seed, space=USUAL, shift=0.0, scale=1.0, width=6):
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(n, width, generator=generator) + shift
    return Sight(space, x, (2 * x[:, :CLASSES]).softmax(1))


def space_of(metric):
    return f"{metric.spaces[0]}-test" if metric.spaces else USUAL


@pytest.fixture(params=METRICS)
def metric(request):
    return METRICS[request.param]


def pair(metric, *, n=200, m=240, **how):
    space = space_of(metric)
    return sight(m, seed=0, space=space), sight(n, seed=1, space=space, **how)


def test_its_spaces_are_those_that_can_be_opened(metric):
    assert set(metric.spaces) <= set(SPACES)


def test_scores_say_what_they_are(metric):
    for score in metric(*pair(metric)):
        assert score.samples == 200
        assert score.name
        assert 0 <= score.own <= score.error


def test_intervals_hold_the_value(metric):
    for score in metric(*pair(metric, shift=0.3)):
        assert score.low < score.value < score.high


def test_order_changes_nothing(metric):
    real, drawn = pair(metric, shift=0.2)
    shuffled = [
        s.rows(torch.randperm(len(s), generator=torch.Generator().manual_seed(7)))
        for s in (real, drawn)
    ]
    for one, other in zip(metric(real, drawn), metric(*shuffled), strict=True):
        assert other.value == pytest.approx(one.value, rel=1e-7)
        assert other.error == pytest.approx(one.error, rel=1e-6)


def test_pictures_of_the_real_distribution_score_best(metric):
    """Better than others moved away, beyond the errors of both."""
    if metric is ALONE:
        pytest.skip("it does not look at real pictures")
    for good, bad in zip(metric(*pair(metric)), metric(*pair(metric, shift=3)), strict=True):
        apart = bad.value - good.value if good.better == "lower" else good.value - bad.value
        assert apart > 2 * (good.error + bad.error)


@pytest.mark.parametrize("name", [name for name, m in METRICS.items() if m.unbiased])
def test_unbiased_metrics_of_one_distribution_are_around_zero(name):
    metric = METRICS[name]
    for score in metric(*pair(metric)):
        assert abs(score.value) < 4 * score.error


def test_real_pictures_are_asked_for(metric):
    _, drawn = pair(metric)
    if metric is not ALONE:
        with pytest.raises(
            ConfigError, match=r"compares with real pictures, and none are given: give --real"
        ):
            metric(None, drawn)
    else:
        assert metric(None, drawn)


def test_real_pictures_of_another_space_are_refused(metric):
    real, drawn = pair(metric)
    if metric is not ALONE:
        elsewhere = Sight("dinov2-test", real.features)
        with pytest.raises(DataError, match=r'^The real pictures were seen in .* "dinov2-test"'):
            metric(elsewhere, drawn)


@pytest.mark.parametrize("name", [name for name, m in METRICS.items() if m.spaces])
def test_a_metric_of_one_space_is_refused_in_others(name):
    metric = METRICS[name]
    real, drawn = (sight(50, seed=s, space="lpips-test") for s in (0, 1))
    if name == "is":
        drawn = Sight("lpips-test", drawn.features)
        with pytest.raises(DataError, match="lpips-test has none"):
            metric(real, drawn)
    else:
        with pytest.raises(
            ConfigError, match=r'is defined on .*and these are of "lpips-test": use'
        ):
            metric(real, drawn)


def test_scores_in_other_spaces_are_not_called_fid_or_kid():
    names = {
        space: [
            METRICS[m](*(sight(50, seed=s, space=space) for s in (0, 1)))[0].name for m in asked
        ]
        for space, asked in {
            "inception-test": ("fid", "kid"),
            "faces-test": ("frechet", "kid", "kernel"),
        }.items()
    }
    assert names == {
        "inception-test": ["FID", "KID"],
        "faces-test": [
            "Frechet distance faces-test",
            "KID faces-test",
            "kernel distance faces-test",
        ],
    }


def test_cmmd_is_the_published_kernel_on_directions_without_the_pairs_of_one():
    real, drawn = (sight(n, seed=n, space="clip-test", shift=0.4) for n in (30, 40))
    x, y = (
        part.features.double() / part.features.double().norm(dim=1, keepdim=True)
        for part in (drawn, real)
    )

    def k(a, b):
        return (-(torch.cdist(a, b) ** 2) / 200).exp()

    n, m = len(x), len(y)
    within = (k(x, x).sum() - n) / (n * (n - 1)) + (k(y, y).sum() - m) / (m * (m - 1))
    (score,) = METRICS["cmmd"](real, drawn)
    assert score.value == pytest.approx(1000 * float(within - 2 * k(x, y).mean()), rel=1e-7)
    # Their code has the pairs of a picture with itself as well.
    theirs = 1000 * float(k(x, x).mean() + k(y, y).mean() - 2 * k(x, y).mean())
    assert 0 < theirs - score.value < 10 * (1 / n + 1 / m)


@pytest.mark.parametrize("name", ["kid", "kernel", "cmmd"])
def test_pairs_of_one_real_set_are_looked_at_once(name, monkeypatch):
    """By the score, its floor and every other drawn set."""
    looked = []
    within = kernel._off_diagonal
    monkeypatch.setattr(
        kernel, "_off_diagonal", lambda x, k: (looked.append(len(x)), within(x, k))[1]
    )
    metric = METRICS[name]
    real, drawn = pair(metric)
    first = metric(real, drawn)
    assert metric(real, drawn) == first
    metric(real, pair(metric, shift=1.0)[1])
    assert looked.count(len(real)) == 1
    assert looked.count(len(drawn)) == 3


def test_distances_of_two_metrics_to_one_real_set_are_not_mixed_up():
    real, drawn = pair(METRICS["kid"], shift=0.5)
    together = [METRICS[name](real, drawn)[0].value for name in ("kid", "kernel")]
    apart = [METRICS[name](*pair(METRICS["kid"], shift=0.5))[0].value for name in ("kid", "kernel")]
    assert together == apart
    assert together[0] != together[1]


# --- sights -------------------------------------------------------------------------------------


def test_a_sight_refuses_what_is_no_set_of_features():
    with pytest.raises(DataError, match=r"^Features of faces-1 are of shape \(0, 3\).*: give"):
        Sight("faces-1", torch.zeros(0, 3))
    with pytest.raises(DataError, match=r"^Probabilities of faces-1 .* expected 4 rows.*: give"):
        Sight("faces-1", torch.zeros(4, 3), torch.zeros(3, 2))
    broken = torch.zeros(4, 3)
    broken[2, 1] = torch.nan
    with pytest.raises(
        DataError, match=r"^1 of 4 pictures of faces-1 have features that are not.*: look"
    ):
        Sight("faces-1", broken)


def test_its_order_belongs_to_the_pictures_and_not_to_their_place():
    one = sight(50, seed=0)
    lot = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    other = one.rows(lot)
    assert torch.equal(one.features[one.order], other.features[other.order])
    by_value = one.rows(one.features[:, 0].argsort())
    first = by_value.features[by_value.order][:, 0]
    assert abs(first[:25].mean() - first[25:].mean()) < 1  # halves are mixtures
