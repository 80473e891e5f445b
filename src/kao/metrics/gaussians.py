"""Mean and covariance of a set of features: gathered batch by batch, in float64."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kao.errors import DataError
from kao.metrics.checks import count_broken, refuse_broken

LEAST = 3
"""Features of a set: leaving one out must leave two."""

ROWS = 4096
"""Features that are held in float64 at a time."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """The normal distribution that stands for a set of features.

    Attributes:
        mean: (D,), float64, on the CPU.
        cov: (D, D), float64, symmetric, positive semi-definite.
        n: Pictures behind it; None where that is not known.
    """

    mean: Tensor
    cov: Tensor
    n: int | None = None

    @property
    def width(self) -> int:
        """Number of dimensions, D."""
        return len(self.mean)

    @cached_property
    def factor(self) -> Tensor:
        """A matrix G with G G^T = cov, (D, D), computed once.

        Cholesky's where the covariance has full rank, the symmetric root where it has not.  Any
        root serves a Frechet distance, and the first costs a tenth of the second.
        """
        factor, failed = torch.linalg.cholesky_ex(self.cov)
        if not failed:
            return factor
        values, vectors = torch.linalg.eigh(self.cov)
        # Below 0 is rounding.
        return vectors * values.clamp(min=0).sqrt() @ vectors.T


class Moments:
    """Mean and scatter of features that come in batches, each dropped after its turn.

    The pairwise formulae of Chan et al. (1983): no large sums are subtracted, so
    features far from zero lose no digits, and any division into batches or processes gives the
    same but for rounding.

    Attributes:
        n: Features so far.
        mean: (D,), float64; of no width before the first.
        scatter: Sum of outer products of what is left after the mean, (D, D), float64.
        broken: Pictures so far with a feature that is not finite.
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)
        self.broken = 0

    def update(self, features: Tensor) -> None:
        """Add a batch.

        Args:
            features: (B, D), any dtype and device; B may be 0.

        Raises:
            DataError: They are of another width than those before.
        """
        for rows in torch.split(features.detach(), ROWS):
            if not len(rows):
                continue
            rows = rows.to("cpu", torch.float64)
            self.broken += count_broken(rows)
            mean = rows.mean(0)
            rows = rows - mean
            self._add(len(rows), mean, rows.T @ rows)

    def merge(self, other: "Moments") -> None:
        """Add what another has gathered, in another process for instance.

        Raises:
            DataError: The widths differ.
        """
        if other.n:
            self._add(other.n, other.mean, other.scatter)
            self.broken += other.broken

    def gaussian(self) -> Gaussian:
        """Mean and covariance, which divides by n - 1.

        Raises:
            DataError: There are fewer than three features, or one is not finite.
        """
        if self.n < LEAST:
            raise DataError(
                f"{self.n} pictures are too few for a covariance; expected {LEAST} or more: give "
                f"more of them."
            )
        refuse_broken(self.broken, self.n)
        return Gaussian(self.mean, self.scatter / (self.n - 1), self.n)

    def _add(self, n: int, mean: Tensor, scatter: Tensor) -> None:
        if not self.n:
            self.n, self.mean, self.scatter = n, mean.clone(), scatter.clone()
            return
        if mean.shape != self.mean.shape:
            raise DataError(
                f"Features of {len(mean)} numbers cannot join those of {len(self.mean)} before "
                f"them, from another feature network: look at all pictures through one."
            )
        apart, total = mean - self.mean, self.n + n
        self.scatter += scatter + torch.outer(apart, apart) * (self.n * n / total)
        self.mean = self.mean + apart * (n / total)
        self.n = total


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of a set.

    Args:
        features: (N, D), any dtype and device, N of three or more.

    Returns:
        (D,) and (D, D), float64 on the CPU; the covariance divides by N - 1.

    Raises:
        DataError: There are fewer than three, or one is not finite.
    """
    gathered = Moments()
    gathered.update(features)
    gaussian = gathered.gaussian()
    return gaussian.mean, gaussian.cov
