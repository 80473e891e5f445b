"""Where training looks: what all times have in common, and those whose density is fixed."""

import dataclasses
import math
from statistics import NormalDist

import pytest
import torch
from teaching import FLOW, LEARNED, hump, rising, schedules, seeded, teach, with_rand

from kao.diffusion import SCHEDULES, VE, Cosine, DiscreteSchedule, Linear
from kao.diffusion.times import TIMES, LogitNormal, LogNormal, Times, Uniform, Warped
from kao.errors import ConfigError

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
