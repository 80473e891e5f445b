"""Distances between two sets of pictures, from their features."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kao.errors import DataError

_LEAST = 3  # features of a set; leaving one out must leave two


@dataclass(frozen=True)
class Score:
    """A measured number.

    Attributes:
        name: What was measured, with the feature space.
        value: Its estimate.
        error: Standard error of `value`.
        samples: Generated pictures behind it.
    """

    name: str
    value: float
    error: float
    samples: int


class KernelDistance:
    """Squared maximum mean discrepancy to one set of real pictures, without bias.

    The kernel is (x . y / D + 1)^3 of Binkowski et al. (2018, sec. 4), on features that are
    standardised by the real set's mean and standard deviation: theirs are used as they come,
    but the units of a scattering transform differ from one feature to the next.

    Without bias means that sets of any two sizes estimate the same number, so few pictures of
    a slow sampler compare with many of a fast one; the price is that the estimate for a
    perfect model lies around 0 and may be negative.

    Everything is float64 on the CPU.

    Args:
        real: Features of real pictures, (N, D), any dtype and device.
        name: Of the scores, "kernel distance" and the feature space for instance.

    Raises:
        DataError: There are fewer than three, or one is not finite.
    """

    def __init__(self, real: Tensor, *, name: str = "kernel distance"):
        real = _checked(real, "real")
        self.name = name
        # A feature that never changes says nothing; 1 keeps it 0 where the other set agrees.
        std = real.std(0)
        self._mean, self._std = real.mean(0), torch.where(std > 1e-9, std, 1.0)
        self._real = (real - self._mean) / self._std
        self._within = _off_diagonal(self._real)

    def __call__(self, generated: Tensor) -> Score:
        """The distance of a set of generated pictures.

        Its standard error is the jackknife's over both sets (Efron & Stein 1981): how much the
        estimate would vary with other pictures, real and generated.  The units that the real
        set gives to the features are taken as part of the measure, not as an estimate.

        Args:
            generated: Features, (M, D), any dtype and device.

        Raises:
            DataError: There are fewer than three, or one is not finite.
        """
        x = (_checked(generated, "generated") - self._mean) / self._std
        here, there, across = _off_diagonal(x), self._within, _kernel(x, self._real)
        value = _mean_pair(here) + _mean_pair(there) - 2 * across.mean()
        variance = _jackknife(here, across.mean(1)) + _jackknife(there, across.mean(0))
        return Score(self.name, value.item(), variance.sqrt().item(), len(x))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x . y / D + 1)^3 for all pairs: (M, D), (N, D) to (M, N)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _off_diagonal(x: Tensor) -> Tensor:
    """For each of a set, the sum of the kernel with all others: (M, D) to (M,)."""
    k = _kernel(x, x)
    return k.sum(1) - k.diagonal()


def _mean_pair(sums: Tensor) -> Tensor:
    """Mean over pairs of different members, from each member's sum over the others."""
    return sums.sum() / (len(sums) * (len(sums) - 1))


def _jackknife(sums: Tensor, across: Tensor) -> Tensor:
    """Variance of the estimate that comes from one of the two sets.

    Args:
        sums: Of each member, the kernel's sum over the others of its set, (M,).
        across: Of each member, the kernel's mean over the other set, (M,).
    """
    m = len(sums)
    within = (sums.sum() - 2 * sums) / ((m - 1) * (m - 2))
    between = (across.sum() - across) / (m - 1)
    left_out = within - 2 * between
    return (m - 1) / m * (left_out - left_out.mean()).square().sum()


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of a set.

    Args:
        features: (N, D), any dtype and device, N of three or more.

    Returns:
        (D,) and (D, D), float64 on the CPU; the covariance divides by N - 1.

    Raises:
        DataError: There are fewer than three, or one is not finite.
    """
    features = _checked(features, "of a set")
    return features.mean(0), torch.cov(features.T).reshape(features.shape[1], features.shape[1])


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """Squared 2-Wasserstein distance between two Gaussians (Dowson & Landau 1982).

    The trace of the square root of cov_a cov_b is that of (a cov_b a)^(1/2), where a is the
    symmetric root of cov_a.  That matrix is symmetric, so its eigenvalues are real, and no
    complex root and no added epsilon are needed where covariances are singular.

    Between samples it is biased upwards by their finite number: compare sets of one size.

    Args:
        mean_a: Of one, (D,), float64.
        cov_a: Of one, (D, D), float64, symmetric, positive semi-definite.
        mean_b: Of the other, likewise.
        cov_b: Of the other, likewise.

    Returns:
        A non-negative number in squared feature units; 0 if and only if the Gaussians agree.
    """
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    product = root @ cov_b @ root
    # Symmetric but for rounding; an eigenvalue below 0 is rounding too.
    shared = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    apart = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * shared
    return max(0.0, apart.item())


def _checked(features: Tensor, whose: str) -> Tensor:
    features = features.detach().to("cpu", torch.float64)
    if len(features) < _LEAST:
        raise DataError(
            f"{len(features)} pictures ({whose}) are too few for a distance; expected {_LEAST} or "
            f"more."
        )
    if bad := int((~features.isfinite()).any(1).sum()):
        raise DataError(
            f"{bad} of {len(features)} pictures ({whose}) have features that are not finite: the "
            f"model may have diverged."
        )
    return features
