import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from kao.errors import ConfigError
from kao.training import OptimizerConfig
from kao.training.optimizers import ScheduleFree
from kao.training.rates import Constant, InverseSqrt, Trapezoid


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": 0.0}, "optimizer.rate = 0.0; expected a finite number above 0, e.g. 1e-3."),
        ({"rate": math.inf}, "optimizer.rate = inf; expected a finite number above 0"),
        ({"rate": math.nan}, "optimizer.rate = nan; expected a finite number above 0"),
        ({"betas": (0.9, 1.0)}, "optimizer.betas = [0.9, 1.0]; expected two numbers, 0 or more,"),
        ({"betas": (-0.1, 0.9)}, "optimizer.betas = [-0.1, 0.9]; expected"),
        ({"weight_decay": -1.0}, "optimizer.weight_decay = -1.0 must be 0 or more"),
        ({"clip_norm": -1.0}, "clip_norm = -1.0 must be 0 or more, and finite."),
    ],
)
def test_a_value_outside_its_range_is_refused_with_words(changes, words):
    with pytest.raises(ConfigError) as caught:
        replace(OptimizerConfig(), **changes).build([("weight", nn.Parameter(torch.zeros(1)))])
    assert words in str(caught.value)


def test_the_optimiser_has_the_values_of_its_configuration():
    config = OptimizerConfig(rate=3e-4, betas=(0.8, 0.95), weight_decay=0.2)
    (group,) = config.build([("weight", nn.Parameter(torch.zeros(1)))]).param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-4, (0.8, 0.95), 0.2)


def test_the_first_step_is_adamw_s():
    # Loshchilov & Hutter (2019), algorithm 2: after one step m_hat / sqrt(v_hat) is the sign.
    weight = nn.Parameter(torch.tensor([2.0, -3.0]))
    optimizer = OptimizerConfig(rate=0.1, weight_decay=0.5).build([("weight", weight)])
    weight.grad = torch.tensor([0.3, 7.0])
    optimizer.step()
    expected = [2.0 * (1 - 0.1 * 0.5) - 0.1, -3.0 * (1 - 0.1 * 0.5) - 0.1]
    assert weight.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["weight_decay", "clip_norm"])
def test_what_is_not_a_number_is_refused(name, value):
    with pytest.raises(ConfigError, match="must be 0 or more"):
        OptimizerConfig(**{name: value}).check()


@pytest.mark.parametrize("schedule", [Trapezoid(), InverseSqrt(), Constant()])
def test_schedule_free_takes_a_rate_that_stays_and_no_other(schedule):
    config = OptimizerConfig(method=ScheduleFree(), schedule=schedule)
    if isinstance(schedule, Constant):
        config.check()
    else:
        with pytest.raises(ConfigError, match=r'set optimizer\.schedule = "constant"'):
            config.check()


def test_schedule_free_takes_a_trapezoid_that_does_not_cool_down():
    OptimizerConfig(method=ScheduleFree(), schedule=Trapezoid(cooldown=0.0)).check()
