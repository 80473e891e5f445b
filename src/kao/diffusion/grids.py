"""Decreasing times for samplers: float64, (steps + 1,), ending at 0."""

from collections.abc import Callable

import torch
from torch import Tensor

from kao.diffusion.schedules import DiscreteSchedule, NoiseSchedule
from kao.errors import ConfigError

Grid = Callable[[NoiseSchedule, int], Tensor]
"""(schedule, steps) -> decreasing times, float64, (steps + 1,), the last of them 0."""


def uniform(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Equal steps from t_max to 0; on a discrete schedule, rounded to whole times.

    Args:
        schedule: Whose times.
        steps: At least 1; at most T on a discrete schedule.

    Returns:
        Times, float64, (steps + 1,).

    Raises:
        ConfigError: steps is out of range.
    """
    _check_steps(schedule, steps)
    times = schedule.t_max * torch.arange(steps, -1, -1, dtype=torch.float64) / steps
    return times.round() if isinstance(schedule, DiscreteSchedule) else times


def trailing(schedule: NoiseSchedule, steps: int) -> Tensor:
    """The "trailing" spacing of Lin et al. (2024), table 2: it starts at T.

    Counting times from 1 with 0 for the clean image, this is `uniform`; the name is kept
    because the field knows it.  Arguments and errors are those of `uniform`.
    """
    return uniform(schedule, steps)


def leading(schedule: NoiseSchedule, steps: int) -> Tensor:
    """The "leading" spacing of DDPM and DDIM code (Lin et al. 2024, table 2).

    Times 1, 1 + T // steps, ... reversed: it starts below T, and its last step is from 1 to 0.

    Args:
        schedule: A discrete one.
        steps: In 1..T.

    Returns:
        Times, float64, (steps + 1,).

    Raises:
        ConfigError: steps is out of range, or the schedule is continuous.
    """
    _check_steps(schedule, steps)
    if not isinstance(schedule, DiscreteSchedule):
        raise ConfigError(
            f"The leading grid counts the steps of a discrete schedule, and "
            f"{type(schedule).__name__} is continuous: choose the uniform or the karras grid."
        )
    times = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (schedule.t_max // steps) + 1
    return torch.cat([times, times.new_zeros(1)])


def karras(
    schedule: NoiseSchedule,
    steps: int,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Tensor:
    """Karras et al. (2022), eq. 5, on the noise-to-signal ratio sigma / alpha.

    Placed by ratio rather than by time, so it means the same thing for every schedule.  On a
    discrete schedule times fall between whole numbers.

    Args:
        schedule: Whose times.
        steps: At least 1; at most T on a discrete schedule.
        sigma_min: Ratio of the last time before 0, or that of time 1 if a discrete schedule's
            is larger: no network is trained below it.
        sigma_max: Ratio of the first time, or that of t_max if it is smaller.
        rho: How much the steps crowd towards 0.

    Returns:
        Times, float64, (steps + 1,).

    Raises:
        ConfigError: steps is out of range.
    """
    _check_steps(schedule, steps)
    cleanest = 1.0 if isinstance(schedule, DiscreteSchedule) else 0.0
    ends = schedule(torch.tensor([cleanest, schedule.t_max], dtype=torch.float64))
    least, most = (ends.sigma / ends.alpha).tolist()
    first, last = min(sigma_max, most), max(sigma_min, least)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    ratio = (first ** (1 / rho) * (1 - ramp) + last ** (1 / rho) * ramp) ** rho
    return torch.cat([schedule.time_at(-2 * ratio.log()), ratio.new_zeros(1)])


def _check_steps(schedule: NoiseSchedule, steps: int) -> None:
    if steps < 1:
        raise ConfigError(f"A sampler needs at least 1 step, and steps = {steps}.")
    if isinstance(schedule, DiscreteSchedule) and steps > schedule.t_max:
        raise ConfigError(
            f"steps = {steps}, but the schedule has {schedule.t_max} times to visit: "
            f"ask for {schedule.t_max} steps or fewer."
        )


GRIDS: dict[str, Grid] = {
    "uniform": uniform,
    "leading": leading,
    "trailing": trailing,
    "karras": karras,
}
