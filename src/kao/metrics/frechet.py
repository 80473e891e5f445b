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
    return gaussian_distance(Gaussian(mean_a, cov_a), Gaussian(mean_b, cov_b))


def gaussian_distance(drawn: Gaussian, real: Gaussian) -> float:
    """`frechet_distance` of two Gaussians; what it needs of the real one alone is kept there.

    Raises:
        DataError: They are of different widths.
    """
    _same_width(drawn.width, real.width)
    product = real.factor.T @ drawn.cov @ real.factor
    return _put_together(
        (drawn.mean - real.mean).square().sum() + drawn.cov.trace() + real.cov.trace(),
        # Symmetric but for rounding.
        torch.linalg.eigvalsh((product + product.T) / 2),
    )


def features_distance(drawn: Tensor, real: Gaussian) -> float:
    """Frechet distance of a set of features, in the smaller of two forms.

    Where there are fewer pictures than dimensions, the eigenvalues other than 0 are those of a
    matrix of pictures by pictures, X C_r X^T / (n - 1), X the features less their mean.

    Args:
        drawn: (N, D), any dtype and device, N of two or more.
        real: What it is held against.

    Raises:
        DataError: They are of different widths.
    """
    x = drawn.detach().to("cpu", torch.float64)
    _same_width(x.shape[1], real.width)
    mean = x.mean(0)
    x = x - mean
    if len(x) > real.width:
        return gaussian_distance(Gaussian(mean, x.T @ x / (len(x) - 1), len(x)), real)
    projected = x @ real.factor
    gram = projected @ projected.T / (len(x) - 1)
    own = x.square().sum() / (len(x) - 1)
    return _put_together(
        (mean - real.mean).square().sum() + own + real.cov.trace(), torch.linalg.eigvalsh(gram)
    )


def frechet_score(drawn: Sight, real: Gaussian, *, seen: Tensor | None, name: str) -> Score:
    """The conventional Frechet distance at this number of pictures, with its interval.

    The value is biased upwards by both sets' finite numbers, and the interval is one for its
    expectation at these numbers: it says how other pictures of the same number would score, not
    where the distance between the distributions lies.

    Args:
        drawn: Generated pictures.
        real: Mean and covariance of real pictures.
        seen: The features that `real` is of, (N, D).  None: they are not known, and `real` counts
            as given, so the error is that of the drawn pictures alone.
        name: Of the score.

    Raises:
        DataError: There are no more drawn pictures than dimensions, or the widths differ.
    """
    _enough(len(drawn), real.width, name, share=1)
    found = _estimate(drawn.features, drawn.gaussian, seen, real)
    return _scored(name, found.value, found, len(drawn))


def frechet_infinity(drawn: Sight, real: Sight | Gaussian, *, name: str) -> Score:
    """Frechet distance as it would be with infinitely many pictures (Chong & Forsyth 2020).

    They evaluate FID on subsets of several sizes and fit a line in 1/n.  Here the slope at n is
    known from the second derivative (see this file's head), and what is left, of order 1/n^2, is
    removed with two halves (Richardson 1911): c_n + (c_n - c_(n/2)) / 3, where c_n is the
    distance less its first-order bias at n pictures.  A line through n and n/2 alone overshoots
    where n is a few times the dimension, since the bias is no line there.

    The bias of the real pictures is removed as well where their features are given; of mean and
    covariance alone it stays, as in theirs.

    Args:
        drawn: Generated pictures.
        real: Real ones, or their mean and covariance.
        name: Of the score.

    Raises:
        DataError: There are not more than twice as many pictures as dimensions, or the widths
            differ.
    """
    _enough(len(drawn), real.width, name, share=2)
    if isinstance(real, Gaussian):
        full = _estimate(drawn.features, drawn.gaussian, None, real)
        halves = [_estimate(half.features, half.gaussian, None, real) for half in _halves(drawn)]
    else:
        _enough(len(real), real.width, f"{name} (real)", share=2)
        full = _estimate(drawn.features, drawn.gaussian, real.features, real.gaussian)
        halves = [
            _estimate(half.features, half.gaussian, other.features, other.gaussian)
            for half, other in zip(_halves(drawn), _halves(real), strict=True)
        ]
    rough = (halves[0].unbiased + halves[1].unbiased) / 2
    return _scored(name, full.unbiased + (full.unbiased - rough) / 3, full, len(drawn))


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


def _estimate(drawn: Tensor, ours: Gaussian, seen: Tensor | None, real: Gaussian) -> _Estimate:
    """The distance, its influence functions and its curvature, from one eigen-decomposition."""
    _same_width(ours.width, real.width)
    product = real.factor.T @ ours.cov @ real.factor
    values, vectors = torch.linalg.eigh((product + product.T) / 2)
    roots = values.clamp(min=0).sqrt()
    value = _put_together(
        (ours.mean - real.mean).square().sum() + ours.cov.trace() + real.cov.trace(), values
    )
    inverse = torch.where(values > _ROUNDING * values[-1], 1 / roots, 0.0)
    to_real = real.factor @ vectors
    side = _side(drawn, ours, to_real, roots, inverse, towards=ours.mean - real.mean)
    if seen is None:
        return _Estimate(value, side, None)
    # The same eigenvalues are those of H^T C_r H, H H^T = C; its basis follows from this one.
    to_drawn = ours.cov @ to_real * inverse
    other = _side(seen, real, to_drawn, roots, inverse, towards=real.mean - ours.mean)
    return _Estimate(value, side, other)


def _side(
    features: Tensor,
    own: Gaussian,
    basis: Tensor,
    roots: Tensor,
    inverse: Tensor,
    *,
    towards: Tensor,
) -> _Side:
    """Influence and curvature of one set.

    Args:
        features: Of the set, (N, D).
        own: Its mean and covariance.
        basis: v = basis^T (x - m), (D, D).
        roots: sqrt(lambda), (D,).
        inverse: 1 / sqrt(lambda), and 0 where lambda is, (D,).
        towards: This set's mean less the other's, (D,).
    """
    n, influences = len(features), []
    fourth = torch.zeros_like(own.cov)  # mean of v_j^2 v_k^2
    for rows in torch.split(features, ROWS):
        x = rows.double() - own.mean
        squares = (x @ basis).square()
        influences.append(2 * x @ towards + x.square().sum(1) - squares @ inverse)
        fourth += squares.T @ squares / n
    influence = torch.cat(influences)
    variance = (influence - influence.mean()).square().sum() / (n * (n - 1))

    bend = inverse[:, None] * inverse / (roots[:, None] + roots).clamp(min=1e-300)
    bent = (fourth - torch.diag(roots**4)) * bend / n
    bias = own.cov.trace() / n + bent.sum() / 2
    # Off the diagonal each E_jk stands twice in the sum but varies once.
    second = bent.square().sum() - bent.diagonal().square().sum() / 2
    second += 2 * own.cov.square().sum() / n**2
    return _Side(variance.item(), second.item(), bias.item())


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


def _enough(n: int, width: int, name: str, *, share: int) -> None:
    if n // share > width:
        return
    if share == 1:
        raise DataError(
            f"{name} of {n} pictures in {width} dimensions is refused: with no more pictures than "
            f'dimensions the covariance is singular and the distance mostly bias; use "kid", which '
            f"has no bias at any number, or more than {width} pictures."
        )
    raise DataError(
        f"{name} of {n} pictures in {width} dimensions is refused: both halves need more pictures "
        f'than there are dimensions; use "kid", which has no bias at any number, or '
        f"{2 * width + 2} pictures."
    )


def _same_width(drawn: int, real: int) -> None:
    if drawn != real:
        raise DataError(
            f"Features of {drawn} numbers (drawn) cannot be held against those of {real} (real): "
            f"they come from different feature networks, or from pictures of different sizes."
        )
