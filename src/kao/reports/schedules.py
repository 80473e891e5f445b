"""Figures of schedules: their curves side by side, and where training times fall on them.

A density of training times is told by its *knots*: its quantile function at equally spaced
shares 0..1, as shares of t_max, increasing from 0 to 1; what `Times.knots` gives.  Between two
knots the density is constant.  No knots at all stand for uniform times.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from kao.diffusion import NoiseSchedule
from kao.reports.plots import COLOURS, FAINT, label, new_figure, rendered, style

_SPAN = 15.0
"""Panels show log-snr from minus to plus this."""

_DENSEST = 0.4
"""A density that peaks above this leaves its panel: it would flatten all others."""


def log_snr_density(
    schedule: NoiseSchedule, edges: Tensor, *, knots: Sequence[float] | None = None
) -> Tensor:
    """Density of training times over log-snr, as its mean between neighbouring edges.

    The share of times that are cleaner than a log-snr is known in closed form, so the mass of
    a bin is a difference of that share at its two ends, exact whatever the bin's width.

    Args:
        schedule: What log-snr a time has.
        edges: Increasing log-snr (natural logarithm), float64, (N + 1,).
        knots: Of the times; None for uniform ones.

    Returns:
        float64, (N,), per unit of log-snr.  Times its bins' widths it adds up to 1 where the
        edges hold every level that the schedule has but 0 and pure noise.
    """
    cleaner = (schedule.time_at(edges) / schedule.t_max).numpy()
    if knots is not None:
        cleaner = np.interp(cleaner, knots, np.linspace(0, 1, len(knots)))
    return -torch.from_numpy(np.diff(cleaner)) / edges.diff()


def schedule_plot(
    schedules: Mapping[str, NoiseSchedule],
    *,
    knots: Mapping[str, Sequence[float]] | None = None,
) -> Image.Image:
    """Schedules side by side: alpha and sigma, log-snr, and where a batch's times fall.

    What does not fit leaves its panel rather than bend its scale: the sigma of a schedule that
    goes beyond 1, the log-snr of one that ends in pure noise, a density with a high peak.

    Args:
        schedules: By the name that the legend gives them.
        knots: Of the training times of those that do not train with uniform ones.
    """
    figure = new_figure(14, 4.9)
    curves, snr, density = figure.subplots(1, 3)
    share = _shares()
    edges = torch.linspace(-_SPAN, _SPAN, 301, dtype=torch.float64)
    colours = itertools.cycle(COLOURS)
    peaks = []
    for (name, schedule), colour in zip(schedules.items(), colours, strict=False):
        level = schedule(share * schedule.t_max)
        curves.plot(share, level.alpha, color=colour, linewidth=1.8)
        curves.plot(share, level.sigma, color=colour, linewidth=1.8, linestyle=(0, (3, 2)))
        # A line to infinity is not drawn; one to far beyond the panel leaves it.
        beyond = level.snr.log().clamp(-99, 99)
        snr.plot(share, beyond, color=colour, linewidth=1.8, label=label(name))
        own = log_snr_density(schedule, edges, knots=(knots or {}).get(name))
        peaks.append(min(float(own.max()), _DENSEST))
        density.plot((edges[1:] + edges[:-1]) / 2, own, color=colour, linewidth=1.8)

    style(curves, title="Signal \u03b1 (solid) and noise \u03c3 (dashed)", xlabel="t / t_max")
    curves.set(xlim=(0, 1), ylim=(-0.02, 1.08))
    style(snr, title="log-snr = log(\u03b1\u00b2 / \u03c3\u00b2)", xlabel="t / t_max")
    snr.set(xlim=(0, 1), ylim=(-_SPAN, _SPAN))
    style(density, title="Where a batch's training times fall", xlabel="log-snr")
    density.set(ylim=(0, 1.08 * max(peaks)))
    noise_to_the_right(density)
    figure.legend(
        *snr.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(len(schedules), 8 if max(map(len, schedules)) < 14 else 4),
        frameon=False,
        fontsize=12,
        handlelength=1.6,
    )
    return rendered(figure)


def noise_to_the_right(axes: Axes) -> None:
    """Turn a log-snr axis so that noise is where it is in plots against t."""
    axes.set_xlim(_SPAN, -_SPAN)
    for x, word, side in ((0.01, "clean", "left"), (0.99, "noise", "right")):
        axes.text(
            x, 0.97, word, transform=axes.transAxes, ha=side, va="top", fontsize=11, color=FAINT
        )


def _shares() -> Tensor:
    """0..1, crowded at both ends, where log-snr runs off to infinity."""
    even = torch.linspace(0, torch.pi / 2, 1001, dtype=torch.float64)
    return (even.sin() ** 2).clamp(0, 1)
