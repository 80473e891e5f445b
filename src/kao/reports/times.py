"""Figures of learned training times: the density, and the grid of its quantiles.

Knots are those of `kao.reports.schedules`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from kao.diffusion import DiscreteSchedule, NoiseSchedule, Times
from kao.reports.plots import COLOURS, INK, new_figure, rendered, style
from kao.reports.schedules import log_snr_density, noise_to_the_right

_TITLE = "Density of training times over t"
_KNOTS = 129
_DRAWS, _FINE = 1 << 17, 513  # enough for the tails, and for little noise between two knots


def knots_of(times: Times, *, seed: int = 0) -> tuple[float, ...]:
    """The knots of any training times: their own if learned, or else quantiles of many draws.

    Args:
        times: The draw.
        seed: Of the draws.

    Returns:
        Shares of t_max, increasing from 0 to 1.
    """
    own = times.knots(_KNOTS)
    if own is not None:
        return own
    generator = torch.Generator().manual_seed(seed)
    drawn = times(_DRAWS, generator).t
    if isinstance(times.schedule, DiscreteSchedule):
        # The whole time t stands for (t - 1, t]; piled up on one value it would have no density.
        drawn = drawn - torch.rand(_DRAWS, generator=generator, dtype=torch.float64)
    inner = torch.linspace(0, 1, _FINE, dtype=torch.float64)[1:-1]
    return (0.0, *(drawn / times.schedule.t_max).quantile(inner).tolist(), 1.0)


def times_plot(schedule: NoiseSchedule, knots: Sequence[float], *, steps: int = 25) -> Image.Image:
    """The learned density of training times beside uniform: over t, over log-snr, as a grid.

    The grid of so many steps has its times at equal shares of the density: it looks often where
    training looks often.  Where the density is uniform still, the title says so.

    Args:
        schedule: What log-snr a time has.
        knots: Of the learned times.
        steps: Of the grid.
    """
    figure = new_figure(14, 4.9)
    by_time, by_snr, grid = figure.subplots(1, 3)
    learned: dict[str, Any] = {"color": COLOURS[1], "linewidth": 2.8}
    # Dashed and on top, so that both are seen where they are one.
    uniform: dict[str, Any] = {
        "color": INK,
        "linewidth": 1.3,
        "linestyle": (0, (4, 4)),
        "zorder": 3,
    }

    places = np.asarray(knots)
    density = 1 / (len(places) - 1) / np.diff(places)
    by_time.axhline(1, **uniform, label="uniform")
    by_time.stairs(density, places, baseline=None, **learned, label="learned")
    even = np.allclose(density, 1)
    title = "Training times over t: nothing learned yet" if even else _TITLE
    style(by_time, title=title, xlabel="t / t_max")
    by_time.set(xlim=(0, 1), ylim=(0, 1.1 * max(1, density.max())))

    edges = torch.linspace(-15, 15, 301, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    by_snr.plot(middle, log_snr_density(schedule, edges), **uniform)
    by_snr.plot(middle, log_snr_density(schedule, edges, knots=knots), **learned)
    style(by_snr, title="The same over log-snr", xlabel="log-snr")
    by_snr.set_ylim(bottom=0)
    noise_to_the_right(by_snr)

    equal = np.arange(steps + 1) / steps
    at_equal_shares = np.interp(equal, np.linspace(0, 1, len(places)), places)
    for shares, look in ((equal, uniform), (at_equal_shares, learned)):
        level = schedule(torch.from_numpy(shares) * schedule.t_max)
        grid.plot(steps - np.arange(steps + 1), level.snr.log().clamp(-99, 99), marker=".", **look)
    style(grid, title=f"A grid of {steps} steps through its quantiles", xlabel="step")
    grid.set_ylabel("log-snr", fontsize=11)
    grid.set(ylim=(-15, 15), xlim=(0, steps))
    figure.legend(
        *by_time.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=12,
    )
    return rendered(figure)
