"""The line between copies and new pictures: one in a hundred new pictures lies below it.

It is drawn by few real pictures, through the lowest tenth of their values, which is taken for the
tail of an exponential distribution.  Where the line lies is then known only so well, and a share of
samples below it no better: with 50 real pictures the line flags 0 to 6 % of new ones.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kao.metrics.scores import Z95, Score, wilson
from kao.seeds import mixed_seed

CHANCE = 0.01
"""Share of new pictures that are flagged."""

_PARTS = 10  # each of which is judged by the line that the others draw
_DRAWS = 1000  # places where the true line may lie
_COVERED = math.erf(Z95 / math.sqrt(2))
_HALVINGS = 40  # of 0..1: ends of intervals are found to 1e-12


@dataclass(frozen=True, eq=False)
class Line:
    """A line that real pictures drew.

    Attributes:
        mean, std: Of real pictures' logarithms, (V,).
        height: Of the lowest standardised one: `CHANCE` of new pictures lie below.
    """

    mean: Tensor
    std: Tensor
    height: float

    @classmethod
    def through(cls, logs: Tensor) -> "Line":
        """The line that real pictures draw, (n, V)."""
        mean, std = logs.mean(0), logs.std(0).clamp(min=1e-6)
        return cls(mean, std, low_quantile(((logs - mean) / std).amin(1), CHANCE))

    def standardised(self, logs: Tensor) -> Tensor:
        """Logarithms in the units of real pictures, (n, V)."""
        return (logs - self.mean) / self.std

    def flags(self, logs: Tensor) -> Tensor:
        """Which lie below it, (n,), bool."""
        return self.standardised(logs).amin(1) < self.height


def low_quantile(values: Tensor, share: float) -> float:
    """A number below which a share of further values will lie, from few.

    The lowest tenth, five at least, are taken for the tail of an exponential distribution below
    the next one, u.  With m of them and their mean e below u, a further value lies under
    u - e m ((q / share)^(1/m) - 1), q = (m + 1) / (n + 1), with probability `share` exactly:
    the mean over the Gamma distribution of e is allowed for.  Thinner tails, a Gaussian's for
    instance, give fewer.

    Args:
        values: (n,), float64, n of 10 or more.
        share: Below 6 / (n + 1) and a tenth.
    """
    border, excess, m = _tail(values)
    q = (m + 1) / (len(values) + 1)
    return border - excess * m * ((q / share) ** (1 / m) - 1)


def possible_quantiles(values: Tensor, share: float, *, seed: int) -> Tensor:
    """Where the true quantile of `low_quantile` may lie.

    In an exponential tail with scale s the share below u is Beta(m + 1, n - m) and m e / s is
    Gamma(m), so the quantile u - s log(Beta / share) is u - e m log(Beta / share) / Gamma: what is
    drawn here is known but for these two, and the ends of its middle 95 % are an exact interval.

    Args:
        values: (n,), float64, n of 10 or more.
        share: As of `low_quantile`.
        seed: Of the draws.

    Returns:
        float64, (1000,), in no order.
    """
    border, excess, m = _tail(values)
    rng = np.random.default_rng(mixed_seed(seed))
    below = rng.beta(m + 1, len(values) - m, _DRAWS)
    return torch.from_numpy(border - excess * m * np.log(below / share) / rng.gamma(m, size=_DRAWS))


def _tail(values: Tensor) -> tuple[float, float, int]:
    """Where the tail begins, the mean distance of its values from there, and their number."""
    m = max(5, len(values) // 10)
    lowest = values.sort().values[: m + 1]
    return float(lowest[m]), float((lowest[m] - lowest[:m]).mean()), m


def share_below(values: Tensor, height: float, heights: Tensor) -> Score:
    """The share of copies among samples, as sure as both they and the line are.

    Wilson's interval holds those shares p whose (s - p) / sqrt(p (1 - p) / n) is a likely standard
    normal number.  Here that is asked on average over the places where the line may lie, each with
    its own share s; where all are the same, it is Wilson's interval.

    Args:
        values: Of samples, (n,), float64.
        height: Of the line.
        heights: Where it may lie, of `possible_quantiles`.

    Returns:
        The share below the line, 0..1; `own_error` is that of as many samples and a line that is
        known.
    """
    n = len(values)
    known = sampled_share("copies", int((values < height).sum()), n)
    shares = torch.searchsorted(values.sort().values, heights).double() / n
    own = known.error
    return Score(
        known.name,
        known.value,
        math.hypot(own, float(shares.std())),
        n,
        own_error=own,
        # The line itself is one of those that may be.
        interval=(
            min(known.value, _limit(shares, n, (1 - _COVERED) / 2)),
            max(known.value, _limit(shares, n, (1 + _COVERED) / 2)),
        ),
    )


def _limit(shares: Tensor, n: int, level: float) -> float:
    """The p at which the mean probability of a share of at least s is `level`."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        p = (low + high) / 2
        z = (p - shares) / math.sqrt(p * (1 - p) / n)
        low, high = (p, high) if float(torch.special.ndtr(z).mean()) < level else (low, p)
    # Wilson's interval of no copies begins at 0, and that of copies only ends at 1.
    return round((low + high) / 2, 9)


def sampled_share(name: str, count: int, of: int) -> Score:
    """A share with Wilson's interval, half of which tells the error, so it is never 0."""
    low, high = wilson(count / of, 0.0, of)
    return Score(name, count / of, (high - low) / (2 * Z95), of, interval=(low, high))


def flagged_by_others(logs: Tensor, *, seed: int) -> int:
    """How many real pictures lie below the line that others draw: cross-validation.

    Args:
        logs: Of real pictures, (n, V).
        seed: Of the parts, each of which is judged by the line of the rest.
    """
    part = torch.empty(len(logs), dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    part[torch.randperm(len(logs), generator=generator)] = torch.arange(len(logs)) % _PARTS
    return sum(
        int(Line.through(logs[part != p]).flags(logs[part == p]).sum()) for p in range(_PARTS)
    )
