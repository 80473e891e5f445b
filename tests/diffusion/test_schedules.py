import math

import pytest
import torch

from kao.diffusion import SCHEDULES, VE, Cosine, DiscreteSchedule, Level, Linear, ScaledLinear
from kao.errors import ConfigError

schedules = pytest.mark.parametrize("schedule", [c() for c in SCHEDULES.values()], ids=SCHEDULES)


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
    reachable = log_snr > curve(torch.tensor(float(curve.t_max), dtype=torch.float64)).snr.log()
    log_snr = log_snr[reachable]
    assert len(log_snr) > 20
    torch.testing.assert_close(curve(curve.time_at(log_snr)).snr.log(), log_snr, rtol=0, atol=1e-9)


@schedules
def test_time_at_stops_at_the_ends(schedule):
    curve = schedule.build()
    ends = curve.time_at(torch.tensor([math.inf, -math.inf], dtype=torch.float64))
    expected = torch.tensor([0.0, curve.t_max], dtype=torch.float64)
    torch.testing.assert_close(ends, expected, rtol=1e-12, atol=1e-12)


@schedules
def test_labels_are_finite_and_rise_with_time(schedule):
    curve = schedule.build()
    t = torch.linspace(0, curve.t_max, 101, dtype=torch.float64)[1:]
    label = curve.label(t)
    assert torch.all(label.isfinite()) and torch.all(label[1:] > label[:-1])


def test_networks_are_told_the_index_of_the_original_ddpm_code():
    t = torch.tensor([1.0, 1000.0], dtype=torch.float64)
    assert Linear().build().label(t).tolist() == [0, 999]


def test_networks_on_ve_are_told_c_noise_in_thousandths():
    t = torch.tensor([0.5, 7.0], dtype=torch.float64)
    torch.testing.assert_close(VE().build().label(t) / 1000, t.log() / 4)


def test_networks_on_continuous_schedules_are_told_thousandths_of_the_whole():
    t = torch.tensor([0.25, 1.0], dtype=torch.float64)
    for name in ("flow", "vp_cosine"):
        assert SCHEDULES[name]().build().label(t).tolist() == [250, 1000]


def test_the_discrete_table_is_the_running_product_of_one_minus_beta():
    schedule = DiscreteSchedule(torch.tensor([0.1, 0.5, 0.2]))
    alpha, sigma = schedule(torch.arange(4, dtype=torch.float64))
    expected = torch.tensor([1, 0.9, 0.45, 0.36], dtype=torch.float64)
    torch.testing.assert_close(alpha**2, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(sigma**2, 1 - expected, rtol=0, atol=1e-8)


def test_between_whole_times_abar_is_linear():
    schedule = Linear().build()
    alpha = schedule(torch.tensor([10.0, 10.25, 11.0], dtype=torch.float64)).alpha
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
    ("config", "words"),
    [
        (Linear(steps=1), "schedule.steps = 1"),
        (ScaledLinear(steps=0), "schedule.steps = 0"),
        (Cosine(steps=-5), "schedule.steps = -5"),
        (Linear(beta_first=0.0), "schedule.beta_first = 0.0"),
        (Linear(beta_last=1.0), "schedule.beta_last = 1.0"),
        (ScaledLinear(beta_last=math.nan), "schedule.beta_last = nan"),
        (Cosine(beta_limit=2.0), "schedule.beta_limit = 2.0"),
        (Cosine(offset=-0.1), "schedule.offset = -0.1"),
        (VE(sigma_max=0.0), "schedule.sigma_max = 0.0"),
    ],
)
def test_values_out_of_range_are_refused_by_name(config, words):
    with pytest.raises(ConfigError, match=words):
        config.build()


def test_like_brings_levels_to_the_images():
    x = torch.zeros(2, 3, 4, 4)
    pair = Level(torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)).like(x)
    assert pair.alpha.shape == (2, 1, 1, 1) and pair.alpha.dtype == torch.float32
    one = Level(torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)).like(x)
    assert one.sigma.shape == () and one.sigma.dtype == torch.float32
