import pytest
import torch
from torchmetrics.image.kid import KernelInceptionDistance

from kao.errors import DataError
from kao.metrics import KernelDistance, RadialKernel, kernel


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def standardised(x, y):
    """By what the real set y says of features; each real picture by what the others say."""
    others = [torch.cat([y[:i], y[i + 1 :]]) for i in range(len(y))]
    itself = [(one - rest.mean(0)) / rest.std(0) for one, rest in zip(y, others, strict=True)]
    return (x - y.mean(0)) / y.std(0), torch.stack(itself)


def literally(x, y):
    """The estimator of Binkowski et al. (2018), eq. 4, pair by pair."""
    x, y = standardised(x, y)

    def kernel(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    def within(a):
        pairs = [kernel(p, q) for i, p in enumerate(a) for j, q in enumerate(a) if i != j]
        return sum(pairs) / len(pairs)

    across = [kernel(p, q) for p in x for q in y]
    return within(x) + within(y) - 2 * sum(across) / len(across)


def test_it_is_the_published_estimator():
    x, y = normal(7, 5, seed=0) * 1.5 + 0.4, normal(19, 5, seed=1)
    assert KernelDistance(y)(x).value == pytest.approx(literally(x, y), rel=1e-12)


def test_its_error_is_the_jackknifes():
    """Each picture is left out in turn; the unit of the features stays that of all."""
    x, y = normal(7, 5, seed=0) * 1.5 + 0.4, normal(19, 5, seed=1)
    score = KernelDistance(y)(x)
    x, y = standardised(x, y)

    def estimate(a, b):
        k, m, n = (lambda p, q: (p @ q.T / 5 + 1) ** 3), len(a), len(b)
        here, there = k(a, a), k(b, b)
        within = (here.sum() - here.trace()) / (m * (m - 1))
        return within + (there.sum() - there.trace()) / (n * (n - 1)) - 2 * k(a, b).mean()

    variance = 0.0
    for name, size in (("x", 7), ("y", 19)):
        sets = {"x": x, "y": y}
        kept = [torch.arange(size) != i for i in range(size)]
        left_out = torch.stack([estimate(**_named(sets, name, keep)) for keep in kept])
        variance += (size - 1) / size * (left_out - left_out.mean()).square().sum()
    assert score.error == pytest.approx(float(variance.sqrt()), rel=1e-9)


def _named(sets, name, keep):
    chosen = sets | {name: sets[name][keep]}
    return {"a": chosen["x"], "b": chosen["y"]}


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_influences_are_the_parts_of_the_own_error(scale):
    x, y = normal(30, 5, seed=0) * 1.5 + 0.4, normal(40, 5, seed=1)
    distance = KernelDistance(y, scale=scale)
    influences = distance.measured(x)[1]
    assert influences.shape == (30,)
    assert float(influences.square().sum()) ** 0.5 == pytest.approx(distance(x).own, rel=1e-12)
    assert float(influences.sum()) == pytest.approx(0, abs=1e-9 * scale)


def test_an_influence_is_what_the_distance_loses_without_the_picture():
    x, y = normal(12, 5, seed=0) + 0.3, normal(40, 5, seed=1)
    distance = KernelDistance(y)
    whole = distance(x).value
    without = torch.tensor([distance(torch.cat([x[:i], x[i + 1 :]])).value for i in range(12)])
    lost = (11 / 12) ** 0.5 * (whole - without.double())
    torch.testing.assert_close(distance.measured(x)[1], lost, rtol=1e-4, atol=1e-6)


def test_scores_of_the_same_noise_vary_together_as_their_influences_say():
    """Two models that differ little: their difference is surer than either."""
    distance = KernelDistance(normal(300, 4, seed=0))
    apart, said = [], []
    for k in range(1, 101):
        noise = normal(60, 4, seed=k)
        one, other = noise * 1.1 + 0.3, noise * 1.1 + 0.25 + 0.05 * normal(60, 4, seed=1000 + k)
        apart.append(distance(one).value - distance(other).value)
        said.append(float((distance.measured(one)[1] - distance.measured(other)[1]).norm()))
    spread = float(torch.tensor(apart).std())
    assert float(torch.tensor(said).square().mean().sqrt()) == pytest.approx(spread, rel=0.3)
    assert spread < distance(one).own / 2


def test_sets_of_one_distribution_are_at_zero_on_average():
    scores = [
        KernelDistance(normal(60, 6, seed=2 * k))(normal(40, 6, seed=2 * k + 1)) for k in range(100)
    ]
    values = torch.tensor([score.value for score in scores])
    assert abs(values.mean()) < 3 * values.std() / 10
    assert values.min() < 0 < values.max()
    assert all(abs(score.value) < 4 * score.error for score in scores)


@pytest.mark.parametrize("few", [30, 50])
def test_few_real_pictures_make_equal_distributions_no_further_apart(few):
    trials = range(1000)
    values = torch.tensor(
        [KernelDistance(normal(few, 3, seed=k))(normal(50, 3, seed=-k)).value for k in trials]
    )
    assert abs(values.mean()) < 3 * values.std() / 1000**0.5


def test_a_feature_that_one_real_picture_alone_has_is_harmless():
    real = torch.zeros(40, 3, dtype=torch.float64)
    real[:, :2], real[0, 2] = normal(40, 2, seed=0), 1.0
    score = KernelDistance(real)(torch.cat([normal(40, 2, seed=1), torch.zeros(40, 1)], 1))
    assert abs(score.value) < 4 * score.error


@pytest.mark.parametrize("few", [20, 200])
def test_few_pictures_estimate_the_same_number_as_many(few):
    """A distance that grew with fewer pictures would not compare slow samplers with fast ones."""
    distance = KernelDistance(normal(300, 4, seed=0))
    trials = torch.tensor(
        [distance(normal(few, 4, seed=k) * 1.2 + 0.3).value for k in range(1, 101)]
    )
    many = distance(normal(2000, 4, seed=1000) * 1.2 + 0.3)
    sem = float(trials.std()) / 10
    assert float(trials.mean()) == pytest.approx(many.value, abs=3 * sem + 3 * many.error / 5)


def test_the_error_says_how_much_other_pictures_would_change_the_score():
    scores = [
        KernelDistance(normal(400, 4, seed=2 * k))(normal(100, 4, seed=2 * k + 1) + 0.3)
        for k in range(200)
    ]
    values = torch.tensor([score.value for score in scores])
    errors = torch.tensor([score.error for score in scores])
    covered = ((values - values.mean()).abs() < 1.96 * errors).float().mean()
    assert 0.85 < covered < 0.99
    assert float(errors.square().mean().sqrt()) == pytest.approx(float(values.std()), rel=0.3)


def test_order_changes_nothing():
    x, y = normal(30, 5, seed=0) + 0.2, normal(40, 5, seed=1)
    one = KernelDistance(y)(x)
    lots = [torch.randperm(n, generator=torch.Generator().manual_seed(n)) for n in (40, 30)]
    other = KernelDistance(y[lots[0]])(x[lots[1]])
    assert other.value == pytest.approx(one.value, rel=1e-9)
    assert other.error == pytest.approx(one.error, rel=1e-9)


def test_the_unit_of_a_feature_changes_nothing():
    x, y, unit = normal(30, 3, seed=0) + 0.2, normal(40, 3, seed=1), torch.tensor([1e-3, 1.0, 1e4])
    assert KernelDistance(y * unit)(x * unit).value == pytest.approx(
        KernelDistance(y)(x).value, rel=1e-9
    )


def test_a_feature_that_never_changes_is_harmless():
    x, y = normal(30, 3, seed=0), normal(40, 3, seed=1)
    x[:, 1] = y[:, 1] = 0.7
    score = KernelDistance(y)(x)
    assert abs(score.value) < 4 * score.error


def test_a_score_says_what_it_is():
    score = KernelDistance(normal(9, 2, seed=0), name="kernel distance, mine")(normal(5, 2, seed=1))
    assert (score.name, score.samples) == ("kernel distance, mine", 5)


def test_too_few_pictures_are_refused():
    with pytest.raises(
        DataError, match=r"^2 pictures \(real\) are too few .*; expected 3 or more: give"
    ):
        KernelDistance(normal(2, 4, seed=0))
    with pytest.raises(DataError, match=r"^2 pictures \(generated\) are too few"):
        KernelDistance(normal(9, 4, seed=0))(normal(2, 4, seed=0))


def test_pictures_of_a_model_that_diverged_are_refused():
    x = normal(9, 4, seed=0)
    x[3, 1] = torch.nan
    with pytest.raises(
        DataError, match=r"^1 of 9 pictures \(generated\) have features that are not.*: look at"
    ):
        KernelDistance(normal(9, 4, seed=0))(x)


# --- as published: KID and CMMD -----------------------------------------------------------------


class Given(torch.nn.Module):
    """Hands features on as they are, for torchmetrics, which wants a network."""

    num_features = 6

    def forward(self, x):
        return x


@pytest.mark.filterwarnings("ignore:Metric `Kernel")
def test_kid_is_that_of_torchmetrics_over_one_subset_of_all():
    x, y = normal(50, 6, seed=0) * 1.3 + 0.4, normal(50, 6, seed=1)
    theirs = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=50).double()
    theirs.set_dtype(torch.float64)
    theirs.update(y, real=True)
    theirs.update(x, real=False)
    ours = KernelDistance(y, standardised=False)(x).value
    assert ours == pytest.approx(float(theirs.compute()[0]), rel=1e-6)


def test_all_pairs_vary_less_than_the_mean_of_subsets():
    """And estimate the same: 20 subsets of 50 from 200, over 60 pairs of sets."""
    whole, subsets = [], []
    for k in range(60):
        x, y = normal(200, 4, seed=2 * k) + 0.2, normal(200, 4, seed=2 * k + 1)
        whole.append(KernelDistance(y, standardised=False)(x).value)
        lots = [torch.randperm(200, generator=torch.Generator().manual_seed(s)) for s in range(20)]
        parts = [
            KernelDistance(y[lot[:50]], standardised=False)(x[lot[50:100]]).value for lot in lots
        ]
        subsets.append(sum(parts) / 20)
    whole, subsets = torch.tensor(whole), torch.tensor(subsets)
    assert whole.std() < subsets.std()
    apart = (whole - subsets).std() / 60**0.5
    assert abs(whole.mean() - subsets.mean()) < 3 * apart


def test_pairs_are_counted_once_however_many_are_held_at_a_time(monkeypatch):
    x, y = normal(23, 3, seed=0) + 0.2, normal(31, 3, seed=1)
    at_once = KernelDistance(y)(x)
    monkeypatch.setattr(kernel, "_PAIRS", 50)
    in_pieces = KernelDistance(y)(x)
    assert in_pieces.value == pytest.approx(at_once.value, rel=1e-10)
    assert in_pieces.error == pytest.approx(at_once.error, rel=1e-10)
    assert in_pieces.own_error == pytest.approx(at_once.own_error, rel=1e-10)


@pytest.mark.parametrize("standardised", [False, True])
def test_features_are_brought_to_double_precision_a_block_at_a_time(monkeypatch, standardised):
    """A set is kept as it came; nothing as large as it is made of it."""
    monkeypatch.setattr(kernel, "_PAIRS", 16)
    monkeypatch.setattr(kernel, "ROWS", 4)
    seen = []

    def spying(x, y):
        seen.append((x.dtype, len(x), len(y)))
        return kernel.cubic(x, y)

    x, y = normal(23, 3, seed=0).float() + 0.2, normal(31, 3, seed=1).float()
    found = KernelDistance(y, kernel=spying, standardised=standardised)(x)
    assert {dtype for dtype, _, _ in seen} == {torch.float64}
    assert max(max(pair) for _, *pair in seen) == 4
    monkeypatch.undo()
    at_once = KernelDistance(y.double(), standardised=standardised)(x.double())
    assert found.value == pytest.approx(at_once.value, rel=1e-10)
    assert found.error == pytest.approx(at_once.error, rel=1e-10)


def test_pairs_of_the_real_set_are_looked_at_once():
    looked = []

    def counting(x, y):
        looked.append((len(x), len(y)))
        return kernel.cubic(x, y)

    x, y = normal(7, 3, seed=0), normal(9, 3, seed=1)
    distance = KernelDistance(y, kernel=counting)
    assert not looked
    distance(x)
    distance(x + 1)
    assert looked.count((9, 9)) == 1
    assert looked.count((7, 9)) == 2


def test_the_radial_kernel_is_that_of_the_distance():
    x, y = normal(4, 3, seed=0), normal(5, 3, seed=1)
    expected = (-(torch.cdist(x, y) ** 2) / (2 * 1.5**2)).exp()
    torch.testing.assert_close(RadialKernel(1.5)(x, y), expected)


def test_a_scale_multiplies_value_and_errors():
    x, y = normal(9, 3, seed=0) + 0.2, normal(8, 3, seed=1)
    one, thousand = KernelDistance(y)(x), KernelDistance(y, scale=1000)(x)
    assert thousand.value == pytest.approx(1000 * one.value)
    assert thousand.error == pytest.approx(1000 * one.error)
    assert thousand.own_error == pytest.approx(1000 * one.own_error)


def test_features_of_another_width_are_refused():
    with pytest.raises(
        DataError, match=r"^Features of 4 numbers \(drawn\).* 3 \(real\).*: look at"
    ):
        KernelDistance(normal(9, 3, seed=0))(normal(9, 4, seed=0))
