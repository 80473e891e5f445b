"""A measured number and how sure it is."""

from dataclasses import dataclass
from typing import Literal

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
