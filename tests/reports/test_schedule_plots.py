"""Plots of schedules and of the times that are trained on."""

import math

import numpy as np
import pytest
import torch

from kao.diffusion import SCHEDULES, Flow, Linear, LogitNormal, LogNormal, Uniform, Warped
from kao.reports.schedules import log_snr_density, schedule_plot
from kao.reports.times import knots_of, times_plot

WIDE = torch.linspace(-60, 60, 4001, dtype=torch.float64)
KNOTS = (0.0, 0.1, 0.15, 0.2, 0.9, 1.0)


def mean_and_deviation(density, edges, of=lambda log_snr: log_snr):
    """Of a function of log-snr, under a density between edges."""
    value, mass = of((edges[1:] + edges[:-1]) / 2), density * edges.diff()
    mean = float((value * mass).sum())
    return mean, math.sqrt(float(((value - mean) ** 2 * mass).sum()))


@pytest.mark.parametrize("config", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("knots", [None, KNOTS], ids=["uniform", "learned"])
def test_the_density_over_log_snr_integrates_to_1(config, knots):
    density = log_snr_density(config().build(), WIDE, knots=knots)
    assert density.min() >= 0
    assert float((density * WIDE.diff()).sum()) == pytest.approx(1, abs=1e-9)


def test_uniform_times_of_the_flow_are_logistic_in_log_snr():
    edges = torch.linspace(-15, 15, 3001, dtype=torch.float64)
    log_snr = (edges[1:] + edges[:-1]) / 2
    density = log_snr_density(Flow().build(), edges)
    expected = (log_snr / 2).sigmoid() * (-log_snr / 2).sigmoid() / 2
    assert torch.allclose(density, expected, atol=1e-6)


def test_equally_spaced_knots_are_uniform_times():
    schedule, even = Linear().build(), torch.linspace(0, 1, 65).tolist()
    assert torch.allclose(
        log_snr_density(schedule, WIDE, knots=even), log_snr_density(schedule, WIDE), atol=1e-6
    )


def test_knots_put_equal_shares_between_them():
    schedule = Flow().build()
    inner = 2 * torch.tensor([(1 - u) / u for u in KNOTS[1:-1]], dtype=torch.float64).log()
    edges = torch.cat([torch.tensor([99.0]), inner, torch.tensor([-99.0])]).double().flip(0)
    masses = log_snr_density(schedule, edges, knots=KNOTS) * edges.diff()
    assert torch.allclose(masses, torch.full((5,), 0.2, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("schedule", ["flow", "linear"])
def test_the_knots_of_fixed_times_are_the_quantiles_of_their_law(schedule):
    times = LogitNormal(mean=-0.5, std=0.8).build(SCHEDULES[schedule]().build())
    knots = torch.tensor(knots_of(times), dtype=torch.float64)
    assert knots[0] == 0 and knots[-1] == 1 and (knots.diff() >= 0).all()
    probability = torch.linspace(0, 1, len(knots), dtype=torch.float64)[1:-1]
    expected = (-0.5 + 0.8 * torch.special.ndtri(probability)).sigmoid()
    assert torch.allclose(knots[1:-1], expected, atol=2e-3)


def test_a_log_normal_law_of_the_noise_ratio_is_seen_as_one():
    schedule = SCHEDULES["ve"]().build()
    density = log_snr_density(schedule, WIDE, knots=knots_of(LogNormal().build(schedule)))
    mean, deviation = mean_and_deviation(density, WIDE, of=lambda log_snr: -log_snr / 2)
    assert mean == pytest.approx(-1.2, abs=0.03) and deviation == pytest.approx(1.2, abs=0.05)


def test_the_knots_of_learned_times_are_their_own():
    times = Warped().build(Flow().build())
    assert knots_of(times) == times.knots(129)


def test_the_knots_of_uniform_times_are_even():
    knots = torch.tensor(knots_of(Uniform().build(Linear().build())))
    assert torch.allclose(knots, torch.linspace(0, 1, len(knots)), atol=2e-3)


def drawn(schedules, monkeypatch, **options):
    """The figure that is made, before it is a picture."""
    figures = []
    monkeypatch.setattr("kao.reports.schedules.rendered", figures.append)
    schedule_plot(schedules, **options)
    return figures[0]


def test_each_curve_is_labelled_in_all_three_panels(monkeypatch):
    figure = drawn({name: config().build() for name, config in SCHEDULES.items()}, monkeypatch)
    curves, snr, density = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(SCHEDULES)
    assert len(curves.lines) == 2 * len(SCHEDULES)
    colours = [line.get_color() for line in snr.lines]
    assert len(set(colours)) == len(SCHEDULES)
    assert colours == [line.get_color() for line in density.lines]


@pytest.mark.parametrize("name", ["vp_cosine", "flow", "ve"])
def test_what_does_not_fit_leaves_its_panel_and_does_not_stretch_it(name, monkeypatch):
    figure = drawn({name: SCHEDULES[name]().build()}, monkeypatch)
    curves, snr, density = figure.axes
    assert curves.get_ylim()[1] < 1.2 and snr.get_ylim() == (-15, 15)
    assert density.get_ylim()[1] < 0.5
    ends = np.asarray(snr.lines[0].get_ydata())[[0, -1]]
    assert np.isfinite(ends).all() and ends[0] > 15
    assert (ends[1] < -15) == (name != "ve")


def test_a_run_with_its_own_times_shows_their_density(monkeypatch):
    schedule = Flow().build()
    schedules = {"plain": schedule, "own": schedule}
    _, _, density = drawn(schedules, monkeypatch, knots={"own": KNOTS}).axes
    plain, own = (np.asarray(line.get_ydata()) for line in density.lines)
    assert plain.max() == pytest.approx(0.125, abs=1e-3)
    assert np.abs(plain - own).max() > 0.05


def test_the_plots_are_pictures_that_differ_with_what_they_show():
    schedule = Flow().build()
    plot = schedule_plot({name: config().build() for name, config in SCHEDULES.items()})
    assert plot.mode == "RGB" and plot.width > 1000
    learned = times_plot(schedule, KNOTS)
    assert learned.mode == "RGB" and learned.width > 1000
    assert np.any(np.asarray(learned) != np.asarray(times_plot(schedule, (0.0, 0.5, 1.0))))


def test_the_density_over_t_has_the_height_that_its_knots_say(monkeypatch):
    figures = []
    monkeypatch.setattr("kao.reports.times.rendered", figures.append)
    times_plot(Flow().build(), KNOTS, steps=5)
    by_time, _, grid = figures[0].axes
    heights, places, _ = by_time.patches[0].get_data()
    assert (heights * np.diff(places)).sum() == pytest.approx(1)
    assert heights[0] == pytest.approx(0.2 / 0.1) and heights[3] == pytest.approx(0.2 / 0.7)
    assert by_time.get_title(loc="left") == "Density of training times over t"
    # Five steps through six knots visit the knots themselves, the noisiest first.
    visited = torch.tensor(grid.lines[1].get_ydata())[1:-1]
    expected = torch.tensor([2 * math.log((1 - u) / u) for u in KNOTS[1:-1]]).double()
    assert torch.allclose(visited, expected)


def test_times_of_which_nothing_is_learned_yet_say_so_and_are_seen(monkeypatch):
    figures = []
    monkeypatch.setattr("kao.reports.times.rendered", figures.append)
    times_plot(Flow().build(), tuple(i / 128 for i in range(129)))
    by_time, _, _ = figures[0].axes
    assert by_time.get_title(loc="left") == "Training times over t: nothing learned yet"
    assert by_time.get_ylim() == pytest.approx((0, 1.1))
    (uniform,), (learned,) = by_time.lines, by_time.patches
    assert uniform.get_zorder() > learned.get_zorder() and uniform.get_linestyle() == "--"


def test_a_name_with_dollars_or_bytes_is_no_formula_and_no_error():
    odd = ["$x_1", "$\\frac$", r"\$", "fl\udce4chen", "a\x1b[31m\nb", "\u732b"]
    plots = [schedule_plot({name: Flow().build()}) for name in odd]
    assert len({plot.tobytes() for plot in plots}) == len(odd)
