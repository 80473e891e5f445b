"""Frechet distances between sets of pictures: the value, how sure it is, and its bias.

With G G^T the real covariance C_r and S = G^T C G = U diag(lambda) U^T, the distance of drawn
pictures N(m, C) from real ones N(m_r, C_r) is (Dowson & Landau 1982)

    F = |m - m_r|^2 + tr C + tr C_r - 2 sum sqrt(lambda).

**Influence.**  T = G S^(-1/2) G^T maps the drawn Gaussian onto the real one (T C T = C_r), and the
derivative of F by C is I - T.  So one more drawn picture at x moves F by

    2 (m - m_r) . (x - m) + (x - m)^T (I - T) (x - m)

less its mean, over n: the influence function, whose variance over n is the infinitesimal
jackknife's (Jaeckel 1972).  Real pictures enter alike, with T^-1 and -(m - m_r).

**Curvature.**  With v = U^T G^T (x - m), the second differential of -2 tr S^(1/2) is

    sum_jk E_jk^2 / (sqrt(lambda_j lambda_k) (sqrt(lambda_j) + sqrt(lambda_k))),

E the change of S in the basis U (divided differences; Bhatia 1997, sec. V.3).  In a sample E_jk has
mean 0 and variance Var(v_j v_k) / n, so half of the sum's expectation is the bias that FID has at
n pictures (Chong & Forsyth 2020 measure it), and the sum's own variance is what a jackknife counts
twice (Efron & Stein 1981), and is taken off once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kao.errors import DataError
from kao.metrics.checks import check_widths
from kao.metrics.gaussians import ROWS, Gaussian
from kao.metrics.scores import Score
from kao.metrics.sight import Sight

_ROUNDING = 1e-13  # of the largest eigenvalue: what is below is taken as 0


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """Squared 2-Wasserstein distance between two Gaussians (Dowson & Landau 1982).

    The trace of the square root of cov_a cov_b is that of (G^T cov_a G)^(1/2), where
    G G^T = cov_b.  That matrix is symmetric, so its eigenvalues are real, and no complex root and
    no added epsilon are needed where covariances are singular.

    Between samples it is biased upwards by their finite number: compare sets of one size.

    Args:
        mean_a: Of one, (D,), float64.
        cov_a: Of one, (D, D), float64, symmetric, positive semi-definite.
        mean_b: Of the other, likewise.
        cov_b: Of the other, likewise.

    Returns:
        A non-negative number in squared feature units; 0 if and only if the Gaussians agree.
    """
    return gaussian_distance(drawn=Gaussian(mean_a, cov_a), real=Gaussian(mean_b, cov_b))


def gaussian_distance(*, real: Gaussian, drawn: Gaussian) -> float:
    """`frechet_distance` of two Gaussians; what it needs of the real one alone is kept there.

    Raises:
        DataError: They are of different widths.
    """
    check_widths(real=real.width, drawn=drawn.width)
    product = real.factor.T @ drawn.cov @ real.factor
    return _put_together(
        (drawn.mean - real.mean).square().sum() + drawn.cov.trace() + real.cov.trace(),
        # Symmetric but for rounding.
        torch.linalg.eigvalsh((product + product.T) / 2),
    )


def features_distance(*, real: Gaussian, drawn: Tensor) -> float:
    """Frechet distance of a set of features, in the smaller of two forms.

    Where there are fewer pictures than dimensions, the eigenvalues other than 0 are those of a
    matrix of pictures by pictures, X C_r X^T / (n - 1), X the features less their mean.

    Args:
        real: What it is held against.
        drawn: (N, D), any dtype and device, N of two or more.

    Raises:
        DataError: They are of different widths.
    """
    x = drawn.detach().to("cpu", torch.float64)
    check_widths(real=real.width, drawn=x.shape[1])
    mean = x.mean(0)
    x = x - mean
    if len(x) > real.width:
        own = Gaussian(mean, x.T @ x / (len(x) - 1), len(x))
        return gaussian_distance(real=real, drawn=own)
    projected = x @ real.factor
    gram = projected @ projected.T / (len(x) - 1)
    trace = x.square().sum() / (len(x) - 1)
    return _put_together(
        (mean - real.mean).square().sum() + trace + real.cov.trace(), torch.linalg.eigvalsh(gram)
    )


def frechet_score(*, real: Sight | Gaussian, drawn: Sight, name: str) -> Score:
    """The conventional Frechet distance at this number of pictures, with its interval.

    The value is biased upwards by both sets' finite numbers, and the interval is one for its
    expectation at these numbers: it says how other pictures of the same number would score, not
    where the distance between the distributions lies.

    Args:
        real: Real pictures, or their mean and covariance.  Of those the sampling is taken as that
            of `n` draws from the normal distribution; where `n` is not known they count as given,
            and the error is that of the drawn pictures alone.
        drawn: Generated pictures.
        name: Of the score.

    Raises:
        DataError: There are no more pictures, drawn or real, than dimensions, or the widths
            differ.
    """
    _check(real, drawn, name, share=1)
    found = _estimate(drawn, real)
    return _scored(name, found.value, found, len(drawn))


def frechet_infinity(*, real: Sight | Gaussian, drawn: Sight, name: str) -> Score:
    """Frechet distance as it would be with infinitely many pictures (Chong & Forsyth 2020).

    They evaluate FID on subsets of several sizes and fit a line in 1/n.  Here the slope at n is
    known from the second derivative (see this file's head), and what is left, of order 1/n^2, is
    removed with two halves (Richardson 1911): c_n + (c_n - c_(n/2)) / 3, where c_n is the
    distance less its first-order bias at n pictures.  A line through n and n/2 alone overshoots
    where n is a few times the dimension, since the bias is no line there.

    The bias of the real pictures is removed as well.  Of mean and covariance alone it is taken to
    first order, as that of `n` draws from the normal distribution; where `n` is not known it
    stays, and the score's name says so.

    Args:
        real: Real pictures, or their mean and covariance.
        drawn: Generated pictures.
        name: Of the score.

    Raises:
        DataError: There are not more than twice as many pictures, drawn or real, as dimensions, or
            the widths differ.
    """
    _check(real, drawn, name, share=2)
    full = _estimate(drawn, real)
    others: tuple[Sight | Gaussian, ...] = (real, real)
    if isinstance(real, Sight):
        others = _halves(real)
    rough = [
        _estimate(half, other).unbiased for half, other in zip(_halves(drawn), others, strict=True)
    ]
    value = full.unbiased + (full.unbiased - sum(rough) / 2) / 3
    if full.real is None:
        name = f"{name} (the reference's own bias stays)"
    return _scored(name, value, full, len(drawn))


@dataclass(frozen=True)
class _Side:
    """What one of the two sets does to the distance.

    Attributes:
        jackknife: Variance by the infinitesimal jackknife.
        second: The part of the true variance that is of second order.
        bias: Of first order in 1/n.
    """

    jackknife: float
    second: float
    bias: float


@dataclass(frozen=True)
class _Estimate:
    """A distance with what both sets do to it; `real` is None where only its moments are known."""

    value: float
    drawn: _Side
    real: _Side | None

    @property
    def unbiased(self) -> float:
        """The value less its bias of first order."""
        return self.value - self.drawn.bias - (self.real.bias if self.real else 0.0)


def _estimate(drawn: Sight, real: Sight | Gaussian) -> _Estimate:
    """The distance, its influence functions and its curvature, from one eigen-decomposition."""
    ours, theirs = drawn.gaussian, real if isinstance(real, Gaussian) else real.gaussian
    product = theirs.factor.T @ ours.cov @ theirs.factor
    values, vectors = torch.linalg.eigh((product + product.T) / 2)
    roots = values.clamp(min=0).sqrt()
    value = _put_together(
        (ours.mean - theirs.mean).square().sum() + ours.cov.trace() + theirs.cov.trace(), values
    )
    inverse = torch.where(values > _ROUNDING * values[-1], 1 / roots, 0.0)
    to_real = theirs.factor @ vectors
    shift = ours.mean - theirs.mean
    drawn_side = _side(
        ours, _sampled(drawn.features, ours, to_real, inverse, shift), roots, inverse
    )
    # The same eigenvalues are those of H^T C_r H, H H^T = C; its basis follows from this one.
    to_drawn = ours.cov @ to_real * inverse
    if isinstance(real, Sight):
        spread = _sampled(real.features, theirs, to_drawn, inverse, -shift)
    elif real.n is not None:
        spread = _normal(real, real.n, to_drawn, roots, inverse, -shift)
    else:
        return _Estimate(value, drawn_side, None)
    return _Estimate(value, drawn_side, _side(theirs, spread, roots, inverse))


@dataclass(frozen=True)
class _Spread:
    """How the pictures of one set lie, seen along v = basis^T (x - m).

    Attributes:
        n: Pictures.
        influence: Variance of the mean influence of the pictures.
        fourth: Means of v_j^2 v_k^2, (D, D).
    """

    n: int
    influence: float
    fourth: Tensor


def _sampled(
    features: Tensor, own: Gaussian, basis: Tensor, inverse: Tensor, towards: Tensor
) -> _Spread:
    """Of a set that is there.

    Args:
        features: Of the set, (N, D).
        own: Its mean and covariance.
        basis: (D, D).
        inverse: 1 / sqrt(lambda), and 0 where lambda is, (D,).
        towards: This set's mean less the other's, (D,).
    """
    n, influences = len(features), []
    fourth = torch.zeros_like(own.cov)
    for rows in torch.split(features, ROWS):
        x = rows.double() - own.mean
        squares = (x @ basis).square()
        influences.append(2 * x @ towards + x.square().sum(1) - squares @ inverse)
        fourth += squares.T @ squares / n
    influence = torch.cat(influences)
    variance = (influence - influence.mean()).square().sum() / (n * (n - 1))
    return _Spread(n, variance.item(), fourth)


def _normal(
    own: Gaussian, n: int, basis: Tensor, roots: Tensor, inverse: Tensor, towards: Tensor
) -> _Spread:
    """Of n draws from a normal distribution; its fourth moments are those of Isserlis (1918)."""
    seen = own.cov @ basis
    moved = own.cov - seen * inverse @ basis.T  # C (I - T)
    variance = 4 * towards @ own.cov @ towards + 2 * (moved * moved.T).sum()
    squares = roots.square()
    return _Spread(n, variance.item() / n, squares.outer(squares) + 2 * squares.square().diag())


def _side(own: Gaussian, spread: _Spread, roots: Tensor, inverse: Tensor) -> _Side:
    """Influence and curvature of one set; roots, (D,), are sqrt(lambda)."""
    n = spread.n
    bend = inverse[:, None] * inverse / (roots[:, None] + roots).clamp(min=1e-300)
    bent = (spread.fourth - torch.diag(roots**4)) * bend / n
    bias = own.cov.trace() / n + bent.sum() / 2
    # Off the diagonal each E_jk stands twice in the sum but varies once.
    second = bent.square().sum() - bent.diagonal().square().sum() / 2
    second += 2 * own.cov.square().sum() / n**2
    return _Side(spread.influence, second.item(), bias.item())


def _scored(name: str, value: float, found: _Estimate, n: int) -> Score:
    """The score, its error by the jackknife less what that counts twice.

    What both sets do together is of second order; it is taken as the geometric mean of what they
    do apart, which it is where they are of one distribution.
    """
    drawn, real = found.drawn, found.real
    own = max(drawn.jackknife - drawn.second, drawn.second)
    both = own
    if real:
        second = (drawn.second**0.5 + real.second**0.5) ** 2
        both = max(drawn.jackknife + real.jackknife - second, second, own)
    return Score(name, value, both**0.5, n, own_error=own**0.5)


def _put_together(apart: Tensor, values: Tensor) -> float:
    """|m - m_r|^2 + tr C + tr C_r, less twice the roots; below 0 is rounding."""
    return max(0.0, (apart - 2 * values.clamp(min=0).sqrt().sum()).item())


def _halves(sight: Sight) -> tuple[Sight, Sight]:
    one, other = sight.order.tensor_split(2)
    return sight.rows(one), sight.rows(other)


def _check(real: Sight | Gaussian, drawn: Sight, name: str, *, share: int) -> None:
    """Refuse sets of different widths, and such as are no larger than `share` times that."""
    width = drawn.width
    check_widths(real=real.width, drawn=width)
    numbers = {"drawn": len(drawn), "real": real.n if isinstance(real, Gaussian) else len(real)}
    for whose, n in numbers.items():
        if n is None or n // share > width:
            continue
        why, least = "with no more than dimensions the covariance is singular", width + 1
        if share > 1:
            why, least = "its bias is known from more than twice as many only", 2 * width + 2
        raise DataError(
            f"{name} of {n} {whose} pictures in {width} dimensions is refused, since {why}: take "
            f'"kid", which has no bias at any number, or {least} {whose} pictures.'
        )
