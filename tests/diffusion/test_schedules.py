import math
from dataclasses import fields, replace

import pytest
import torch

from kao.diffusion.schedules import (
    SCHEDULES,
    VE,
    Cosine,
    DiscreteSchedule,
    Flow,
    Laplace,
    Level,
    Linear,
    NoiseSchedule,
    ScaledLinear,
    Sigmoid,
    VPCosine,
)
from kao.errors import ConfigError

DISCRETE = {name: c for name, c in SCHEDULES.items() if "zero_terminal_snr" in c.__annotations__}
SHIFTED = {name: c for name, c in SCHEDULES.items() if "shift" in c.__annotations__}
CHANGED = {
    **{name: c() for name, c in SCHEDULES.items()},
    **{f"{name}, zero-terminal": c(zero_terminal_snr=True) for name, c in DISCRETE.items()},
    **{f"{name}, shifted": c(shift=-1.5) for name, c in SHIFTED.items()},
    **{f"{name}, both": c(zero_terminal_snr=True, shift=2.0) for name, c in DISCRETE.items()},
}
OTHER = {
    "steps": 300,
    "beta_first": 2e-4,
    "beta_last": 0.03,
    "offset": 0.02,
    "beta_limit": 0.5,
    "start": -2.0,
    "end": 4.0,
    "tau": 0.7,
    "mean": 0.5,
    "scale": 0.8,
    "sigma_max": 50.0,
    "betas": (0.1, 0.2, 0.3),
    "zero_terminal_snr": True,
    "shift": -1.0,
}

schedules = pytest.mark.parametrize("schedule", CHANGED.values(), ids=CHANGED)
tables = pytest.mark.parametrize("table", DISCRETE.values(), ids=DISCRETE)
lengths = pytest.mark.parametrize("steps", [50, 1000, 2000, 4000])


def float64(*values):
    return torch.tensor(values, dtype=torch.float64)


@schedules
def test_time_zero_is_exactly_clean(schedule):
    for t in (torch.zeros((), dtype=torch.float64), torch.zeros(3, dtype=torch.float64)):
        alpha, sigma = schedule.build()(t)
        assert alpha.shape == sigma.shape == t.shape
        assert torch.all(alpha == 1) and torch.all(sigma == 0)


@schedules
def test_levels_are_float64_and_snr_falls(schedule):
    curve = schedule.build()
    t = torch.linspace(0, curve.t_max, 2003, dtype=torch.float64)
    level = curve(t)
    assert level.alpha.dtype == level.sigma.dtype == level.snr.dtype == torch.float64
    assert torch.all(level.snr[1:] < level.snr[:-1])


@schedules
def test_time_at_inverts_the_log_snr(schedule):
    curve = schedule.build()
    log_snr = torch.linspace(9, -5, 57, dtype=torch.float64)
    reachable = log_snr > curve(float64(curve.t_max)).snr.log()
    log_snr = log_snr[reachable]
    assert len(log_snr) > 20
    torch.testing.assert_close(curve(curve.time_at(log_snr)).snr.log(), log_snr, rtol=0, atol=1e-9)


@schedules
def test_time_at_returns_the_time_of_a_level(schedule):
    curve = schedule.build()
    t = curve.t_max * torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    back = curve.time_at(curve(t).snr.log())
    torch.testing.assert_close(back, t, rtol=1e-9, atol=0)
    assert torch.equal(curve.time_at(curve(t[50]).snr.log()), back[50])


@schedules
def test_beyond_every_level_lie_exactly_the_ends(schedule):
    curve = schedule.build()
    assert curve.time_at(float64(math.inf, -math.inf)).tolist() == [0, curve.t_max]


def test_a_schedule_without_a_closed_form_is_inverted_by_bisection():
    class Parabola(NoiseSchedule):
        t_max = 3.0

        def __call__(self, t):
            abar = 1 - (t / 3) ** 2
            return Level(abar.sqrt(), (1 - abar).sqrt())

    log_snr = float64(math.inf, 4.0, 0.0, -7.0, -math.inf)
    expected = 3 * (1 - log_snr.sigmoid()).sqrt()
    torch.testing.assert_close(Parabola().time_at(log_snr), expected, rtol=1e-12, atol=0)


@schedules
def test_labels_are_finite_and_rise_with_time(schedule):
    curve = schedule.build()
    t = torch.linspace(0, curve.t_max, 101, dtype=torch.float64)[1:]
    label = curve.label(t)
    assert torch.all(label.isfinite()) and torch.all(label[1:] > label[:-1])


def test_networks_are_told_the_index_of_the_original_ddpm_code():
    assert Linear().build().label(float64(1, 1000)).tolist() == [0, 999]


def test_networks_on_ve_are_told_c_noise_in_thousandths():
    t = float64(0.5, 7.0)
    torch.testing.assert_close(VE().build().label(t) / 1000, t.log() / 4)


def test_networks_on_continuous_schedules_are_told_thousandths_of_the_whole():
    for name in ("flow", "vp_cosine"):
        assert SCHEDULES[name]().build().label(float64(0.25, 1.0)).tolist() == [250, 1000]


def test_the_discrete_table_is_the_running_product_of_one_minus_beta():
    schedule = DiscreteSchedule(torch.tensor([0.1, 0.5, 0.2]))
    alpha, sigma = schedule(torch.arange(4, dtype=torch.float64))
    expected = float64(1, 0.9, 0.45, 0.36)
    torch.testing.assert_close(alpha**2, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(sigma**2, 1 - expected, rtol=0, atol=1e-8)


def test_a_table_of_abar_is_kept_to_the_last_digit():
    abar = torch.rand(999, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    abar = torch.cat([float64(1), abar.sort(descending=True).values, float64(0)])
    schedule = DiscreteSchedule.of_abar(abar)
    assert schedule.t_max == 1000 and torch.equal(schedule.abar, abar)


@pytest.mark.parametrize(
    ("abar", "words"),
    [
        ([0.9, 0.5], "put abar_0 = 1 first"),
        ([1.0], "from 1 down to 0 or more"),
        ([1.0, 0.5, -0.1], "from 1 down to 0 or more"),
        ([1.0, 0.5, math.nan], "nan at time 2"),
        ([1.0, 0.5, 0.5, 0.1], "0.5 at time 1 and 0.5 at time 2"),
        ([1.0, math.nan, 0.5], "nan at time 1"),
    ],
)
def test_a_table_that_does_not_fall_from_1_to_0_is_refused(abar, words):
    with pytest.raises(ConfigError, match=words):
        DiscreteSchedule.of_abar(torch.tensor(abar))


def test_between_whole_times_abar_is_linear():
    schedule = Linear().build()
    alpha = schedule(float64(10.0, 10.25, 11.0)).alpha
    assert alpha[1] ** 2 == pytest.approx((0.75 * alpha[0] ** 2 + 0.25 * alpha[2] ** 2).item())


def test_published_tables_end_where_their_papers_say():
    # Ho et al. (2020), sec. 4: L_T is about 1e-5 bits, for abar_T = 4.04e-5.  Lin et al. (2024),
    # table 1, gives the terminal sqrt(abar): linear 0.006353, cosine 4.928e-5, Stable
    # Diffusion (scaled linear) 0.068265.
    t = torch.tensor(1000.0, dtype=torch.float64)
    for config, alpha in ((Linear(), 0.006353), (Cosine(), 4.928e-5), (ScaledLinear(), 0.068265)):
        assert config.build()(t).alpha.item() == pytest.approx(alpha, rel=1e-3)


def test_other_lengths_keep_the_betas_as_given():
    betas = 1 - Linear(steps=10).build().abar[1:] / Linear(steps=10).build().abar[:-1]
    expected = torch.linspace(1e-4, 0.02, 10, dtype=torch.float64)
    torch.testing.assert_close(betas, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("start", "end", "tau"), [(-3, 3, 1), (0, 3, 0.3), (0, 3, 0.7), (-3, 3, 1.1)]
)
@lengths
def test_the_sigmoid_table_is_the_formula_of_its_paper(steps, start, end, tau):
    def sigmoid(z):
        return 1 / (1 + math.exp(-z))

    def gamma(u):
        high, low = sigmoid(end / tau), sigmoid(start / tau)
        value = (high - sigmoid((u * (end - start) + start) / tau)) / (high - low)
        return min(max(value, 1e-9), 1.0)

    abar = Sigmoid(steps=steps, start=start, end=end, tau=tau).build().abar
    expected = [gamma(t / steps) for t in range(steps)]
    expected.append(max(gamma(1), 0.001 * expected[-1]))  # the last beta is limited to 0.999
    assert abar.tolist() == pytest.approx(expected, rel=1e-9, abs=0)


@lengths
def test_the_default_sigmoid_is_symmetric_in_time(steps):
    abar = Sigmoid(steps=steps).build().abar[:-1]
    torch.testing.assert_close(abar[1:], 1 - abar[1:].flip(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 0.5), (0.0, 1.0), (-2.0, 2.0)])
@lengths
def test_log_snr_of_the_laplace_table_has_the_quantiles_of_a_laplace_density(steps, mean, scale):
    abar = Laplace(steps=steps, mean=mean, scale=scale).build().abar[1:]
    log_snr = (abar / (1 - abar)).log()
    laplace = torch.distributions.Laplace(float64(mean), float64(scale))
    # Noise grows with time: share t of the times lies above the quantile 1 - t.
    share = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    torch.testing.assert_close(log_snr, laplace.icdf(1 - share), rtol=0, atol=1e-6)
    assert log_snr[0] == pytest.approx(mean + scale * math.log(steps))
    assert log_snr[-1] == pytest.approx(mean - scale * math.log(steps))


@tables
@lengths
def test_a_zero_terminal_table_ends_at_exactly_0_and_keeps_its_first_step(table, steps):
    before = table(steps=steps).build()
    after = table(steps=steps, zero_terminal_snr=True).build()
    assert after.abar[-1] == 0 and after.abar[1] == before.abar[1]
    end = after(torch.tensor(float(steps), dtype=torch.float64))
    assert (end.alpha, end.sigma) == (0, 1)
    assert torch.all(after.abar[2:] < before.abar[2:])


@tables
@lengths
def test_zero_terminal_tables_are_diffusers(table, steps):
    ddim = pytest.importorskip("diffusers.schedulers.scheduling_ddim", reason="no diffusers")
    abar = table(steps=steps).build().abar
    theirs = ddim.rescale_zero_terminal_snr(1 - abar[1:] / abar[:-1])
    ours = table(steps=steps, zero_terminal_snr=True).build().abar[1:]
    torch.testing.assert_close(ours, (1 - theirs).cumprod(0), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("config", SHIFTED.values(), ids=SHIFTED)
@pytest.mark.parametrize("shift", [2 * math.log(64 / 256), -2 * math.log(3), 1.0, 3.0])
def test_a_shift_moves_the_log_snr_of_every_time_by_as_much(config, shift):
    plain, shifted = config().build(), config(shift=shift).build()
    t = torch.linspace(0, plain.t_max, 501, dtype=torch.float64)[1:-1].ceil()
    if not isinstance(plain, DiscreteSchedule):
        t = torch.linspace(0, plain.t_max, 501, dtype=torch.float64)[1:-1]
    moved = shifted(t).snr.log() - plain(t).snr.log()
    torch.testing.assert_close(moved, torch.full_like(t, shift), rtol=0, atol=1e-9)


@tables
def test_a_shift_keeps_a_zero_terminal_end(table):
    plain = table(zero_terminal_snr=True).build().abar
    shifted = table(zero_terminal_snr=True, shift=-2.0).build().abar
    assert shifted[0] == 1 and shifted[-1] == 0
    moved = shifted[1:-1].logit() - plain[1:-1].logit()
    torch.testing.assert_close(moved, torch.full_like(moved, -2.0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shift", [-20.0, -3.0, 0.0, 3.0, 20.0])
def test_shifted_curves_keep_their_shape_and_end_in_pure_noise(shift):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    one = torch.ones_like(t)
    alpha, sigma = VPCosine(shift).build()(t)
    torch.testing.assert_close(alpha**2 + sigma**2, one, rtol=0, atol=1e-15)
    assert alpha[-1] < 1e-11 and sigma[-1] == 1
    alpha, sigma = Flow(shift).build()(t)
    torch.testing.assert_close(alpha + sigma, one, rtol=0, atol=1e-15)
    assert alpha[-1] == 0 and sigma[-1] == 1


def test_a_flow_shifted_by_minus_2_log_s_is_the_time_shift_of_stable_diffusion_3():
    t, s = torch.linspace(0, 1, 101, dtype=torch.float64), 3.0
    sigma = Flow(shift=-2 * math.log(s)).build()(t).sigma
    torch.testing.assert_close(sigma, s * t / (1 + (s - 1) * t), rtol=0, atol=1e-15)


def test_no_shift_leaves_the_curves_to_the_last_digit():
    t = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alpha, sigma = VPCosine().build()(t)
    angle = math.pi / 2 * t
    assert torch.equal(alpha, angle.cos()) and torch.equal(sigma, angle.sin())
    alpha, sigma = Flow().build()(t)
    assert torch.equal(alpha, 1 - t) and torch.equal(sigma, t)


@pytest.mark.parametrize(
    ("name", "option"), [(name, f.name) for name, c in SCHEDULES.items() for f in fields(c)]
)
def test_every_option_changes_the_schedule(name, option):
    plain = SCHEDULES[name]()
    other = replace(plain, **{option: OTHER[option]})
    assert getattr(plain, option) != getattr(other, option)
    curves = [config.build() for config in (plain, other)]
    share = torch.linspace(0, 1, 11, dtype=torch.float64)
    first, second = (curve(share * curve.t_max) for curve in curves)
    assert not torch.equal(first.snr, second.snr)


@lengths
@tables
def test_tables_of_every_length_fall_from_1(table, steps):
    abar = table(steps=steps).build().abar
    assert abar.shape == (steps + 1,) and abar[0] == 1
    assert torch.all(abar[1:] < abar[:-1]) and abar[-1] > 0


@pytest.mark.parametrize("table", DISCRETE.values(), ids=DISCRETE)
def test_two_steps_make_the_shortest_chain(table):
    assert len(table(steps=2, zero_terminal_snr=True).build().abar) == 3


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Linear(steps=1), "schedule.steps = 1"),
        (ScaledLinear(steps=0), "schedule.steps = 0"),
        (Cosine(steps=-5), "schedule.steps = -5"),
        (Sigmoid(steps=1), "schedule.steps = 1"),
        (Laplace(steps=1), "schedule.steps = 1"),
        (Linear(beta_first=0.0), "schedule.beta_first = 0.0"),
        (Linear(beta_last=1.0), "schedule.beta_last = 1.0"),
        (ScaledLinear(beta_last=math.nan), "schedule.beta_last = nan"),
        (Cosine(beta_limit=2.0), "schedule.beta_limit = 2.0"),
        (Cosine(offset=-0.1), "schedule.offset = -0.1"),
        (Sigmoid(start=3.0), "schedule.start = 3.0 and schedule.end = 3.0"),
        (Sigmoid(start=math.nan), "schedule.start = nan"),
        (Sigmoid(end=math.inf), "schedule.end = inf"),
        (Sigmoid(tau=0.0), "schedule.tau = 0.0"),
        (Sigmoid(tau=math.nan), "schedule.tau = nan"),
        (Sigmoid(beta_limit=math.nan), "schedule.beta_limit = nan"),
        (Laplace(mean=math.nan), "schedule.mean = nan"),
        (Laplace(mean=-math.inf), "schedule.mean = -inf"),
        (Laplace(scale=-1.0), "schedule.scale = -1.0"),
        (Laplace(scale=math.inf), "schedule.scale = inf"),
        (VE(sigma_max=0.0), "schedule.sigma_max = 0.0"),
    ],
)
def test_values_out_of_range_are_refused_by_name(config, words):
    with pytest.raises(ConfigError, match=words):
        config.build()


@pytest.mark.parametrize("config", SHIFTED.values(), ids=SHIFTED)
@pytest.mark.parametrize("shift", [math.nan, math.inf, -math.inf, 21.0])
def test_a_shift_that_is_no_such_number_is_refused(config, shift):
    with pytest.raises(ConfigError, match=f"schedule.shift = {shift}"):
        config(shift=shift).build()


@pytest.mark.parametrize(
    "config",
    [
        Sigmoid(tau=0.01),
        Sigmoid(start=50.0, end=60.0),
        Laplace(scale=20.0),
        Linear(beta_last=0.999),
        Linear(beta_first=1e-18),
    ],
    ids=str,
)
def test_a_table_with_steps_that_add_no_noise_is_refused(config):
    with pytest.raises(ConfigError, match="choose milder values"):
        config.build()


def test_like_brings_levels_to_the_images():
    x = torch.zeros(2, 3, 4, 4)
    pair = Level(torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)).like(x)
    assert pair.alpha.shape == (2, 1, 1, 1) and pair.alpha.dtype == torch.float32
    one = Level(torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)).like(x)
    assert one.sigma.shape == () and one.sigma.dtype == torch.float32
