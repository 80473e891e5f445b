"""Line charts as a few lines of HTML: SVG for the curves, HTML for every word.

The SVG is stretched to its frame while text and line widths keep their size, so one chart
reads as well on a phone as on paper.  Colours are classes that the page's style sheet sets for
light and dark.  The values ride along in an attribute for the page's script to read out.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from kao.reports.parts import escape
from kao.reports.record import Point

_WIDTH, _HEIGHT = 1000.0, 400.0  # viewBox units; the page stretches them
_MOST_POINTS = 1000

Scale = Callable[[float], float]
"""From a value to its place in the frame, 0..1 from the left or from below."""


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: What the legend calls it; "" keeps it out of the legend and the read-out.
        points: (x, y), by x.
        style: CSS class that colours it.
    """

    name: str
    points: Sequence[Point]
    style: str = "main"


@dataclass(frozen=True)
class Mark:
    """Something that happened at a moment of the run.

    Attributes:
        images: Images seen.
        kind: "resumed" is a dashed upright, "checkpoint" a tick at the foot, "spike" and "skipped"
            are signs at the head.
    """

    images: float
    kind: Literal["resumed", "checkpoint", "spike", "skipped"]


_TICK = 0.04
"""Height of a checkpoint's tick, as a share of the frame."""

_SIGNS = {
    "spike": "\N{BLACK DOWN-POINTING SMALL TRIANGLE}",
    "skipped": "\N{MULTIPLICATION SIGN}",
}
_MOST_SIGNS = 200


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    logarithmic: bool = False,
    marks: Sequence[Mark] = (),
    note: str = "",
    unit: str = "pictures",
) -> str:
    """A chart of values against images seen, or time, as an HTML figure.

    Args:
        title: Heading of the chart; its line's name too, where one line alone is named.
        lines: Drawn in order, the first lowest.  Empty ones are left out.
        logarithmic: Whether values, then all positive, are spaced by their logarithm.
        marks: What happened on the way; of very many signs some are drawn.
        note: A sentence under the title.
        unit: Of what the values stand against: "pictures", "minutes".

    Returns:
        HTML, or "" where no line has two points.
    """
    lines = [Line(line.name, _drawable(line.points, logarithmic), line.style) for line in lines]
    lines = [line for line in lines if len(line.points) > 1 and line.points[-1][0] > 0]
    if not lines:
        return ""
    named = [line for line in lines if line.name]
    x_low, x_high = 0.0, max(line.points[-1][0] for line in lines)
    y_low, y_high = _frame(lines, logarithmic)

    def across(x: float) -> float:
        return (x - x_low) / (x_high - x_low)

    def up(y: float) -> float:
        if logarithmic:
            y, low, high = math.log(y), math.log(y_low), math.log(y_high)
            return (y - low) / (high - low)
        return (y - y_low) / (y_high - y_low)

    y_ticks = _log_ticks(y_low, y_high) if logarithmic else _ticks(y_low, y_high, 4)
    x_ticks = _ticks(x_low, x_high, 7)
    parts = [_rule(up(y)) for y in y_ticks]
    # A killed run may have been marked further on than any line reaches.
    inside = [mark for mark in marks if x_low < mark.images <= x_high]
    parts += [_upright(across(m.images), m.kind) for m in inside if m.kind not in _SIGNS]
    signs = _affordable([mark for mark in inside if mark.kind in _SIGNS])
    parts += [_polyline(line, across, up) for line in lines]
    values = {
        "range": [x_low, x_high],
        "unit": unit,
        "lines": [[[x, float(f"{y:.4g}")] for x, y in line.points] for line in named],
    }
    return (
        f'<figure class="chart" data-chart="{escape(json.dumps(values, separators=(",", ":")))}">'
        f"<figcaption><b>{escape(title)}</b>{_legend(named)}"
        f"{f'<small>{escape(note)}</small>' if note else ''}</figcaption>"
        '<div class="plot">'
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(_spoken(title, lines[-1], unit))}">{"".join(parts)}</svg>'
        + "".join(
            f'<span class="y" style="bottom:{100 * up(y):.2f}%">{short(y)}</span>' for y in y_ticks
        )
        + "".join(
            f'<span class="x" style="left:{100 * across(x):.2f}%">{short(x)}</span>'
            for x in x_ticks
        )
        + "".join(_sign(across(mark.images), mark.kind) for mark in signs)
        + '<i class="cross" hidden></i></div></figure>'
    )


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Centred running mean over about a twentieth of the points.

    Near the start, where losses fall steeply, the window shrinks alike on both sides so that
    the fall keeps its height; near the end it loses its right side only and stays calm.
    """
    reach = len(points) // 40 + 1
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    means = []
    for i, (x, _) in enumerate(points):
        first, past = i - min(reach, i), min(i + min(reach, i) + 1, len(points))
        means.append((x, (sums[past] - sums[first]) / (past - first)))
    return means


def decimated(points: Sequence[Point], *, most: int = _MOST_POINTS) -> list[Point]:
    """At most `most` of the points, in order: the lowest and the highest of each short stretch.

    Keeping extremes shows every spike, which a mean or every n-th point would hide.
    """
    if len(points) <= most:
        return list(points)
    stretches = most // 2
    kept: list[Point] = []
    for k in range(stretches):
        a, b = k * len(points) // stretches, (k + 1) * len(points) // stretches
        ends = (min(points[a:b], key=lambda p: p[1]), max(points[a:b], key=lambda p: p[1]))
        kept += sorted(set(ends))
    return kept


def short(value: float) -> str:
    """A number for an axis or a summary: 0.02, 1.5, 250 k, 2.5 M, 3e-05."""
    size = abs(value)
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{value / unit:.3g}\N{NO-BREAK SPACE}{name}"
    if 0 < size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.3g}"


def _drawable(points: Sequence[Point], logarithmic: bool) -> list[Point]:
    return decimated([p for p in points if p[1] > 0] if logarithmic else points)


def _frame(lines: Sequence[Line], logarithmic: bool) -> tuple[float, float]:
    """The lowest and the highest value shown.

    A named line is shown whole; an unnamed one is raw and spiky, and the hundredth of its
    values at either end may leave the frame.  Unless logarithmic, zero is inside: every value
    here is a rate, a size or a difference, and small changes should look small.
    """
    ends = []
    for line in lines:
        values = sorted(y for _, y in line.points)
        beyond = 0 if line.name else len(values) // 100
        ends += [values[beyond], values[-1 - beyond]]
    low, high = min(ends), max(ends)
    if logarithmic:
        slack = max(high / low, 1.5) ** 0.06
        return low / slack, high * slack
    return 1.06 * min(low, 0.0), 1.06 * high if high > 0 else 1.0


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 between them where there are few; plain ticks where none fit."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    ticks = [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]
    return ticks if len(ticks) > 2 else [t for t in _ticks(low, high, 4) if t > 0]


def _polyline(line: Line, across: Scale, up: Scale) -> str:
    points = " ".join(
        f"{_WIDTH * across(x):.1f},{_HEIGHT * (1 - up(y)):.1f}" for x, y in line.points
    )
    return f'<polyline class="line {escape(line.style)}" points="{points}"/>'


def _rule(height: float) -> str:
    y = f"{_HEIGHT * (1 - height):.1f}"
    return f'<line class="rule" x1="0" x2="{_WIDTH:g}" y1="{y}" y2="{y}"/>'


def _upright(place: float, kind: str) -> str:
    x, top = f"{_WIDTH * place:.1f}", _HEIGHT * (1 - _TICK) if kind == "checkpoint" else 0.0
    return f'<line class="mark {kind}" x1="{x}" x2="{x}" y1="{top:g}" y2="{_HEIGHT:g}"/>'


def _sign(place: float, kind: str) -> str:
    return f'<i class="sign {kind}" style="left:{100 * place:.2f}%">{_SIGNS[kind]}</i>'


def _affordable(signs: Sequence[Mark]) -> Sequence[Mark]:
    """As many as a page can carry, evenly spaced; of steps skipped one by one there may be many."""
    return signs[:: len(signs) // _MOST_SIGNS + 1]


def _legend(lines: Sequence[Line]) -> str:
    """Names and last values; one line alone needs no name, it is the title's."""
    keys = []
    for line in lines:
        swatch = f'<i class="swatch {escape(line.style)}"></i>{escape(line.name)}'
        value = f"<output>{short(line.points[-1][1])}</output>"
        keys.append(f'<span class="key">{swatch if len(lines) > 1 else ""}{value}</span>')
    return f'<span class="legend">{"".join(keys)}</span>'


def _spoken(title: str, line: Line, unit: str) -> str:
    (x, first), (end, last) = line.points[0], line.points[-1]
    return f"{title}: {short(first)} at {short(x)} {unit}, {short(last)} at {short(end)}."
