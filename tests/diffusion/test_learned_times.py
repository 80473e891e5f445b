"""Times that learn their density: the objective stays, and what is learned is right."""

import io
import itertools
import math

import pytest
import torch
from teaching import FLOW, grid, hump, learned, rising, schedules, seeded, taught, teach
from torch import nn

from kao.diffusion import SCHEDULES, DiscreteSchedule, Linear
from kao.diffusion.times import LossMoment, Times, Uniform, Warped
from kao.diffusion.times.bins import RunningBins, isotonic, slope

# Learned times: the objective stays that of uniform times

SPIKES = {
    "flat": torch.ones_like,
    "line": lambda s: s,
    "wave": lambda s: (40 * s).sin() + 2,
    "step": lambda s: (s > 0.613).double(),
    "fall": lambda s: (-5 * s).exp(),
}


@learned
@pytest.mark.parametrize("f", SPIKES.values(), ids=SPIKES.keys())
def test_the_weighted_mean_of_any_function_is_its_uniform_mean(config, f):
    times = taught(config, bins=30)
    # Quadrature over the shares that `forward` draws, against quadrature over uniform times.
    draw = times.at(grid(400_000))
    assert draw.weight.max() / draw.weight.min() > 2
    weighted, uniform = (draw.weight * f(draw.t)).mean(), f(grid(400_000)).mean()
    assert weighted.item() == pytest.approx(uniform.item(), abs=2e-5)


@learned
@pytest.mark.parametrize("steps", [7, 37, 1000])
def test_on_discrete_schedules_every_probability_times_its_weight_is_one_in_t(config, steps):
    times = taught(config, Linear(steps=steps).build(), bins=10)
    count = 500_000
    draw = times.at(grid(count))
    drawn = torch.bincount(draw.t.long(), minlength=steps + 1)[1:]
    weight = torch.ones(steps, dtype=torch.float64)
    weight[draw.t.long() - 1] = draw.weight
    # Each time's shares are one interval, whose length a grid tells to within one of its points.
    assert (drawn - count / (steps * weight)).abs().max() <= 1.001
    assert (1 / weight).mean().item() == pytest.approx(1, abs=1e-12)


@learned
@pytest.mark.parametrize("steps", [None, 37])
def test_drawn_at_random_the_weighted_mean_is_the_uniform_mean(config, steps):
    schedule = FLOW if steps is None else Linear(steps=steps).build()
    times = taught(config, schedule, stratified=False)
    f = SPIKES["wave"]
    draw = times(40_000, seeded())
    values = draw.weight * f(draw.t / schedule.t_max)
    every = grid(40_000) if steps is None else torch.arange(1, steps + 1).double() / steps
    error = (values.mean() - f(every).mean()).abs()
    assert error < 4 * values.std() / 200


@learned
@pytest.mark.parametrize("floor", [0.05, 0.5])
def test_no_weight_exceeds_one_over_the_floor(config, floor):
    times = config(bins=50, floor=floor).build(FLOW)
    teach(times, lambda s: (s > 0.97).double(), lambda s: (s > 0.5).double())
    weight = times.at(grid(10_000)).weight
    assert weight.max().item() == pytest.approx(1 / floor)
    assert weight.max() <= 1 / floor


# Learned times: what is learned


def bin_of(t: torch.Tensor, bins: int) -> torch.Tensor:
    """The bin of each time of the flow."""
    return (t * bins).ceil().long() - 1


def moments(times: Times, moment: torch.Tensor, count: int = 100_000) -> float:
    """E[(weight * L)^2] where E[L^2] is `moment` in each bin, by quadrature."""
    draw = times.at(grid(count))
    return (draw.weight**2 * moment[bin_of(draw.t, len(moment))]).mean().item()


def test_loss_moment_reaches_the_least_second_moment_there_is():
    moment = hump(grid(20)) ** 2
    times = LossMoment(bins=20, floor=1e-9, warmup=2).build(FLOW)
    # Two losses in each bin, 1.4 and 0.2 times the root: their mean square is the moment.
    for factor in (1.4, 0.2):
        times.update(grid(20), factor * moment.sqrt(), torch.ones(20))
    optimum = moment.sqrt().mean().item() ** 2  # by Cauchy & Schwarz, for any density
    assert moments(times, moment) == pytest.approx(optimum, rel=1e-3)
    assert optimum < 0.8 * moment.mean().item()


def test_loss_moment_with_a_floor_still_varies_less_than_uniform_times():
    moment = hump(grid(20)) ** 2
    times = LossMoment(bins=20, warmup=1).build(FLOW)
    times.update(grid(20), moment.sqrt(), torch.ones(20))
    # With uniform times every weight is 1.
    assert moments(times, moment) < 0.85 * moment.mean().item()


def test_loss_moment_draws_by_the_root_of_the_mean_squared_loss():
    times = taught(LossMoment, floor=0.25)
    root = hump(grid(100))
    expected = 0.25 + 0.75 * root / root.mean()
    torch.testing.assert_close(times.density(), expected, rtol=2e-3, atol=0)


def test_warped_draws_by_the_slope_of_the_error():
    times = taught(Warped, floor=0.25, smoothing=0.3)
    slope_of_rising = rising(torch.linspace(0, 1, 101, dtype=torch.float64)).diff()
    expected = 0.25 + 0.75 * slope_of_rising / slope_of_rising.mean()
    torch.testing.assert_close(times.density(), expected, rtol=0.01, atol=0.01)


def test_between_two_warped_knots_the_error_rises_by_equal_parts():
    knots = torch.tensor(taught(Warped, floor=1e-3, smoothing=0.3).knots(11), dtype=torch.float64)
    torch.testing.assert_close(
        rising(knots).diff(), torch.full((10,), 0.1).double(), atol=2e-3, rtol=0
    )


@learned
def test_a_discrete_schedule_learns_the_same_density_as_a_continuous_one(config):
    fine, coarse = taught(config), taught(config, Linear(steps=1000).build())
    torch.testing.assert_close(
        coarse.density().reshape(100, 10).mean(1), fine.density(), rtol=0.05, atol=0.05
    )


@learned
def test_a_short_chain_has_a_bin_for_each_of_its_times(config):
    times = taught(config, Linear(steps=7).build())
    assert times.density().shape == times.bins.seen.shape == (7,)


@learned
@pytest.mark.parametrize("steps", [3, 37, 99, 101, 1000])
def test_every_bin_of_a_discrete_schedule_holds_a_whole_time(config, steps):
    times = config(bins=50).build(Linear(steps=steps).build())
    times.update(
        torch.arange(1, steps + 1, dtype=torch.float64), torch.ones(steps), torch.ones(steps)
    )
    assert (times.bins.seen >= 1).all() and times.bins.seen.sum() == steps


@learned
def test_a_whole_time_belongs_to_the_bin_of_the_middle_of_its_share(config):
    times = config(bins=3).build(Linear(steps=4).build())
    times.update(torch.tensor([1.0, 2.0, 3.0, 4.0]).double(), torch.ones(4), torch.ones(4))
    assert times.bins.seen.tolist() == [1, 2, 1]


@learned
@schedules
def test_until_every_bin_was_seen_the_times_are_uniform_byte_for_byte(config, schedule):
    curve = SCHEDULES[schedule]().build()
    times, uniform = config(bins=10, warmup=3).build(curve), Uniform().build(curve)

    def same() -> bool:
        one, other = times(64, seeded()), uniform(64, seeded())
        return torch.equal(one.t, other.t) and torch.equal(one.weight, other.weight)

    t = curve.t_max * grid(10)
    t = t.ceil() if isinstance(curve, DiscreteSchedule) else t
    for _ in range(2):
        times.update(t, hump(grid(10)), rising(grid(10)))
        assert same()
    times.update(t[1:], hump(grid(10))[1:], rising(grid(10))[1:])
    assert same()
    times.update(t[:1], hump(grid(10))[:1], rising(grid(10))[:1])
    assert not same()


@learned
def test_where_nothing_varies_or_everything_is_zero_the_times_are_uniform(config):
    for value in (torch.zeros_like, lambda s: s if config is Warped else torch.ones_like(s)):
        times = teach(config().build(FLOW), value, value)
        torch.testing.assert_close(times.density(), torch.ones(100).double())
        assert times.at(grid(50)).weight.isfinite().all()


@learned
def test_losses_that_are_not_finite_are_left_out(config):
    times, clean = taught(config), taught(config)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    bad = torch.tensor([math.nan, math.inf, -math.inf], dtype=torch.float64)
    times.update(t, bad, bad)
    assert torch.equal(times(32, seeded()).t, clean(32, seeded()).t)


# Learned times: their state


@learned
@schedules
def test_a_state_saved_and_loaded_draws_and_learns_the_same(config, schedule):
    curve = SCHEDULES[schedule]().build()
    times, file = taught(config, curve), io.BytesIO()
    torch.save(times.state_dict(), file)
    file.seek(0)
    again = config().build(curve)
    again.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(2):
        one, other = times(64, seeded()), again(64, seeded())
        assert torch.equal(one.t, other.t) and torch.equal(one.weight, other.weight)
        assert times.knots() == again.knots()
        teach(times, count=300)
        teach(again, count=300)


@learned
def test_learning_is_deterministic(config):
    one, other = taught(config), taught(config)
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


@learned
def test_the_state_stays_float64_on_the_cpu_wherever_the_module_goes(config):
    times = taught(config)
    whole = nn.ModuleDict({"times": times, "network": nn.Linear(2, 2)})
    before = times(16, seeded()).t
    whole.half().to("meta")
    assert whole["network"].weight.dtype == torch.float16 and whole["network"].weight.is_meta
    for value in times.state_dict().values():
        assert value.dtype == torch.float64 and value.device.type == "cpu"
    assert torch.equal(times(16, seeded()).t, before)


@learned
def test_times_built_on_the_meta_device_draw_all_the_same(config):
    with torch.device("meta"):
        times = config().build(FLOW)
    assert torch.equal(times(8, seeded()).t, Uniform().build(FLOW)(8, seeded()).t)


def test_a_bins_average_is_the_mean_until_it_is_full_and_then_fades_exponentially():
    bins = RunningBins(2, memory=4)
    values = torch.tensor([3.0, 1.0, 7.0, 5.0, 2.0, 9.0], dtype=torch.float64)
    expected = 0.0
    for n, value in enumerate(values, 1):
        bins.update(torch.zeros(1, dtype=torch.long), value[None])
        expected += (value.item() - expected) / min(n, 4)
        assert bins.average[0].item() == pytest.approx(expected)
        if n <= 4:
            assert bins.average[0].item() == pytest.approx(values[:n].mean().item())
    assert bins.seen.tolist() == [6, 0] and bins.average[1] == 0


def test_the_order_of_a_batch_does_not_matter_to_its_bins():
    index = torch.randint(0, 5, (200,), generator=seeded())
    values = torch.rand(200, generator=seeded(1), dtype=torch.float64)
    order = torch.randperm(200, generator=seeded(2))
    one, other = RunningBins(5, memory=50), RunningBins(5, memory=50)
    one.update(index, values)
    other.update(index[order], values[order])
    torch.testing.assert_close(one.average, other.average, rtol=1e-12, atol=0)


# Knots and curves


@learned
@schedules
@pytest.mark.parametrize("count", [2, 65, 400])
def test_knots_rise_strictly_from_0_to_1(config, schedule, count):
    curve = SCHEDULES[schedule]().build()
    times = config(floor=0.01).build(curve)
    teach(times, lambda s: (s > 0.97).double(), lambda s: (s > 0.5).double())
    knots = times.knots(count)
    assert len(knots) == count and knots[0] == 0 and knots[-1] == 1
    assert all(a < b for a, b in itertools.pairwise(knots))


@learned
def test_knots_are_even_before_anything_is_learned(config):
    knots = config().build(FLOW).knots()
    assert knots == pytest.approx([i / 64 for i in range(65)])


@learned
def test_knots_are_the_quantiles_of_the_times_drawn(config):
    times = taught(config)
    t = times(9600, seeded()).t.sort().values
    for i, knot in enumerate(times.knots(9)[1:-1], 1):
        assert t[1200 * i - 1] <= knot <= t[1200 * i]


@learned
def test_one_knot_is_refused(config):
    with pytest.raises(ValueError, match="1 knots"):
        config().build(FLOW).knots(1)


def test_the_isotonic_curve_pools_adjacent_violators():
    values = torch.tensor([1.0, 3.0, 2.0, 2.0, 5.0, 4.0, 0.0], dtype=torch.float64)
    # 3, 2, 2 are pooled to 7/3; 5, 4, 0 to 3.
    expected = torch.tensor([1, 7 / 3, 7 / 3, 7 / 3, 3, 3, 3], dtype=torch.float64)
    torch.testing.assert_close(isotonic(values), expected)


def test_the_isotonic_curve_is_the_nearest_that_never_falls():
    generator = seeded()
    values = torch.rand(12, generator=generator, dtype=torch.float64)
    curve = isotonic(values)
    assert (curve.diff() >= 0).all()
    torch.testing.assert_close(isotonic(curve), curve)
    least = (curve - values).square().sum()
    for _ in range(500):
        other = (curve + 0.2 * torch.randn(12, generator=generator)).sort().values
        assert (other - values).square().sum() >= least


def test_the_slope_of_a_straight_line_is_uniform_and_of_a_falling_one_only_its_start():
    line = grid(10)
    torch.testing.assert_close(slope(line, smoothing=2.0), torch.full((10,), 0.1).double())
    torch.testing.assert_close(
        slope(line.flip(0), smoothing=0.1), torch.tensor([0.5] + [0.0] * 9).double()
    )
