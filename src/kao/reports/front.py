"""Quality against time: one chart of many ways to draw."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import FuncFormatter
from PIL import Image

from kao.reports.charts import short
from kao.reports.plots import COLOURS, FAINT, INK, label, new_figure, rendered, style


@dataclass(frozen=True)
class Mark:
    """A way to draw, as a point.

    Attributes:
        family: What shares its colour: the sampler.
        label: Written beside it if it is on the front.
        seconds: A picture; above 0.
        score: Distance; smaller is better, may be a little below 0.
        error: Standard error of `score`.
        chosen: Whether it is on the front, which is drawn as a line.
    """

    family: str
    label: str
    seconds: float
    score: float
    error: float
    chosen: bool = False


def front_plot(marks: Sequence[Mark], *, title: str) -> Image.Image:
    """Distance against seconds a picture, both by their logarithm; error bars are one error.

    Near 0, where an unbiased distance may be negative, the axis is straight.

    Args:
        marks: At least one, in any order.
        title: Above the chart.
    """
    figure = new_figure(8, 5)
    axes = figure.subplots()
    style(axes, title=title, xlabel="seconds a picture", ylabel="distance to real pictures")
    families = list(dict.fromkeys(mark.family for mark in marks))
    for family, colour in zip(families, itertools.cycle(COLOURS), strict=False):
        own = [mark for mark in marks if mark.family == family]
        axes.errorbar(
            [mark.seconds for mark in own],
            [mark.score for mark in own],
            [mark.error for mark in own],
            fmt="o",
            color=colour,
            markersize=5,
            elinewidth=1,
            alpha=0.75,
            label=label(family),
        )
    best = sorted((mark for mark in marks if mark.chosen), key=lambda mark: mark.seconds)
    axes.plot(
        [mark.seconds for mark in best],
        [mark.score for mark in best],
        color=INK,
        linewidth=1,
        zorder=1,
    )
    for mark in best:
        axes.annotate(
            label(mark.label),
            (mark.seconds, mark.score),
            xytext=(6, 6),
            textcoords="offset points",
            fontsize=8,
        )
    typical = sorted(mark.error for mark in marks)[len(marks) // 2]
    # A power of ten, so that ticks fall on either side of it and none inside.
    straight = 10.0 ** math.ceil(math.log10(max(typical, 1e-6)))
    axes.set_xscale("log", subs=[2, 5])
    axes.set_yscale("symlog", linthresh=straight, subs=[2, 5])
    lowest = min(0.0, *(mark.score - mark.error for mark in marks))
    highest = max(straight, *(mark.score + mark.error for mark in marks))
    axes.set_ylim(lowest - straight / 10, 1.5 * highest)  # room for a label above the highest
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axis.set_minor_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.tick_params(which="minor", labelsize=9, color=FAINT, labelcolor=INK)
    axes.legend(frameon=False, fontsize=8)
    return rendered(figure)
