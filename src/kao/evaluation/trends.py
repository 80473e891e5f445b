"""Lines through measured points with errors, in a curve's natural abscissa."""

import math
from collections.abc import Sequence
from typing import NamedTuple

_LEAST = 4
"""Points that a line needs to say how far it is off."""


class Point(NamedTuple):
    """A measured value.

    Attributes:
        images: At which it was measured, above 0.
        value: What was measured.
        error: Its standard error, above 0.
    """

    images: float
    value: float
    error: float


class Change(NamedTuple):
    """A difference and its standard error."""

    value: float
    error: float


def change(points: Sequence[Point], start: float, end: float, *, power: float = 0.0) -> Change:
    """How much the value changes between two moments, by a straight line through the points.

    The line is fitted by weighted least squares to log images, or to -1 / images^power.  Where
    the points scatter more about it than their errors say, the errors are taken to be that much
    too small (Birge 1932); where they scatter less, their word is kept.

    Args:
        points: Two or more, at different moments.
        start: In images, above 0.
        end: As above; it may lie past the points.
        power: 0 for log images.
    """
    slope, error = _line(points, power)[:2]
    span = _abscissa(end, power) - _abscissa(start, power)
    return Change(slope * span, error * abs(span))


def over_trend(points: Sequence[Point], at: float) -> float:
    """The value of the line through the points, against log images, at a moment."""
    slope, _, centre, mean = _line(points, 0.0)
    return mean + slope * (_abscissa(at, 0.0) - centre)


def recent(points: Sequence[Point]) -> list[Point]:
    """Those of the second half of the images, and at least the last four."""
    late = [point for point in points if point.images >= points[-1].images / 2]
    return late if len(late) >= _LEAST else list(points[-_LEAST:])


def _abscissa(images: float, power: float) -> float:
    return math.log(images) if power == 0 else -(images**-power)


def _line(points: Sequence[Point], power: float) -> tuple[float, float, float, float]:
    """Slope, its standard error, and the weighted means of abscissa and value."""
    u = [_abscissa(point.images, power) for point in points]
    w = [point.error**-2 for point in points]
    total = math.fsum(w)
    centre = math.fsum(a * b for a, b in zip(w, u, strict=True)) / total
    mean = math.fsum(a * p.value for a, p in zip(w, points, strict=True)) / total
    spread = math.fsum(a * (b - centre) ** 2 for a, b in zip(w, u, strict=True))
    slope = (
        math.fsum(a * (b - centre) * (p.value - mean) for a, b, p in zip(w, u, points, strict=True))
        / spread
    )
    off = math.fsum(
        a * (p.value - mean - slope * (b - centre)) ** 2
        for a, b, p in zip(w, u, points, strict=True)
    )
    free = len(points) - 2
    scale = math.sqrt(max(1.0, off / free)) if free > 0 else 1.0
    return slope, scale / math.sqrt(spread), centre, mean
