"""Times whose density is fixed and is itself the objective."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kao.diffusion.schedules import DiscreteSchedule, NoiseSchedule
from kao.diffusion.times.base import Draw, Times, shares
from kao.errors import ConfigError


class FixedTimes(Times):
    """Times of a density that is itself the objective: every weight is 1.

    Args:
        schedule: Whose times.
        place: (schedule, u) -> times, float64, (B,): monotone in the shares u, in [0, 1).
        stratified: Whether the shares of a batch are stratified.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        place: Callable[[NoiseSchedule, Tensor], Tensor],
        *,
        stratified: bool,
    ):
        super().__init__(schedule)
        self.place, self.stratified = place, stratified

    def forward(self, batch: int, generator: torch.Generator) -> Draw:
        """Draw the times of a batch; see `Times.forward`."""
        t = self.place(self.schedule, shares(batch, generator, stratified=self.stratified))
        return Draw(t, torch.ones_like(t))


def place_uniform(schedule: NoiseSchedule, u: Tensor) -> Tensor:
    """Shares in [0, 1) to times even over 1..T, or over (0, t_max] on a continuous schedule."""
    if isinstance(schedule, DiscreteSchedule):
        return 1 + (u * schedule.t_max).floor()
    return schedule.t_max * (1 - u)


def place_logit_normal(schedule: NoiseSchedule, u: Tensor, *, mean: float, std: float) -> Tensor:
    """Shares in [0, 1) to times whose share of t_max is sigmoid(N(mean, std^2))."""
    share = (mean + std * _normal(u)).sigmoid()
    if isinstance(schedule, DiscreteSchedule):
        # As in uniform times, the whole time t of T stands for the shares in ((t - 1) / T, t / T].
        return (schedule.t_max * share).ceil().clamp(1, schedule.t_max)
    return schedule.t_max * share.clamp(min=2**-53)


def place_log_normal(schedule: NoiseSchedule, u: Tensor, *, mean: float, std: float) -> Tensor:
    """Shares in [0, 1) to times with ln(sigma / alpha) ~ N(mean, std^2).

    What lies beyond the schedule's ends goes to the ends; on a discrete schedule, to the nearest
    whole time.
    """
    t = schedule.time_at(-2 * (mean + std * _normal(u)))
    if isinstance(schedule, DiscreteSchedule):
        return t.round().clamp(1, schedule.t_max)
    return t.clamp(2**-53 * schedule.t_max, schedule.t_max)


def _normal(u: Tensor) -> Tensor:
    """Standard normal quantiles of shares in [0, 1), all finite: 0 is taken for 2^-54."""
    return torch.special.ndtri(u.clamp(min=2**-54))


@dataclass(frozen=True)
class Uniform:
    """Times spread evenly: over 1..T on a discrete schedule, over (0, t_max] on others.

    Attributes:
        stratified: Draw one time in each B-th part of the range; see `shares`.
    """

    stratified: bool = True

    def build(self, schedule: NoiseSchedule) -> FixedTimes:
        """Make the times of a schedule."""
        return FixedTimes(schedule, place_uniform, stratified=self.stratified)


@dataclass(frozen=True)
class LogitNormal:
    """t / t_max = sigmoid(N(mean, std^2)): mostly the middle (Esser et al. 2024, sec. 3.1).

    Made for the rectified flow, where it is the paper's rf/lognorm(mean, std).  Its density is the
    objective: the ends are drawn rarely, and nothing makes up for it.

    Attributes:
        mean: Of the normal law, finite; 0 is symmetric, below 0 is towards the clean image.
        std: Of the normal law, above 0; 1 in the paper's best run.
        stratified: Draw one time in each B-th part of the law; see `shares`.

    Raises:
        ConfigError: mean or std is out of range.
    """

    mean: float = 0.0
    std: float = 1.0
    stratified: bool = True

    def __post_init__(self) -> None:
        """Refuse what is no normal law."""
        _check_normal(self.mean, self.std, "0")

    def build(self, schedule: NoiseSchedule) -> FixedTimes:
        """Make the times of a schedule."""
        place = partial(place_logit_normal, mean=self.mean, std=self.std)
        return FixedTimes(schedule, place, stratified=self.stratified)


@dataclass(frozen=True)
class LogNormal:
    """ln(sigma / alpha) ~ N(mean, std^2), whatever the schedule (Karras et al. 2022, table 1).

    Its density is the objective.  What falls beyond the schedule's ends is drawn at the ends.

    Attributes:
        mean: P_mean, natural logarithm of a noise-to-signal ratio, finite; -1.2 in the paper.
        std: P_std, above 0; 1.2 in the paper.
        stratified: Draw one time in each B-th part of the law; see `shares`.

    Raises:
        ConfigError: mean or std is out of range.
    """

    mean: float = -1.2
    std: float = 1.2
    stratified: bool = True

    def __post_init__(self) -> None:
        """Refuse what is no normal law."""
        _check_normal(self.mean, self.std, "-1.2")

    def build(self, schedule: NoiseSchedule) -> FixedTimes:
        """Make the times of a schedule."""
        place = partial(place_log_normal, mean=self.mean, std=self.std)
        return FixedTimes(schedule, place, stratified=self.stratified)


def _check_normal(mean: float, std: float, customary: str) -> None:
    if not math.isfinite(mean):
        raise ConfigError(
            f"times.mean = {mean}, but the mean of a normal law must be a finite number: "
            f"{customary} is customary."
        )
    if not 0 < std < math.inf:
        raise ConfigError(
            f"times.std = {std}, but a standard deviation must be a positive number: 1 is "
            f"customary."
        )
