import math
from dataclasses import fields

import pytest
import torch

from kao.diffusion.grids import (
    GRIDS,
    Karras,
    Learned,
    LogSNR,
    Spaced,
    leading,
    linspace,
    trailing,
    uniform,
)
from kao.diffusion.schedules import (
    SCHEDULES,
    VE,
    Cosine,
    DiscreteSchedule,
    Flow,
    Laplace,
    Linear,
    ScaledLinear,
    VPCosine,
)
from kao.errors import ConfigError

KNOTS = (0.0, 0.001, 0.002, 0.01, 0.4, 0.999, 1.0)
# A learned grid needs knots; every other entry is used as its registry gives it.
ENTRIES = {name: entry() if isinstance(entry, type) else entry for name, entry in GRIDS.items()}
ENTRIES["learned"] = Learned(KNOTS)
ENTRIES["spaced"] = Spaced("even", offset=0)  # its defaults have room for T - 1 steps
WHOLE = ("leading", "linspace", "spaced")
CONFIGS = {
    **{name: c() for name, c in SCHEDULES.items()},
    **{
        f"{name}, zero-terminal": c(zero_terminal_snr=True)
        for name, c in SCHEDULES.items()
        if "zero_terminal_snr" in c.__annotations__
    },
    **{
        f"{name}, shifted": c(shift=-3.0)
        for name, c in SCHEDULES.items()
        if "shift" in c.__annotations__
    },
    "linear, 50": Linear(steps=50, beta_last=0.3),
    "cosine, 4000": Cosine(steps=4000),
}
CURVES = {name: config.build() for name, config in CONFIGS.items()}
COMBINATIONS = [
    (grid, schedule)
    for grid in ENTRIES
    if grid != "trailing"  # is uniform
    for schedule, curve in CURVES.items()
    if grid not in WHOLE or isinstance(curve, DiscreteSchedule)
]
each_schedule = pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
grids = pytest.mark.parametrize("grid", ENTRIES.values(), ids=ENTRIES)
by_ratio = pytest.mark.parametrize("grid", [Karras, LogSNR])


def falls_to_zero(times, curve, steps):
    assert times.shape == (steps + 1,) and times.dtype == torch.float64
    assert times[-1] == 0 and times[0] <= curve.t_max
    return bool((times[1:] < times[:-1]).all())


@pytest.mark.parametrize(("grid", "schedule"), COMBINATIONS)
@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_grids_fall_strictly_from_within_the_schedule_to_zero(grid, schedule, steps):
    curve = CURVES[schedule]
    steps = min(steps, curve.t_max) if isinstance(curve, DiscreteSchedule) else steps
    assert falls_to_zero(ENTRIES[grid](curve, steps), curve, steps)


@each_schedule
@by_ratio
@pytest.mark.parametrize("ends", [(1e-6, 1e6), (1.0, 1.001), (0.9, 1e6)])
def test_no_ends_that_are_allowed_make_times_coincide(curve, grid, ends):
    steps = 50 if isinstance(curve, DiscreteSchedule) else 5000
    assert falls_to_zero(grid(*ends)(curve, steps), curve, steps)


@pytest.mark.parametrize("rho", [0.1, 1.0, 1000.0])
@each_schedule
def test_no_rho_that_is_allowed_makes_times_coincide(curve, rho):
    assert falls_to_zero(Karras(1e-6, 1e6, rho)(curve, 50), curve, 50)


@each_schedule
@pytest.mark.parametrize("grid", ["uniform", "learned"])
@pytest.mark.parametrize("steps", [1, 7])
def test_grids_by_time_start_at_exactly_the_noisiest(curve, grid, steps):
    assert ENTRIES[grid](curve, steps)[0] == curve.t_max


@each_schedule
def test_uniform_grids_take_equal_steps(curve):
    times = uniform(curve, 7)
    if isinstance(curve, DiscreteSchedule):
        assert torch.equal(times, times.round())
    else:
        torch.testing.assert_close(times.diff(), torch.full((7,), -curve.t_max / 7).double())


@each_schedule
def test_trailing_is_uniform(curve):
    assert torch.equal(trailing(curve, 7), uniform(curve, 7))


@grids
@pytest.mark.parametrize("steps", [0, -3])
def test_a_grid_needs_a_step(grid, steps):
    with pytest.raises(ConfigError, match=f"steps = {steps}"):
        grid(Linear().build(), steps)


@grids
def test_a_discrete_schedule_has_no_more_steps_than_times(grid):
    with pytest.raises(ConfigError, match="1000 steps or fewer"):
        grid(Linear().build(), 1001)


@pytest.mark.parametrize("grid", [leading, linspace])
def test_grids_of_whole_times_on_a_continuous_schedule_are_refused(grid):
    with pytest.raises(ConfigError, match=f"{grid.__name__} grid .* VESchedule is continuous"):
        grid(VE().build(), 10)


def test_linspace_goes_from_the_last_whole_time_to_the_first():
    assert linspace(Linear().build(), 4).tolist() == [1000, 667, 334, 1, 0]


def test_a_single_time_of_linspace_is_the_noisiest():
    assert linspace(Linear().build(), 1).tolist() == [1000, 0]


def test_linspace_is_that_of_diffusers_counted_from_one():
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    schedule, theirs = Linear().build(), diffusers.DDIMScheduler(timestep_spacing="linspace")
    for steps in range(2, 1001):
        theirs.set_timesteps(steps)
        ours = linspace(schedule, steps)
        assert (ours[:-1] - 1).tolist() == theirs.timesteps.tolist()


def test_karras_on_ve_is_eq_5_of_the_paper():
    steps, rho, low, high = 18, 7, 0.002, 80
    i = torch.arange(steps, dtype=torch.float64)
    expected = (high ** (1 / rho) + i / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    torch.testing.assert_close(Karras()(VE().build(), steps)[:-1], expected)


@by_ratio
@pytest.mark.parametrize("config", [VPCosine(), VPCosine(-2.0), Flow(), Flow(1.0)], ids=str)
def test_grids_by_ratio_mean_the_same_on_every_continuous_schedule(grid, config):
    curve, reference = config.build(), grid()(VE().build(), 10)
    alpha, sigma = curve(grid()(curve, 10))
    torch.testing.assert_close(sigma / alpha, reference, rtol=1e-9, atol=0)


@by_ratio
@pytest.mark.parametrize("config", [ScaledLinear(), Laplace(), Cosine(shift=3.0)], ids=str)
def test_grids_by_ratio_visit_exactly_the_ends_that_a_discrete_network_knows(grid, config):
    curve = config.build()
    times = grid(1e-6, 1e6)(curve, 30)
    assert times[0] == 1000 and times[-2] == 1
    assert grid(1e-6, 1e6)(curve, 1).tolist() == [1000, 0]


@by_ratio
def test_grids_by_ratio_start_below_pure_noise_at_their_own_largest(grid):
    for curve in (Flow().build(), Linear(zero_terminal_snr=True).build()):
        alpha, sigma = curve(grid(sigma_max=50.0)(curve, 5)[0])
        assert sigma / alpha == pytest.approx(50)


@each_schedule
def test_log_snr_grids_take_equal_steps_of_log_snr(curve):
    log_snr = curve(LogSNR()(curve, 11)[:-1]).snr.log()
    step = (log_snr[-1] - log_snr[0]) / 10
    assert step > 0
    torch.testing.assert_close(log_snr.diff(), step.expand(10), rtol=0, atol=1e-6)


def test_a_learned_grid_is_the_quantile_function_at_equal_shares():
    grid, curve = Learned((0.0, 0.1, 0.2, 1.0)), VE(sigma_max=10.0).build()
    expected = torch.tensor([10, 6, 2, 1.5, 1, 0.5, 0], dtype=torch.float64)
    torch.testing.assert_close(grid(curve, 6), expected, rtol=1e-12, atol=0)


def test_evenly_learned_times_are_the_uniform_grid():
    for curve in CURVES.values():
        torch.testing.assert_close(Learned((0.0, 0.5, 1.0))(curve, 16), uniform(curve, 16))


def test_a_learned_grid_on_a_chain_keeps_whole_times_apart():
    curve = Linear().build()
    low = Learned((0.0, 0.001, 0.002, 1.0))(curve, 12)
    assert low.tolist() == [1000, 750, 501, 252, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    high = Learned((0.0, 0.998, 0.999, 1.0))(curve, 12)
    assert high.tolist() == [1000, 999, 998, 997, 996, 995, 994, 993, 992, 748, 499, 250, 0]
    everything = torch.arange(1000, -1, -1, dtype=torch.float64)
    assert torch.equal(Learned(KNOTS)(curve, 1000), everything)


def test_a_learned_grid_without_knots_says_where_they_come_from():
    with pytest.raises(ConfigError, match="come from a run whose times are learned"):
        Learned()(Linear().build(), 10)


@pytest.mark.parametrize(
    ("knots", "words"),
    [
        ((0.0,), "1 numbers"),
        ((0.1, 1.0), "from 0.1 to 1.0"),
        ((0.0, 0.9), "from 0.0 to 0.9"),
        ((0.0, math.nan), "to nan"),
        ((0.0, 0.5, 0.5, 1.0), r"knots\[1\] = 0.5 and grid.knots\[2\] = 0.5"),
        ((0.0, 0.6, 0.5, 1.0), r"knots\[1\] = 0.6"),
        ((0.0, 0.5, 0.5 + 1e-12, 1.0), r"knots\[1\] = 0.5"),
        ((0.0, math.nan, 1.0), r"knots\[1\] = nan"),
        ((0.0, math.inf, 1.0), r"knots\[1\] = inf"),
    ],
)
def test_knots_that_are_no_quantile_function_are_refused(knots, words):
    with pytest.raises(ConfigError, match=words):
        Learned(knots)


@by_ratio
@pytest.mark.parametrize(
    "ends",
    [
        (0.0, 80.0),
        (1e-7, 80.0),
        (2.0, 1.0),
        (1.0, 1.0),
        (0.1, 1e7),
        (math.nan, 80.0),
        (0.1, math.nan),
        (0.1, math.inf),
    ],
)
def test_ends_that_make_no_stretch_of_ratios_are_refused(grid, ends):
    with pytest.raises(ConfigError, match=f"sigma_min = {ends[0]} and grid.sigma_max = {ends[1]},"):
        grid(*ends)


@pytest.mark.parametrize("rho", [0.0, -7.0, math.nan, math.inf])
def test_a_rho_without_meaning_is_refused(rho):
    with pytest.raises(ConfigError, match=f"grid.rho = {rho}"):
        Karras(rho=rho)


@by_ratio
def test_ratios_that_the_schedule_never_has_are_refused(grid):
    for config in (VE(sigma_max=0.001), Laplace()):
        with pytest.raises(ConfigError, match="no stretch in common"):
            grid(sigma_max=0.1)(config.build(), 5)


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, f.name) for name, e in GRIDS.items() if isinstance(e, type) for f in fields(e)],
)
def test_every_option_changes_the_grid(name, option):
    other = {"sigma_min": 0.01, "sigma_max": 40.0, "rho": 3.0, "knots": (0.0, 0.3, 1.0)}
    other |= {"spacing": "linspace", "offset": 2, "spare": True, "ratios": "karras"}
    curve = (Linear() if name in WHOLE else Flow()).build()
    changed = GRIDS[name](**{option: other[option]})(curve, 6)
    plain = GRIDS[name]() if name in WHOLE else ENTRIES[name]
    assert not torch.equal(changed, plain(curve, 6))


@pytest.mark.parametrize(
    "options", [{"spacing": "random"}, {"ratios": "beta"}, {"offset": -1}], ids=str
)
def test_a_spacing_that_is_none_is_refused(options):
    with pytest.raises(ConfigError, match=f"grid.{next(iter(options))} ="):
        Spaced(**options)


@pytest.mark.parametrize(
    ("grid", "steps"),
    [(Spaced(), 1000), (Spaced("linspace", spare=True), 1000), (Spaced(offset=900), 200)],
    ids=str,
)
def test_more_steps_than_there_is_room_for_are_refused(grid, steps):
    with pytest.raises(ConfigError, match="take fewer steps"):
        grid(Linear().build(), steps)


@pytest.mark.parametrize("ratios", ["karras", "log_snr"])
def test_ratios_lie_between_the_ends_of_the_spacing(ratios):
    curve = Linear(zero_terminal_snr=True).build()
    times = Spaced("leading", offset=3, ratios=ratios)(curve, 5)
    torch.testing.assert_close(times[[0, 4]], torch.tensor([804.0, 4.0]).double())
    # Pure noise has no ratio, and is taken for 4096.
    first = curve(Spaced("trailing", ratios=ratios)(curve, 5)[0])
    assert first.sigma / first.alpha == pytest.approx(4096)
