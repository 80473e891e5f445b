import dataclasses
import math

import pytest
import torch

from kao.diffusion import SCHEDULES, DiscreteSchedule, Level, Linear
from kao.diffusion.weights import (
    P2,
    WEIGHTS,
    EDMWeight,
    MinSNR,
    SigmoidWeight,
    SoftMinSNR,
    TruncatedSNR,
)
from kao.errors import ConfigError

MADE = {name: entry() for name, entry in WEIGHTS.items() if entry is not None}
weights = pytest.mark.parametrize("weight", MADE.values(), ids=MADE.keys())


def levels() -> Level:
    """The thousand levels of DDPM: snr from 10,000 to 0.00004."""
    return Linear().build()(torch.arange(1, 1001, dtype=torch.float64))


def level_of(*log10_snr: float) -> Level:
    """Variance-preserving levels of given snr."""
    snr = 10 ** torch.tensor(log10_snr, dtype=torch.float64)
    return Level((snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt())


def test_each_weight_is_the_formula_of_its_paper():
    level = levels()
    snr = level.snr
    eps_loss = {  # on the error of eps, which is snr times that of x_0
        MinSNR(3.0): torch.minimum(snr, torch.full_like(snr, 3.0)) / snr,
        SoftMinSNR(3.0): 1 / (1 + snr / 3),
        P2(2.0, 0.5): 1 / (2 + snr).sqrt(),
        P2(): 1 / (1 + snr),
        P2(1.0, 0.0): torch.ones_like(snr),
        EDMWeight(0.25): 1 + 16 / snr,
        SigmoidWeight(1.5): 1 / (1 + (snr.log() - 1.5).exp()),
        TruncatedSNR(): torch.maximum(snr, torch.ones_like(snr)) / snr,
        TruncatedSNR(0.5): torch.maximum(snr, torch.full_like(snr, 0.5)) / snr,
    }
    for weight, expected in eps_loss.items():
        torch.testing.assert_close(weight(level) / snr, expected, rtol=1e-9, atol=0)


def test_min_snr_is_the_snr_up_to_gamma():
    level = levels()
    weight = MinSNR(5.0)(level)
    assert torch.equal(weight, torch.minimum(level.snr, torch.full_like(level.snr, 5.0)))
    assert (weight == 5).any() and (weight < 5).any()


def test_a_floor_counts_at_the_noisy_end_alone():
    level = levels()
    plain, floored = MinSNR(5.0)(level), MinSNR(5.0, floor=0.1)(level)
    noisy = level.snr < 0.1
    assert noisy.any() and (~noisy).any()
    assert (floored[noisy] == 0.1).all()
    assert torch.equal(floored[~noisy], plain[~noisy])
    assert torch.equal(MinSNR(1e9, floor=1.0)(level), TruncatedSNR(1.0)(level))


def test_soft_min_snr_lies_below_both_and_within_a_half_of_the_smaller():
    level = levels()
    soft, hard = SoftMinSNR(5.0)(level), MinSNR(5.0)(level)
    assert (soft < hard).all() and (soft >= hard / 2 * (1 - 1e-12)).all()


def test_the_edm_weight_is_the_loss_weight_of_the_edm_paper_where_alpha_is_one():
    sigma = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    expected = (sigma**2 + 0.5**2) / (sigma * 0.5) ** 2
    torch.testing.assert_close(EDMWeight(0.5)(Level(torch.ones_like(sigma), sigma)), expected)


def test_the_sigmoid_weight_halves_the_eps_loss_where_log_snr_is_the_bias():
    level = level_of(-1.0 / math.log(10))
    torch.testing.assert_close(SigmoidWeight(-1.0)(level), level.snr / 2)


def test_the_sigmoid_weight_is_soft_min_snr_of_gamma_exp_bias():
    level = levels()
    torch.testing.assert_close(SigmoidWeight(0.7)(level), SoftMinSNR(math.exp(0.7))(level))


def test_the_truncated_snr_makes_the_larger_of_the_two_losses():
    level = levels()
    error_of_x0 = torch.rand(1000, generator=torch.Generator().manual_seed(0)).double()
    error_of_eps = level.snr * error_of_x0
    torch.testing.assert_close(
        TruncatedSNR()(level) * error_of_x0, torch.maximum(error_of_x0, error_of_eps)
    )


@weights
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_weights_are_finite_and_never_negative_on_every_schedule(weight, schedule):
    curve = SCHEDULES[schedule]().build()
    first = 1.0 if isinstance(curve, DiscreteSchedule) else 1e-15 * curve.t_max
    t = torch.linspace(first, curve.t_max, 101, dtype=torch.float64)
    value = weight(curve(t))
    assert value.shape == t.shape and value.dtype == torch.float64
    assert value.isfinite().all() and (value >= 0).all() and (value > 0).any()


@weights
def test_weights_are_finite_from_no_signal_to_hardly_any_noise(weight):
    none, unit = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for level in (Level(none, unit), Level(unit, unit * 1e-100), Level(unit * 1e-100, unit)):
        assert weight(level).isfinite().all() and (weight(level) >= 0).all()


@pytest.mark.parametrize(
    ("weight", "limit"),
    [
        (MinSNR(5.0), 5.0),
        (SoftMinSNR(5.0), 5.0),
        (P2(), 1.0),
        (P2(gamma=2.0), 0.0),
        (SigmoidWeight(2.0), math.exp(2.0)),
    ],
)
def test_bounded_weights_have_their_limit_at_the_clean_image(weight, limit):
    clean = Level(torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    assert weight(clean).item() == pytest.approx(limit)


@weights
def test_a_single_level_has_a_single_weight(weight):
    level = Linear().build()(torch.tensor(300.0, dtype=torch.float64))
    assert weight(level).shape == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (MinSNR(), MinSNR(4.0)),
        (MinSNR(), MinSNR(floor=0.1)),
        (SoftMinSNR(), SoftMinSNR(4.0)),
        (P2(), P2(k=2.0)),
        (P2(), P2(gamma=0.5)),
        (EDMWeight(), EDMWeight(0.4)),
        (SigmoidWeight(), SigmoidWeight(1.0)),
        (TruncatedSNR(), TruncatedSNR(2.0)),
    ],
)
def test_every_option_of_every_weight_changes_it(one, other):
    assert not torch.equal(one(levels()), other(levels()))


def test_weights_have_options_that_can_all_be_left_out():
    for weight in MADE.values():
        assert dataclasses.is_dataclass(weight)
        assert type(weight)(**dataclasses.asdict(weight)) == weight


BAD = {
    MinSNR: {"gamma": (0.0, -1.0, math.inf), "floor": (-0.1, 5.1)},
    SoftMinSNR: {"gamma": (0.0, -1.0, math.inf)},
    P2: {"k": (0.0, -1.0, math.inf), "gamma": (-0.5, math.inf)},
    EDMWeight: {"sigma_data": (0.0, -1.0, math.inf)},
    SigmoidWeight: {"bias": (-101.0, 101.0, math.inf)},
    TruncatedSNR: {"floor": (0.0, -1.0, math.inf)},
}


@pytest.mark.parametrize(
    ("weight", "option", "value"),
    [(w, o, v) for w, options in BAD.items() for o, vs in options.items() for v in (*vs, math.nan)],
)
def test_options_out_of_range_are_refused_by_name(weight, option, value):
    with pytest.raises(ConfigError, match=f"weight.{option} = {value}"):
        weight(**{option: value})


def test_every_option_of_every_weight_has_a_range():
    for weight in MADE.values():
        assert set(BAD[type(weight)]) == {field.name for field in dataclasses.fields(weight)}
