import pytest
import torch

from kao.diffusion import GRIDS, SCHEDULES, VE, DiscreteSchedule, Linear, ScaledLinear, grids
from kao.errors import ConfigError

COMBINATIONS = [
    (grid, schedule)
    for grid in GRIDS
    for schedule in SCHEDULES
    if grid != "leading" or schedule in ("linear", "scaled_linear", "cosine")
]


@pytest.mark.parametrize(("grid", "schedule"), COMBINATIONS)
@pytest.mark.parametrize("steps", [1, 2, 7, 50, 999, 1000])
def test_grids_fall_strictly_from_within_the_schedule_to_zero(grid, schedule, steps):
    curve = SCHEDULES[schedule]().build()
    times = GRIDS[grid](curve, steps)
    assert times.shape == (steps + 1,) and times.dtype == torch.float64
    assert times[-1] == 0 and times[0] <= curve.t_max
    assert (times[1:] < times[:-1]).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_uniform_grids_start_at_the_noisiest_time(schedule):
    curve = SCHEDULES[schedule]().build()
    times = grids.uniform(curve, 7)
    assert times[0] == curve.t_max
    if isinstance(curve, DiscreteSchedule):
        assert torch.equal(times, times.round())
    else:
        torch.testing.assert_close(times.diff(), torch.full((7,), -curve.t_max / 7).double())


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("steps", [0, -3])
def test_a_grid_needs_a_step(grid, steps):
    with pytest.raises(ConfigError, match=f"steps = {steps}"):
        GRIDS[grid](Linear().build(), steps)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_discrete_schedule_has_no_more_steps_than_times(grid):
    with pytest.raises(ConfigError, match="1000 steps or fewer"):
        GRIDS[grid](Linear().build(), 1001)


def test_leading_on_a_continuous_schedule_is_refused():
    with pytest.raises(ConfigError, match="VESchedule is continuous"):
        grids.leading(VE().build(), 10)


def test_karras_on_ve_is_eq_5_of_the_paper():
    steps, rho, low, high = 18, 7, 0.002, 80
    i = torch.arange(steps, dtype=torch.float64)
    expected = (high ** (1 / rho) + i / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    torch.testing.assert_close(grids.karras(VE().build(), steps)[:-1], expected)


@pytest.mark.parametrize("schedule", ["vp_cosine", "flow"])
def test_karras_means_the_same_ratios_on_every_continuous_schedule(schedule):
    curve, reference = SCHEDULES[schedule]().build(), grids.karras(VE().build(), 10)
    alpha, sigma = curve(grids.karras(curve, 10))
    torch.testing.assert_close(sigma / alpha, reference, rtol=1e-9, atol=0)


def test_karras_stays_where_a_discrete_network_was_trained():
    times = grids.karras(ScaledLinear().build(), 30)
    assert times[0] == pytest.approx(1000)
    assert times[-2] == pytest.approx(1)
