"""Kernel distances between sets of pictures: maximum mean discrepancies, without bias."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kao.errors import DataError
from kao.metrics.gaussians import LEAST
from kao.metrics.scores import Score

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Of all pairs: (M, D), (N, D) to (M, N), float64."""

_PAIRS = 2**23  # kernel values that are held at a time


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """(x . y / D + 1)^3, the kernel of Bińkowski et al. (2018, sec. 4)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


@dataclass(frozen=True)
class RadialKernel:
    """exp(-|x - y|^2 / (2 sigma^2)).

    Attributes:
        sigma: Width, in feature units.
    """

    sigma: float

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Of all pairs: (M, D), (N, D) to (M, N)."""
        squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
        return (squares.clamp(min=0) / (-2 * self.sigma**2)).exp()


class KernelDistance:
    """Squared maximum mean discrepancy to one set of real pictures, without bias.

    The kernel is (x . y / D + 1)^3 of Bińkowski et al. (2018, sec. 4), on features that are
    standardised by the real set's mean and standard deviation: theirs are used as they come
    (`standardised=False`), but the units of a scattering transform differ from one feature to the
    next.

    Without bias means that sets of any two sizes estimate the same number, so few pictures of
    a slow sampler compare with many of a fast one; the price is that the estimate for a
    perfect model lies around 0 and may be negative.

    All pairs are used (a U-statistic; Gretton et al. 2012, lemma 6).  The usual KID is the mean of
    the same estimator over 100 subsets of 1,000 pictures: of the same expectation and, since each
    subset sees a part of the pairs, of larger variance.

    Everything is float64 on the CPU, a few million pairs at a time.

    Args:
        real: Features of real pictures, (N, D), any dtype and device.
        name: Of the scores, "kernel distance" and the feature space for instance.
        kernel: Of all pairs of two sets.
        standardised: Whether the units of the features are those of the real set.
        scale: What the distance is multiplied by.

    Raises:
        DataError: There are fewer than three, or one is not finite.
    """

    def __init__(
        self,
        real: Tensor,
        *,
        name: str = "kernel distance",
        kernel: Kernel = cubic,
        standardised: bool = True,
        scale: float = 1.0,
    ):
        real = _checked(real, "real")
        self.name, self._kernel, self._scale = name, kernel, scale
        self._mean, self._std = torch.zeros(1).double(), torch.ones(1).double()
        if standardised:
            # A feature that never changes says nothing; 1 keeps it 0 where the other set agrees.
            std = real.std(0)
            self._mean, self._std = real.mean(0), torch.where(std > 1e-9, std, 1.0)
        self._real = (real - self._mean) / self._std
        self._within = _off_diagonal(self._real, kernel)

    def __call__(self, generated: Tensor) -> Score:
        """The distance of a set of generated pictures.

        Its standard error is the jackknife's over both sets (Efron & Stein 1981): how much the
        estimate would vary with other pictures, real and generated.  The units that the real
        set gives to the features are taken as part of the measure, not as an estimate.

        Args:
            generated: Features, (M, D), any dtype and device.

        Raises:
            DataError: There are fewer than three, one is not finite, or D is not the real set's.
        """
        x = _checked(generated, "generated")
        if x.shape[1] != self._real.shape[1]:
            raise DataError(
                f"Features of {x.shape[1]} numbers (generated) cannot be held against those of "
                f"{self._real.shape[1]} (real): they come from different feature networks."
            )
        x = (x - self._mean) / self._std
        here, there = _off_diagonal(x, self._kernel), self._within
        from_x, from_real = _across(x, self._real, self._kernel)
        value = _mean_pair(here) + _mean_pair(there) - 2 * from_x.mean()
        own = _jackknife(here, from_x)
        both = own + _jackknife(there, from_real)
        return Score(
            self.name,
            self._scale * value.item(),
            self._scale * both.sqrt().item(),
            len(x),
            own_error=self._scale * own.sqrt().item(),
        )


def _off_diagonal(x: Tensor, kernel: Kernel) -> Tensor:
    """For each of a set, the sum of the kernel with all others: (M, D) to (M,)."""
    sums = torch.zeros(len(x), dtype=torch.float64)
    side = max(1, int(_PAIRS**0.5))
    for at in range(0, len(x), side):
        rows = slice(at, at + side)
        k = kernel(x[rows], x[rows])
        sums[rows] += k.sum(1) - k.diagonal()
        for beside in range(at + side, len(x), side):  # each pair once: the kernel is symmetric
            columns = slice(beside, beside + side)
            k = kernel(x[rows], x[columns])
            sums[rows] += k.sum(1)
            sums[columns] += k.sum(0)
    return sums


def _across(x: Tensor, y: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """Mean of the kernel with the other set, of each of either: (M, D), (N, D) to (M,), (N,)."""
    from_x, from_y = torch.zeros(len(x)).double(), torch.zeros(len(y)).double()
    side = max(1, _PAIRS // len(y))
    for at in range(0, len(x), side):
        k = kernel(x[at : at + side], y)
        from_x[at : at + side] = k.mean(1)
        from_y += k.sum(0)
    return from_x, from_y / len(x)


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


def _checked(features: Tensor, whose: str) -> Tensor:
    features = features.detach().to("cpu", torch.float64)
    if len(features) < LEAST:
        raise DataError(
            f"{len(features)} pictures ({whose}) are too few for a distance; expected {LEAST} or "
            f"more."
        )
    if bad := int((~features.isfinite()).any(1).sum()):
        raise DataError(
            f"{bad} of {len(features)} pictures ({whose}) have features that are not finite: the "
            f"model may have diverged."
        )
    return features
