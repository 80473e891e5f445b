import dataclasses
import io
import itertools
import math
from statistics import NormalDist

import pytest
import torch
from torch import nn

from kao.diffusion import SCHEDULES, VE, Cosine, DiscreteSchedule, Flow, Linear
from kao.diffusion.times import (
    TIMES,
    LogitNormal,
    LogNormal,
    LossMoment,
    Times,
    Uniform,
    Warped,
)
from kao.diffusion.times.bins import RunningBins, isotonic, slope
from kao.errors import ConfigError

LEARNED = (LossMoment, Warped)
learned = pytest.mark.parametrize("config", LEARNED, ids=lambda c: c.__name__)
schedules = pytest.mark.parametrize("schedule", SCHEDULES)
FLOW = Flow().build()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grid(count: int) -> torch.Tensor:
    """The middles of `count` equal parts of [0, 1]."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def hump(share: torch.Tensor) -> torch.Tensor:
    """A loss that is large in the middle: between 0.1 and 1.1."""
    return 0.1 + (math.pi * share).sin() ** 4


def rising(share: torch.Tensor) -> torch.Tensor:
    """An error that rises from 0 to 1, mostly about the middle."""
    return (1 + ((share - 0.5) * 8).tanh() / math.tanh(4)) / 2


def teach(times: Times, loss=hump, error=rising, count: int = 6000) -> Times:
    """Show `times` images at evenly spread times."""
    t_max = times.schedule.t_max
    t = t_max * grid(count)
    if isinstance(times.schedule, DiscreteSchedule):
        t = t.ceil()
    times.update(t, loss(t / t_max), error(t / t_max))
    return times


def taught(config, schedule=FLOW, **options) -> Times:
    return teach(config(**options).build(schedule))


def with_rand(u: float, times: Times, batch: int) -> torch.Tensor:
    """Times where every uniform number drawn is `u`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda n, **_: torch.full((n,), u, dtype=torch.float64))
        return times(batch, seeded()).t


# Every kind of times


@schedules
@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("known", [False, True])
def test_times_lie_within_the_schedule_and_are_whole_on_discrete_ones(name, schedule, known):
    curve = SCHEDULES[schedule]().build()
    times = TIMES[name]().build(curve)
    if known:
        teach(times)
    draws = [times(257, seeded()).t, *(with_rand(u, times, 3) for u in (0.0, 0.5, 1 - 2**-53))]
    for t in draws:
        assert (t > 0).all() and (t <= curve.t_max).all()
        assert curve(t).snr.isfinite().all()
        if isinstance(curve, DiscreteSchedule):
            assert torch.equal(t, t.round())


@pytest.mark.parametrize("name", TIMES)
def test_draws_are_float64_on_the_cpu_one_an_image_with_positive_weights(name):
    draw = teach(TIMES[name]().build(FLOW))(7, seeded())
    for part in draw:
        assert part.shape == (7,) and part.dtype == torch.float64 and part.device.type == "cpu"
    assert (draw.weight > 0).all()


@schedules
@pytest.mark.parametrize("name", TIMES)
def test_the_same_seed_draws_the_same_times(name, schedule):
    times = teach(TIMES[name]().build(SCHEDULES[schedule]().build()))
    assert torch.equal(times(64, seeded(3)).t, times(64, seeded(3)).t)
    assert not torch.equal(times(64, seeded(3)).t, times(64, seeded(4)).t)


@pytest.mark.parametrize("config", [Uniform, LogitNormal, LogNormal])
def test_fixed_times_weigh_every_image_one_and_learn_nothing(config):
    times = config().build(FLOW)
    before = times(8, seeded())
    assert torch.equal(before.weight, torch.ones(8, dtype=torch.float64))
    assert torch.equal(teach(times)(8, seeded()).t, before.t)
    assert times.knots() is None and times.state_dict() == {}


OPTIONS = [
    (Uniform, {"stratified": False}),
    (LogitNormal, {"mean": 0.1}),
    (LogitNormal, {"std": 1.1}),
    (LogitNormal, {"stratified": False}),
    (LogNormal, {"mean": -1.1}),
    (LogNormal, {"std": 1.1}),
    (LogNormal, {"stratified": False}),
    (Warped, {"smoothing": 2.0}),
]
OPTIONS += [
    (config, option)
    for config in LEARNED
    for option in (
        {"bins": 50},
        {"floor": 0.2},
        {"memory": 50},
        {"warmup": 10_000},
        {"stratified": False},
    )
]


@pytest.mark.parametrize(("config", "option"), OPTIONS)
def test_every_option_changes_the_times_drawn(config, option):
    def times(**options) -> torch.Tensor:
        made = config(**options).build(FLOW)
        teach(made)
        teach(made, lambda s: hump(s) ** 2, lambda s: rising(s) ** 2)  # memory tells them apart
        return made(64, seeded()).t

    assert not torch.equal(times(), times(**option))


def test_every_option_is_among_those_that_change_the_times():
    tried = {(config, name) for config, option in OPTIONS for name in option}
    there = {(c, field.name) for c in TIMES.values() for field in dataclasses.fields(c)}
    assert tried == there


BAD = [
    *((config, "mean", v) for config in (LogitNormal, LogNormal) for v in (math.inf, -math.inf)),
    *((config, "std", v) for config in (LogitNormal, LogNormal) for v in (0.0, -1.0, math.inf)),
    *((config, "bins", v) for config in LEARNED for v in (1, 0, math.inf)),
    *((config, "floor", v) for config in LEARNED for v in (0.0, 1.0, -0.1, 1.1, math.inf)),
    *((config, "memory", v) for config in LEARNED for v in (0, -1, math.inf)),
    *((config, "warmup", v) for config in LEARNED for v in (0, -1, math.inf)),
    *((Warped, "smoothing", v) for v in (0.0, -1.0, math.inf)),
]
BAD += [(config, option, math.nan) for config, option in {(c, o): 0 for c, o, _ in BAD}]


@pytest.mark.parametrize(("config", "option", "value"), BAD)
def test_options_out_of_range_are_refused_by_name(config, option, value):
    with pytest.raises(ConfigError, match=f"^times.{option} = {value}"):
        config(**{option: value})


# Uniform times


@schedules
@pytest.mark.parametrize("stratified", [True, False])
def test_uniform_times_are_the_generators_own_numbers_placed_evenly(schedule, stratified):
    curve, generator = SCHEDULES[schedule]().build(), seeded(5)
    u = torch.rand(33, generator=generator, dtype=torch.float64)
    if stratified:
        u = (torch.randperm(33, generator=generator) + u) / 33
    discrete = isinstance(curve, DiscreteSchedule)
    expected = 1 + (u * curve.t_max).floor() if discrete else curve.t_max * (1 - u)
    assert torch.equal(Uniform(stratified).build(curve)(33, seeded(5)).t, expected)


@schedules
def test_the_ends_of_the_uniform_times_are_in_range(schedule):
    curve = SCHEDULES[schedule]().build()
    times = Uniform(stratified=False).build(curve)
    first, last = sorted(with_rand(u, times, 1).item() for u in (0.0, 1 - 2**-53))
    assert last == curve.t_max
    assert (first == 1) if isinstance(curve, DiscreteSchedule) else (0 < first < 1e-10)


def test_a_batch_of_t_stratified_discrete_times_is_every_time_once():
    times = Uniform().build(Linear(steps=40).build())(40, seeded()).t
    assert times.sort().values.tolist() == list(range(1, 41))
    assert times.tolist() != times.sort().values.tolist()


@pytest.mark.parametrize("stratified", [True, False])
def test_each_images_own_time_is_uniform(stratified):
    times, generator = Uniform(stratified).build(FLOW), seeded()
    first = torch.stack([times(4, generator).t[0] for _ in range(4000)])
    counts = torch.histc(first.float(), bins=8, min=0, max=1)
    # 500 expected in each, standard deviation 21.
    assert (counts - 500).abs().max() < 4 * 21


# Strata


def share_below(times: Times, t: torch.Tensor) -> list[float]:
    """The share of the density's mass below each time of a learned, continuous density."""
    density = times.density()
    mass = torch.cat([density.new_zeros(1), density.cumsum(0)]) / len(density)
    place = t / times.schedule.t_max * len(density)
    cell = place.floor().long().clamp(max=len(density) - 1)
    return (mass[cell] + (place - cell) * density[cell] / len(density)).tolist()


def normal_share(config):
    law = NormalDist(config.mean, config.std)
    return lambda times, t: [law.cdf(math.log(s / (1 - s))) for s in t.tolist()]


# On the flow, sigma / alpha = t / (1 - t): one formula serves logit-normal and log-normal times.
LAWS = {
    "uniform": lambda times, t: t.tolist(),
    "logit_normal": normal_share(LogitNormal()),
    "log_normal": normal_share(LogNormal()),
    "loss_moment": share_below,
    "warped": share_below,
}


@pytest.mark.parametrize("name", TIMES)
def test_stratified_times_fall_one_in_each_part_of_their_law(name):
    times = teach(TIMES[name]().build(FLOW))
    t = times(50, seeded()).t
    parts = [math.ceil(share * 50) for share in LAWS[name](times, t)]
    assert sorted(parts) == list(range(1, 51))
    assert parts != sorted(parts)


@pytest.mark.parametrize("name", TIMES)
def test_times_without_strata_leave_some_parts_empty(name):
    times = teach(TIMES[name](stratified=False).build(FLOW))
    t = times(50, seeded()).t
    assert len({math.ceil(share * 50) for share in LAWS[name](times, t)}) < 50


# The normal laws


def test_logit_normal_times_have_the_quantiles_of_their_law():
    t = LogitNormal(mean=-0.5, std=1.5).build(VE().build())(999, seeded()).t.sort().values / 80
    law = NormalDist(-0.5, 1.5)
    for k in (1, 50, 500, 950, 998):
        low, high = (1 / (1 + math.exp(-law.inv_cdf(i / 999))) for i in (k, k + 1 - 1e-9))
        assert low <= t[k] <= high


@pytest.mark.parametrize("schedule", ["ve", "flow", "vp_cosine"])
def test_log_normal_times_have_the_quantiles_of_their_law_on_every_schedule(schedule):
    curve = SCHEDULES[schedule]().build()
    level = curve(LogNormal(mean=-0.8, std=1.0).build(curve)(999, seeded()).t)
    ratio = (level.sigma / level.alpha).sort().values
    law = NormalDist(-0.8, 1.0)
    for k in (1, 50, 500, 950, 998):
        low, high = (math.exp(law.inv_cdf(i / 999)) for i in (k, min(k + 1, 999 - 1e-9)))
        assert low * (1 - 1e-12) <= ratio[k] <= high * (1 + 1e-12)


def test_on_a_discrete_schedule_log_normal_times_are_the_nearest_whole_ones():
    curve = Cosine().build()
    t = LogNormal().build(curve)(4096, seeded()).t
    level = curve(t)
    spread = (level.sigma / level.alpha).log()
    assert spread.mean().item() == pytest.approx(-1.2, abs=0.02)
    assert spread.std().item() == pytest.approx(1.2, abs=0.02)


def test_on_a_discrete_schedule_logit_normal_times_have_the_mass_of_their_cells():
    t = LogitNormal().build(Linear(steps=10).build())(100_000, seeded()).t
    counts = torch.bincount(t.long(), minlength=11)[1:]
    edges = [0.0, *(NormalDist().cdf(math.log(i / (10 - i))) for i in range(1, 10)), 1.0]
    mass = torch.tensor(edges, dtype=torch.float64).diff() * 100_000
    assert (counts - mass).abs().max() <= 2  # one for each edge that a stratum straddles


@pytest.mark.parametrize("config", [LogitNormal, LogNormal])
def test_the_smallest_number_a_generator_draws_is_eight_deviations_from_the_mean(config):
    law = config(mean=0.5, std=2.0, stratified=False)
    t = with_rand(0.0, law.build(FLOW), 1)
    assert ((t / (1 - t)).log().item() - 0.5) / 2 == pytest.approx(-8.29, abs=0.01)


@schedules
@pytest.mark.parametrize("config", [LogitNormal, LogNormal])
def test_laws_far_wider_than_the_schedule_stay_on_it(config, schedule):
    curve = SCHEDULES[schedule]().build()
    t = config(mean=0.0, std=1e6).build(curve)(64, seeded()).t
    assert (t > 0).all() and (t <= curve.t_max).all() and curve(t).snr.isfinite().all()


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
