"""Lines through measured points with errors, in a curve's natural abscissa."""

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from kao.metrics.scores import Z95

_LEAST = 4
"""Points that a line needs to say how far it is off."""

_MEMORY = math.sqrt(2)
"""How much the error of a trend grows where a run wanders slowly: if a third of what one score is
off is carried over to the next, by averaged weights, by sqrt((1 + 1/3) / (1 - 1/3))."""


class Point(NamedTuple):
    """A measured value.

    Attributes:
        images: At which it was measured, above 0.
        value: What was measured.
        error: Its standard error, above 0.
        influences: Of each picture behind it, where the points share their noise, picture by
            picture: the sum of products over the pictures of two points is the covariance of the
            two values.  Empty where that is not known: then the errors are taken to be independent.
    """

    images: float
    value: float
    error: float
    influences: tuple[float, ...] = ()


class Change(NamedTuple):
    """A difference, its standard error, and the part of that which more pictures would lessen."""

    value: float
    error: float
    noise: float


def change(
    points: Sequence[Point], start: float, end: float, *, power: float = 0.0, z: float = Z95
) -> Change:
    """How much the value changes between two moments, by a straight line through the points.

    The line is fitted by weighted least squares to log images, or to -1 / images^power, so the
    change is a sum of the values with fixed coefficients.

    Where influences are known, its error is the larger of two: that of the pictures, from the
    same sum of influences, and that of the scatter about the line, since a run wanders in ways
    that noise does not explain.  The scatter holds what noise the points do not share, so a sum
    would count that twice.  It is of few points, and widened as Student's distribution is; and
    what wanders slowly looks like a trend, for which it is widened, too.  So wide it may pass
    what independent errors give, as where the curve bends; then that is taken.

    Where they are not, errors are independent.  Where the points scatter more than their errors
    say, those are taken to be that much too small (Birge 1932); where they scatter less, their
    word is kept.

    Args:
        points: Two or more, at different moments.
        start: In images, above 0.
        end: As above; it may lie past the points.
        power: 0 for log images.
        z: In how many errors the change will be asked for: further out, Student's distribution is
            wider still.
    """
    line = _Line(points, power)
    span = _abscissa(end, power) - _abscissa(start, power)
    coefficients = [span * c for c in line.coefficients]
    free = len(points) - 2
    scatter = math.sqrt(line.off / free) if free > 0 else 0.0
    plain = abs(span) / math.sqrt(line.spread)
    independent = plain * max(1.0, scatter)
    if not all(point.influences for point in points):
        return Change(line.slope * span, independent, plain)
    noise = _paired(coefficients, points)
    wandering = _MEMORY * widening(free, z) * scatter * plain if free > 0 else 0.0
    return Change(line.slope * span, max(noise, min(wandering, independent)), noise)


def _paired(coefficients: Sequence[float], points: Sequence[Point]) -> float:
    """Standard error of a sum of values that share their pictures."""
    # Scores of fewer pictures share the first ones; the others count by themselves.
    rows = zip_longest(*(point.influences for point in points), fillvalue=0.0)
    return math.hypot(
        *(math.fsum(c * x for c, x in zip(coefficients, row, strict=True)) for row in rows)
    )


def widening(free: int, z: float = Z95) -> float:
    """How much further out than a Gaussian's quantile z that of Student's t is.

    By the approximation of Wallace (1959), which is too wide where it is off: by 4 to 12 %
    with 2 degrees of freedom, for z of 2 to 2.6, and by 1 to 4 % with 3.

    Args:
        free: Degrees of freedom, 1 or more.
        z: Quantile of the standard normal distribution, above 0.
    """
    return math.sqrt(free * math.expm1((z * (8 * free + 3) / (8 * free + 1)) ** 2 / free)) / z


def over_trend(points: Sequence[Point], at: float) -> float:
    """The value of the line through the points, against log images, at a moment."""
    line = _Line(points, 0.0)
    return line.mean + line.slope * (_abscissa(at, 0.0) - line.centre)


def recent(points: Sequence[Point]) -> list[Point]:
    """Those of the second half of the images, and at least the last four."""
    late = [point for point in points if point.images >= points[-1].images / 2]
    return late if len(late) >= _LEAST else list(points[-_LEAST:])


def _abscissa(images: float, power: float) -> float:
    return math.log(images) if power == 0 else -(images**-power)


class _Line:
    """The line of weighted least squares.

    Attributes:
        centre: Weighted mean of the abscissae.
        mean: Of the values.
        spread: Weighted sum of squares of the abscissae about their mean.
        coefficients: Of the values in the slope.
        slope: Of the line.
        off: Weighted sum of squares of the values about the line.
    """

    def __init__(self, points: Sequence[Point], power: float):
        u = [_abscissa(point.images, power) for point in points]
        w = [point.error**-2 for point in points]
        total = math.fsum(w)
        self.centre = math.fsum(a * b for a, b in zip(w, u, strict=True)) / total
        self.mean = math.fsum(a * p.value for a, p in zip(w, points, strict=True)) / total
        self.spread = math.fsum(a * (b - self.centre) ** 2 for a, b in zip(w, u, strict=True))
        self.coefficients = [a * (b - self.centre) / self.spread for a, b in zip(w, u, strict=True)]
        self.slope = math.fsum(
            c * (p.value - self.mean) for c, p in zip(self.coefficients, points, strict=True)
        )
        self.off = math.fsum(
            a * (p.value - self.mean - self.slope * (b - self.centre)) ** 2
            for a, b, p in zip(w, u, points, strict=True)
        )
