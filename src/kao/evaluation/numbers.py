"""Numbers with errors, as people write them."""

import math

from kao.metrics.scores import Z95, Score


def signed(value: float, error: float) -> str:
    """A change with its 95 % interval: "-0.012 ± 0.004"."""
    places = _places(Z95 * error)
    sign = "\N{MINUS SIGN}" if value < 0 else "+"
    return f"{sign}{abs(value):.{places}f} ± {Z95 * error:.{places}f}"


def number(value: float, error: float) -> str:
    """A value with the decimal places that its 95 % interval leaves of it, and never "-0"."""
    text = f"{abs(value):.{_places(Z95 * error)}f}"
    return f"\N{MINUS SIGN}{text}" if value < 0 and float(text) else text


def interval(score: Score) -> str:
    """The 95 % interval of a score: "0.11 to 0.13"."""
    return f"{number(score.low, score.error)} to {number(score.high, score.error)}"


def _places(reach: float) -> int:
    """Decimal places that show an error with one digit, or two where that is a 1."""
    if reach <= 0:
        return 3
    digit = math.floor(math.log10(reach))
    return max(0, -digit + (reach < 2 * 10.0**digit))


def rounded(images: float) -> int:
    """Two digits of a number of images."""
    if images < 100:
        return round(images)
    return int(round(images, 1 - math.floor(math.log10(images))))
