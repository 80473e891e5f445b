"""Which schedule a table of betas is: one that has a name here, or the table itself."""

import torch
from torch import Tensor

from kao.diffusion import (
    Betas,
    Cosine,
    DiscreteSchedule,
    Linear,
    ScaledLinear,
    ScheduleConfig,
    Sigmoid,
)
from kao.errors import ConfigError

_CLOSE = 1e-4
"""Largest relative difference of betas that were rounded to float32 on their way.

Where that was in the middle of a formula, 1000 steps of the sigmoid curve are off by 1.3e-5.
"""


def named(betas: Tensor) -> ScheduleConfig:
    """The schedule that has these betas: by its name where a formula gives them.

    Args:
        betas: In time order, (T,), of any floating dtype.

    Raises:
        ConfigError: They are no variances of a chain.
    """
    if betas.ndim != 1 or len(betas) < 2 or not betas.is_floating_point():
        raise ConfigError(
            f"A table of betas is a line of at least 2 numbers, and this one has the shape "
            f"{tuple(betas.shape)}."
        )
    betas = betas.double()
    table = Betas(tuple(betas.tolist()))
    table.build()
    for config in _candidates(len(betas), betas[0].item(), betas[-1].item()):
        if _has(config, betas):
            return config
    return table


def _has(config: ScheduleConfig, betas: Tensor) -> bool:
    """Whether a schedule has these betas; one that cannot be built has none."""
    try:
        schedule = config.build()
    except ConfigError:  # a ramp between the ends of another curve may leave no signal
        return False
    assert isinstance(schedule, DiscreteSchedule)
    return torch.allclose(betas_of(schedule), betas, rtol=_CLOSE, atol=0)


def _candidates(steps: int, first: float, last: float) -> list[ScheduleConfig]:
    candidates: list[ScheduleConfig] = [Cosine(steps=steps), Sigmoid(steps=steps)]
    if last < 1:  # the ends of a ramp, which are kept as they are usually written
        first, last = float(f"{first:.6g}"), float(f"{last:.6g}")
        candidates = [Linear(steps, first, last), ScaledLinear(steps, first, last), *candidates]
    return candidates


def without_signal(betas: Tensor) -> Tensor:
    """Betas of the same chain, moved to end in pure noise (Lin et al. 2024, algorithm 1).

    Args:
        betas: float64, (T,).

    Returns:
        Same shape and dtype; the last is 1.
    """
    root = (1 - betas).cumprod(0).sqrt()
    abar = (root[0] * (root - root[-1]) / (root[0] - root[-1])) ** 2
    return 1 - abar / torch.cat([abar.new_ones(1), abar[:-1]])


def betas_of(schedule: DiscreteSchedule) -> Tensor:
    """The T variances of a chain, float64, (T,): 1 - abar_t / abar_(t-1)."""
    return 1 - schedule.abar[1:] / schedule.abar[:-1]
