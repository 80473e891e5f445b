import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from kao.errors import ConfigError
from kao.training import RATES, CosineRate, OptimizerConfig, Trapezoid


@pytest.mark.parametrize(
    ("images", "done", "share"),
    [
        (0, 0.0, 1 / 100),
        (49, 0.0, 50 / 100),
        (99, 0.0, 1.0),
        (5000, 0.3, 1.0),
        (5000, 0.6, 1.0),
        (5000, 0.8, 0.5),
        (5000, 0.9, 0.25),
        (5000, 1.0, 0.0),
        # A run so short that it cools down before it is warm.
        (19, 0.8, 20 / 100),
        (49, 0.98, 0.05),
    ],
)
def test_a_trapezoid_rises_stays_and_falls(images, done, share):
    assert Trapezoid(warmup=100, cooldown=0.4)(images, done) == pytest.approx(share)


@pytest.mark.parametrize("done", [0.0, 0.5, 1.0])
def test_a_trapezoid_without_cooldown_stays_flat(done):
    assert Trapezoid(warmup=0, cooldown=0.0)(1, done) == 1


def test_a_trapezoid_that_is_all_cooldown_is_a_triangle():
    rate = Trapezoid(warmup=0, cooldown=1.0)
    assert [rate(0, done) for done in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]


@pytest.mark.parametrize("done", [0.0, 0.1, 0.5, 0.75, 1.0])
def test_a_cosine_rate_is_half_a_cosine(done):
    # Loshchilov & Hutter (2017), eq. 5, with eta_min = 0.
    expected = (1 + math.cos(math.pi * done)) / 2
    assert CosineRate(warmup=0)(1_000, done) == pytest.approx(expected)


def test_a_cosine_rate_warms_up_first():
    assert CosineRate(warmup=1000)(249, 0.5) == pytest.approx(0.25 * 0.5)


@pytest.mark.parametrize("name", RATES)
def test_every_rate_is_a_share_and_ends_at_zero(name):
    rate = RATES[name]()
    shares = [rate(1_000_000 * k // 100, k / 100) for k in range(101)]
    assert all(0 <= share <= 1 for share in shares)
    assert max(shares) > 0.9
    assert shares[-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", RATES)
def test_every_rate_is_above_zero_at_the_first_step(name):
    assert RATES[name]()(0, 0.0) > 0


@pytest.mark.parametrize("rate", [Trapezoid, CosineRate])
def test_a_negative_warmup_is_refused(rate):
    with pytest.raises(ConfigError, match=r"warmup = -1; expected 0 images or more\."):
        rate(warmup=-1)


@pytest.mark.parametrize("cooldown", [-0.1, 1.5, math.nan])
def test_a_cooldown_that_is_no_share_is_refused(cooldown):
    with pytest.raises(ConfigError, match=r"cooldown = .*; expected a share of the run, 0 to 1\."):
        Trapezoid(cooldown=cooldown)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": 0.0}, "optimizer.rate = 0.0; expected more than 0, e.g. 1e-3."),
        ({"rate": math.nan}, "optimizer.rate = nan; expected more than 0"),
        ({"betas": (0.9, 1.0)}, "optimizer.betas = [0.9, 1.0]; expected two numbers, 0 or more,"),
        ({"betas": (-0.1, 0.9)}, "optimizer.betas = [-0.1, 0.9]; expected"),
        ({"weight_decay": -1.0}, "optimizer.weight_decay = -1.0 and clip_norm = 1.0 must be 0 or"),
        ({"clip_norm": -1.0}, "clip_norm = -1.0 must be 0 or more."),
    ],
)
def test_a_value_outside_its_range_is_refused_with_words(changes, words):
    with pytest.raises(ConfigError) as caught:
        replace(OptimizerConfig(), **changes).build([nn.Parameter(torch.zeros(1))])
    assert words in str(caught.value)


def test_the_optimiser_has_the_values_of_its_configuration():
    config = OptimizerConfig(rate=3e-4, betas=(0.8, 0.95), weight_decay=0.2)
    (group,) = config.build([nn.Parameter(torch.zeros(1))]).param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-4, (0.8, 0.95), 0.2)


def test_the_first_step_is_adamw_s():
    # Loshchilov & Hutter (2019), algorithm 2: after one step m_hat / sqrt(v_hat) is the sign.
    weight = nn.Parameter(torch.tensor([2.0, -3.0]))
    optimizer = OptimizerConfig(rate=0.1, weight_decay=0.5).build([weight])
    weight.grad = torch.tensor([0.3, 7.0])
    optimizer.step()
    expected = [2.0 * (1 - 0.1 * 0.5) - 0.1, -3.0 * (1 - 0.1 * 0.5) - 0.1]
    assert weight.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["weight_decay", "clip_norm"])
def test_what_is_not_a_number_is_refused(name):
    with pytest.raises(ConfigError, match="must be 0 or more"):
        OptimizerConfig(**{name: float("nan")}).check()
