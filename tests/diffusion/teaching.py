"""Training times, and what they are taught, for the tests of times."""

import math

import pytest
import torch

from kao.diffusion import SCHEDULES, DiscreteSchedule, Flow
from kao.diffusion.times import LossMoment, Times, Warped

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
