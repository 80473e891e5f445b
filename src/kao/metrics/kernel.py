"""Kernel distances between sets of pictures: maximum mean discrepancies, without bias."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kao.errors import DataError
from kao.metrics.checks import check_widths, count_broken, refuse_broken
from kao.metrics.gaussians import LEAST, ROWS
from kao.metrics.pairs import squared_distances
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
        return (squared_distances(x, y) / (-2 * self.sigma**2)).exp()


class KernelDistance:
    """Squared maximum mean discrepancy to one set of real pictures, without bias.

    The kernel is (x . y / D + 1)^3 of Bińkowski et al. (2018, sec. 4), on features that are
    standardised by the real set's mean and standard deviation: theirs are used as they come
    (`standardised=False`), but the units of a scattering transform differ from one feature to the
    next.  A real picture is standardised by those of the others: in units that it has a part in it
    would lie nearer to the mean than a new picture does, and with 30 real pictures equal
    distributions would be 0.03 apart.

    Without bias means that sets of any two sizes estimate the same number, so few pictures of
    a slow sampler compare with many of a fast one; the price is that the estimate for a
    perfect model lies around 0 and may be negative.

    All pairs are used (a U-statistic; Gretton et al. 2012, lemma 6).  The usual KID is the mean of
    the same estimator over 100 subsets of 1,000 pictures: of the same expectation and, since each
    subset sees a part of the pairs, of larger variance.

    Everything is float64 on the CPU, a few million pairs at a time; features are kept as they come,
    and brought to float64 a block at a time.  What the real set's own pairs say is found once.

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
        self._units = _Units.of(real) if standardised else None
        self._real = _Blocks(real, self._units.without_itself if self._units else Tensor.double)

    @cached_property
    def _within(self) -> Tensor:
        return _off_diagonal(self._real, self._kernel)

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
        return self.measured(generated)[0]

    def measured(self, generated: Tensor) -> tuple[Score, Tensor]:
        """The distance, and by how much each generated picture moves it: the jackknife's, centred.

        The squares of the influences add up to the square of `own_error`.  Those of two sets that
        were drawn from the same noise are alike, picture by picture: the sum of their products is
        the covariance of the two distances.

        Args:
            generated: Features, (M, D), any dtype and device.

        Returns:
            What a call returns, and float64, (M,), in units of the distance.

        Raises:
            DataError: As of a call.
        """
        x = self._seen(generated)
        here, there = _off_diagonal(x, self._kernel), self._within
        from_x, from_real = _across(x, self._real, self._kernel)
        value = _mean_pair(here) + _mean_pair(there) - 2 * from_x.mean()
        influences = self._scale * _jackknife(here, from_x)
        own = influences.square().sum()
        both = own + (self._scale * _jackknife(there, from_real)).square().sum()
        score = Score(
            self.name,
            self._scale * value.item(),
            both.sqrt().item(),
            len(x),
            own_error=own.sqrt().item(),
        )
        return score, influences

    def _seen(self, generated: Tensor) -> "_Blocks":
        """Features in the units of the real set."""
        x = _checked(generated, "generated")
        check_widths(real=self._real.features.shape[1], drawn=x.shape[1])
        return _Blocks(x, self._units or Tensor.double)


@dataclass(frozen=True, eq=False)
class _Units:
    """Mean and standard deviation of each feature of a set, (D,), float64, and its size."""

    mean: Tensor
    std: Tensor
    count: int

    @classmethod
    def of(cls, features: Tensor) -> "_Units":
        blocks = torch.split(features, ROWS)
        mean = torch.stack([block.double().sum(0) for block in blocks]).sum(0) / len(features)
        squares = torch.stack([(block.double() - mean).square().sum(0) for block in blocks])
        std = (squares.sum(0) / (len(features) - 1)).sqrt()
        # A feature that never changes says nothing; 1 keeps it 0 where the other set agrees.
        return cls(mean, torch.where(std > 1e-9, std, 1.0), len(features))

    def __call__(self, block: Tensor) -> Tensor:
        """Features of other pictures, (B, D), in these units, float64."""
        return (block.double() - self.mean) / self.std

    def without_itself(self, block: Tensor) -> Tensor:
        """Features of some of the set, (B, D), each in the units of all others, float64."""
        n, z = self.count, self(block)
        variance = (n - 1 - n / (n - 1) * z.square()) / (n - 2)
        # What one picture alone has would have no units without it.
        return n / (n - 1) * z / variance.clamp(min=0.5).sqrt()


@dataclass(frozen=True, eq=False)
class _Blocks:
    """A set of features, (N, D), of which a slice is in float64 and in units."""

    features: Tensor
    in_units: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: slice) -> Tensor:
        return self.in_units(self.features[rows])


def _off_diagonal(x: _Blocks, kernel: Kernel) -> Tensor:
    """For each of a set, the sum of the kernel with all others, (M,)."""
    sums = torch.zeros(len(x), dtype=torch.float64)
    side = max(1, int(_PAIRS**0.5))
    for at in range(0, len(x), side):
        rows = slice(at, at + side)
        block = x[rows]
        k = kernel(block, block)
        sums[rows] += k.sum(1) - k.diagonal()
        for beside in range(at + side, len(x), side):  # each pair once: the kernel is symmetric
            columns = slice(beside, beside + side)
            k = kernel(block, x[columns])
            sums[rows] += k.sum(1)
            sums[columns] += k.sum(0)
    return sums


def _across(x: _Blocks, y: _Blocks, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """Mean of the kernel with the other set, of each of either: (M,), (N,)."""
    from_x, from_y = torch.zeros(len(x)).double(), torch.zeros(len(y)).double()
    side = max(1, int(_PAIRS**0.5))
    for at in range(0, len(x), side):
        rows = slice(at, at + side)
        block = x[rows]
        for beside in range(0, len(y), side):
            columns = slice(beside, beside + side)
            k = kernel(block, y[columns])
            from_x[rows] += k.sum(1)
            from_y[columns] += k.sum(0)
    return from_x / len(y), from_y / len(x)


def _mean_pair(sums: Tensor) -> Tensor:
    """Mean over pairs of different members, from each member's sum over the others."""
    return sums.sum() / (len(sums) * (len(sums) - 1))


def _jackknife(sums: Tensor, across: Tensor) -> Tensor:
    """Influence of each member of one of the two sets on the estimate, (M,).

    Their squares add up to the jackknife's variance of what comes from that set.

    Args:
        sums: Of each member, the kernel's sum over the others of its set, (M,).
        across: Of each member, the kernel's mean over the other set, (M,).
    """
    m = len(sums)
    within = (sums.sum() - 2 * sums) / ((m - 1) * (m - 2))
    between = (across.sum() - across) / (m - 1)
    left_out = within - 2 * between
    return ((m - 1) / m) ** 0.5 * (left_out.mean() - left_out)


def _checked(features: Tensor, whose: str) -> Tensor:
    features = features.detach().cpu()
    if len(features) < LEAST:
        raise DataError(
            f"{len(features)} pictures ({whose}) are too few for a distance; expected {LEAST} or "
            f"more: give more of them."
        )
    refuse_broken(count_broken(features), len(features), f" ({whose})")
    return features
