"""A measured number and how sure it is."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Z95 = 1.959964
"""Standard errors to either side of an estimate that make a 95 % interval, if it is Gaussian."""

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Score:
    """A measured number.

    Attributes:
        name: What was measured, with the feature space.
        value: Its estimate.
        error: Standard error of `value`: how much it would vary with other pictures, real and
            drawn.
        samples: Drawn pictures behind it.
        own_error: The part of `error` that comes from the drawn pictures.  Two sets that were
            held against the same real pictures share the rest, so their difference is surer than
            each of them.  None: as `error`.
        interval: 95 % interval, where it is not `value` -+ 1.96 `error`: of a share near 0 or 1.
        better: Which way good pictures lie; "neither" for a number that should agree with that
            of real pictures.
    """

    name: str
    value: float
    error: float
    samples: int
    own_error: float | None = None
    interval: tuple[float, float] | None = None
    better: Better = "lower"

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.interval[0] if self.interval else self.value - Z95 * self.error

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.interval[1] if self.interval else self.value + Z95 * self.error

    @property
    def own(self) -> float:
        """Standard error that comes from the drawn pictures."""
        return self.error if self.own_error is None else self.own_error


def wilson(share: float, error: float, n: int) -> tuple[float, float]:
    """A 95 % interval of a share that stays within 0..1 (Wilson 1927).

    Args:
        share: The estimate.
        error: Its standard error.  That of n independent pictures is sqrt(p (1 - p) / n); a
            larger one counts as fewer pictures, a smaller one as n.
        n: Pictures.
    """
    spread = share * (1 - share)
    effective = min(n, spread / error**2) if error > 0 and spread > 0 else n
    z2 = Z95**2 / effective
    centre = (share + z2 / 2) / (1 + z2)
    reach = math.sqrt(spread * z2 + z2**2 / 4) / (1 + z2)
    # The estimate lies within, but for rounding at the ends.
    return min(share, max(0.0, centre - reach)), max(share, min(1.0, centre + reach))


def jackknife_variance(left_out: Tensor) -> float:
    """Variance of an estimate from what it is without each of n parts (Efron & Stein 1981).

    Args:
        left_out: Estimates without each part in turn, (n,), float64; the parts are single pictures
            or groups of equal size.
    """
    n = len(left_out)
    return (left_out - left_out.mean()).square().sum().item() * (n - 1) / n
