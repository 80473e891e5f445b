import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from kao.errors import DataError
from kao.metrics import (
    Gaussian,
    Moments,
    Sight,
    features_distance,
    frechet_distance,
    frechet_infinity,
    frechet_score,
    gaussian_distance,
    moments,
)


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the distance -------------------------------------------------------------------------------


def covariance(width, seed):
    a = normal(width, width, seed=seed)
    return a @ a.T + 0.1 * torch.eye(width, dtype=torch.float64)


def test_in_one_dimension_it_is_means_and_deviations():
    def gaussian(mean, std):
        return torch.tensor([mean]).double(), torch.tensor([[std**2]]).double()

    found = frechet_distance(*gaussian(1.0, 2.0), *gaussian(4.0, 0.5))
    assert found == pytest.approx((1 - 4) ** 2 + (2 - 0.5) ** 2, rel=1e-12)


def test_of_covariances_that_commute_it_is_the_distance_of_their_roots():
    q, _ = torch.linalg.qr(normal(5, 5, seed=0))
    a, b = torch.arange(5).double(), torch.arange(5).flip(0).double() + 1
    mean_a, mean_b = normal(5, seed=1), normal(5, seed=2)
    expected = (mean_a - mean_b).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    found = frechet_distance(mean_a, q * a @ q.T, mean_b, q * b @ q.T)
    # One eigenvalue is 0, and the root of its rounding is 1e-8.
    assert found == pytest.approx(float(expected), rel=2e-8)


def test_it_is_symmetric_and_zero_for_equal_gaussians():
    one, other = (normal(6, seed=1), covariance(6, 2)), (normal(6, seed=3), covariance(6, 4))
    assert frechet_distance(*one, *other) == pytest.approx(frechet_distance(*other, *one), rel=1e-9)
    assert frechet_distance(*one, *one) == pytest.approx(0, abs=1e-9)


def test_covariances_without_full_rank_do_no_harm():
    x = normal(4, 9, seed=0)  # four pictures in nine dimensions
    assert frechet_distance(*moments(x), *moments(x)) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(*moments(x), *moments(x + 2)) == pytest.approx(9 * 4, rel=1e-6)


def test_moments_are_those_of_a_sample():
    mean, cov = moments(torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 3.0]]))
    assert torch.equal(mean, torch.tensor([2.0, 1.0]).double())
    assert torch.equal(cov, torch.tensor([[4.0, 3.0], [3.0, 3.0]]).double())
    assert moments(torch.zeros(3, 1))[1].shape == (1, 1)


def drawn_and_real(n, m, width, *, seed=0):
    """Features of two sets, as float32; the drawn ones wider and moved."""
    mix = torch.eye(width) + 0.3 * normal(width, width, seed=seed + 1) / width**0.5
    x = 1.2 * normal(n, width, seed=seed + 2) @ mix + 0.2
    return x.float(), normal(m, width, seed=seed + 3).float()


class Given(torch.nn.Module):
    """Hands features on as they are, for torchmetrics, which wants a network."""

    num_features = 12

    def forward(self, x):
        return x


def test_it_is_that_of_torchmetrics():
    x, y = drawn_and_real(80, 90, 12)
    theirs = FrechetInceptionDistance(feature=Given(), normalize=True).set_dtype(torch.float64)
    theirs.update(y.double(), real=True)
    theirs.update(x.double(), real=False)
    ours = frechet_distance(*moments(x), *moments(y))
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_it_is_that_of_scipys_matrix_root():
    x, y = drawn_and_real(80, 90, 12)
    (m, c), (m_r, c_r) = moments(x), moments(y)
    root = scipy.linalg.sqrtm((c @ c_r).numpy()).real
    theirs = (m - m_r).square().sum() + c.trace() + c_r.trace() - 2 * root.trace()
    assert frechet_distance(m, c, m_r, c_r) == pytest.approx(float(theirs), rel=1e-9)


@pytest.mark.parametrize("n", [2, 5, 12, 13, 40])
def test_the_form_for_few_pictures_gives_the_same(n):
    x, y = drawn_and_real(n, 90, 12)
    real = Gaussian(*moments(y))
    cov = torch.cov(x.double().T)
    expected = gaussian_distance(drawn=Gaussian(x.double().mean(0), cov), real=real)
    assert features_distance(drawn=x, real=real) == pytest.approx(expected, rel=1e-7)


def test_gaussians_of_different_widths_are_refused():
    one, other = Gaussian(*moments(normal(9, 3, seed=0))), Gaussian(*moments(normal(9, 4, seed=0)))
    with pytest.raises(DataError, match=r"^Features of 3 numbers \(drawn\).* of 4 \(real\)"):
        gaussian_distance(drawn=one, real=other)


# --- moments in batches -------------------------------------------------------------------------


def test_batches_and_processes_give_the_moments_of_all():
    x = normal(50, 4, seed=0)
    one, other = Moments(), Moments()
    for batch in x[:30].split(7):
        one.update(batch)
    one.update(x[:0])
    other.update(x[30:])
    one.merge(other)
    one.merge(Moments())
    gathered = one.gaussian()
    assert gathered.n == 50
    torch.testing.assert_close(gathered.mean, x.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(gathered.cov, torch.cov(x.T), rtol=1e-11, atol=1e-13)


def test_features_far_from_zero_lose_no_digits():
    x = normal(1000, 2, seed=0)
    gathered = Moments()
    for batch in (x + 1e7).split(100):
        gathered.update(batch)
    torch.testing.assert_close(gathered.gaussian().cov, torch.cov(x.T), rtol=1e-7, atol=1e-8)


def test_moments_of_two_networks_do_not_mix():
    one, other = Moments(), Moments()
    one.update(normal(5, 3, seed=0))
    other.update(normal(5, 4, seed=0))
    with pytest.raises(DataError, match=r"^Features of 4 numbers cannot join those of 3"):
        one.merge(other)


def test_too_few_or_broken_features_have_no_moments():
    with pytest.raises(
        DataError, match=r"^2 pictures are too few for a covariance; expected 3 .*: give"
    ):
        moments(normal(2, 3, seed=0))
    broken = normal(9, 3, seed=0)
    broken[4, 1] = torch.inf
    with pytest.raises(
        DataError, match=r"^1 of 9 pictures have features that are not finite.*: look"
    ):
        moments(broken)


# --- errors and bias ----------------------------------------------------------------------------


def sights(n, m, width, seed=0):
    return tuple(Sight("inception-test", part) for part in drawn_and_real(n, m, width, seed=seed))


def alone(sight):
    """Mean and covariance, and not of how many pictures."""
    return Gaussian(sight.gaussian.mean, sight.gaussian.cov)


def test_the_error_is_that_of_pictures_left_out_one_by_one():
    """Of many pictures, so that what the jackknife counts twice is small."""
    drawn, real = sights(400, 500, 3)
    score = frechet_score(real=real, drawn=drawn, name="FID")

    def without(sight, i):
        return Sight(sight.space, torch.cat([sight.features[:i], sight.features[i + 1 :]])).gaussian

    def variance(values):
        values = torch.tensor(values, dtype=torch.float64)
        return (len(values) - 1) / len(values) * (values - values.mean()).square().sum()

    own = variance(
        [gaussian_distance(drawn=without(drawn, i), real=real.gaussian) for i in range(400)]
    )
    rest = variance(
        [gaussian_distance(drawn=drawn.gaussian, real=without(real, i)) for i in range(500)]
    )
    assert score.own_error == pytest.approx(float(own.sqrt()), rel=0.03)
    assert score.error == pytest.approx(float((own + rest).sqrt()), rel=0.03)


def test_a_reference_without_features_counts_as_given():
    drawn, real = sights(60, 90, 4)
    known = frechet_score(real=real, drawn=drawn, name="FID")
    given = frechet_score(real=alone(real), drawn=drawn, name="FID")
    assert given.value == known.value
    assert given.error == given.own_error == known.own_error < known.error


def test_fid_rises_as_pictures_get_fewer_and_fid_infinity_does_not():
    def means(n):
        pairs = [sights(n, n, 16, seed=100 * k) for k in range(1, 41)]
        fid = [frechet_score(real=r, drawn=d, name="FID").value for d, r in pairs]
        infinity = [frechet_infinity(real=r, drawn=d, name="FID infinity").value for d, r in pairs]
        return torch.tensor(fid), torch.tensor(infinity)

    # Each pair of sets has a mixture of its own, the same for both numbers of pictures.
    (few, few_infinity), (many, many_infinity) = means(60), means(600)
    assert (few - many).mean() > 1
    apart = few_infinity - many_infinity
    assert abs(apart.mean()) < 3 * apart.std() / 40**0.5


def test_the_bias_of_a_reference_of_unknown_number_stays_and_is_named():
    drawn, real = sights(400, 40, 8)
    given = frechet_infinity(real=alone(real), drawn=drawn, name="FID infinity")
    known = frechet_infinity(real=real, drawn=drawn, name="FID infinity")
    assert given.value > known.value
    assert given.error < known.error
    assert given.name == "FID infinity (the reference's own bias stays)"
    assert known.name == "FID infinity"


@pytest.mark.parametrize("score", [frechet_score, frechet_infinity])
def test_statistics_of_known_number_are_taken_as_those_of_normal_pictures(score):
    """These are normal, so the features themselves say the same but for their own scatter."""
    drawn, real = sights(3000, 1000, 4)
    whole = score(real=real, drawn=drawn, name="")
    given = score(real=real.gaussian, drawn=drawn, name="")
    counted = score(real=alone(real), drawn=drawn, name="")
    own = counted.own_error
    assert whole.error**2 - own**2 > 0.5 * own**2  # the real pictures' part is no trifle
    assert given.error**2 - own**2 == pytest.approx(whole.error**2 - own**2, rel=0.15)
    assert given.name == whole.name
    if score is frechet_infinity:
        assert counted.value - given.value == pytest.approx(counted.value - whole.value, rel=0.3)


def test_the_bias_of_statistics_of_known_number_is_removed():
    """On average over references; each is of few pictures, and counts for more than the drawn."""
    drawn, real = sights(600, 60_000, 6)
    many = frechet_infinity(real=real, drawn=drawn, name="").value
    few = [
        frechet_infinity(real=Sight("inception-test", x).gaussian, drawn=drawn, name="").value
        for x in normal(200, 60, 6, seed=7).float()
    ]
    few = torch.tensor(few)
    assert abs(few.mean() - many) < 3 * few.std() / 200**0.5


def test_a_feature_that_never_changes_is_harmless_to_errors():
    x, y = drawn_and_real(60, 90, 4)
    flat = [torch.cat([part, torch.full((len(part), 1), 0.7)], dim=1) for part in (x, y)]
    drawn, real = (Sight("inception-test", part) for part in flat)
    score = frechet_score(real=real, drawn=drawn, name="FID")
    drawn, real = (Sight("inception-test", part) for part in (x, y))
    plain = frechet_score(real=real, drawn=drawn, name="FID")
    assert score.value == pytest.approx(plain.value, rel=1e-6)
    assert score.error == pytest.approx(plain.error, rel=1e-6)


@pytest.mark.parametrize("whose", ["drawn", "real", "real, as statistics"])
def test_no_more_pictures_than_dimensions_are_refused(whose):
    def score(distance, few):
        drawn, real = sights(*((few, 90) if whose == "drawn" else (90, few)), 12)
        given = real.gaussian if whose == "real, as statistics" else real
        return distance(real=given, drawn=drawn, name="FID")

    kind = whose.split(",")[0]
    with pytest.raises(
        DataError,
        match=rf'^FID of 12 {kind} pictures in 12 .* singular: take "kid".* 13 {kind} pict',
    ):
        score(frechet_score, 12)
    assert score(frechet_score, 13)
    with pytest.raises(DataError, match=rf"^FID of 25 {kind} .* twice .* or 26 {kind} pictures"):
        score(frechet_infinity, 25)
    assert score(frechet_infinity, 26)


def test_statistics_of_unknown_number_are_not_refused():
    drawn, real = sights(90, 12, 12)
    assert frechet_score(real=alone(real), drawn=drawn, name="FID").value > 0


def test_features_in_fewer_directions_than_dimensions_have_the_same_errors():
    """Rounding makes eigenvalues that are 0 a little negative."""
    turn, _ = torch.linalg.qr(normal(20, 20, seed=9))
    drawn, real = sights(60, 90, 4)
    flat = [Sight("inception-test", s.features.double() @ turn[:4]) for s in (drawn, real)]
    plain = frechet_score(real=real, drawn=drawn, name="FID")
    score = frechet_score(real=flat[1], drawn=flat[0], name="FID")
    assert score.value == pytest.approx(plain.value, rel=1e-4)
    assert score.error == pytest.approx(plain.error, rel=1e-4)
    assert gaussian_distance(drawn=flat[0].gaussian, real=flat[1].gaussian) == pytest.approx(
        plain.value, rel=1e-4
    )


# --- what is of second order --------------------------------------------------------------------


def equal(n, variances, seed):
    """A set whose mean is exactly 0 and whose covariance is exactly diagonal."""
    x = normal(n, len(variances), seed=seed)
    x = x - x.mean(0)
    root = torch.linalg.cholesky(torch.cov(x.T))
    return Sight("inception-test", torch.linalg.solve(root, x.T).T * variances.sqrt())


def second_order(sight, variances):
    """Variance of |m|^2 + 1/2 sum E_jk^2 / (a_j a_k (a_j + a_k)), E of independent entries."""
    n, x = len(sight), sight.features
    found = float(2 * variances.square().sum()) / n**2
    for j in range(len(variances)):
        for k in range(j + 1):
            a, b = variances[j], variances[k]
            covariance = a**2 if j == k else 0.0
            spread = ((a * b * (x[:, j] * x[:, k]).square()).mean() - covariance**2) / n
            times = 0.5 if j == k else 1.0  # off the diagonal it stands there twice
            found += 2 * float(times * spread / (a * b * (a + b))) ** 2
    return found


def test_where_all_influences_vanish_the_error_is_that_of_second_order():
    variances = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    drawn, real = equal(30, variances, 0), equal(20, variances, 1)
    score = frechet_score(real=real, drawn=drawn, name="FID")
    own, other = (second_order(sight, variances) ** 0.5 for sight in (drawn, real))
    assert score.own_error == pytest.approx(own, rel=1e-6)
    assert score.error == pytest.approx(own + other, rel=1e-6)


def test_at_few_pictures_of_one_distribution_errors_are_their_scatter():
    """Once and a half as many as dimensions, where second order weighs most."""
    found = [
        frechet_score(
            real=Sight("inception-test", normal(24, 16, seed=2 * k)),
            drawn=Sight("inception-test", normal(24, 16, seed=2 * k + 1)),
            name="FID",
        )
        for k in range(300)
    ]
    values = torch.tensor([score.value for score in found])
    errors = torch.tensor([score.error for score in found])
    ratio = float(errors.square().mean().sqrt() / values.std())
    assert 0.95 < ratio < 1.2


def test_at_few_pictures_own_errors_are_their_scatter():
    real = Sight("inception-test", normal(2000, 16, seed=0))
    found = [
        frechet_score(real=real, drawn=Sight("inception-test", normal(24, 16, seed=k)), name="FID")
        for k in range(1, 301)
    ]
    values = torch.tensor([score.value for score in found])
    errors = torch.tensor([score.own_error for score in found])
    ratio = float(errors.square().mean().sqrt() / values.std())
    assert 0.95 < ratio < 1.2
