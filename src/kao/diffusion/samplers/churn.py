"""Churn: a little new noise before each step (Karras et al. 2022, algorithm 2)."""

import math
from dataclasses import dataclass

from torch import Tensor

from kao.diffusion.noise import Noise
from kao.diffusion.posterior import forward_variance
from kao.diffusion.schedules import NoiseSchedule
from kao.errors import ConfigError

MOST = math.sqrt(2) - 1


@dataclass(frozen=True)
class Churn:
    """Raise the noise of x_t from ratio r = sigma / alpha to (1 + gamma) r, by adding some.

    It undoes errors of earlier steps at the price of more of the step to come.  Images at pure
    noise, or where the schedule ends before (1 + gamma) r, are left alone or raised to its end.

    Attributes:
        gamma: The share added, in [0, sqrt(2) - 1]; 0 adds none and draws none.
        least, most: Ratios sigma / alpha between which it acts, 0 <= least < most.
        noise: Standard deviation of the noise that is added, above 0; 1 keeps the law.

    Raises:
        ConfigError: A value is out of range; the message names the sampler's option.
    """

    gamma: float
    least: float
    most: float
    noise: float

    def __post_init__(self) -> None:
        """Refuse what algorithm 2 does not allow."""
        if not 0 <= self.gamma <= MOST:
            raise ConfigError(
                f"sampler.churn = {self.gamma}, but it is the share of noise added a step, from 0 "
                f"(none) to sqrt(2) - 1 = 0.4142: divide the paper's S_churn by the steps."
            )
        if not 0 <= self.least < self.most < math.inf:
            raise ConfigError(
                f"sampler.churn_min = {self.least} and sampler.churn_max = {self.most}, but they "
                f"are ratios sigma / alpha with 0 <= churn_min < churn_max: 0 and 1e6 mean always."
            )
        if not 0 < self.noise < math.inf:
            raise ConfigError(
                f"sampler.churn_noise = {self.noise}, but a standard deviation is a positive "
                f"number: 1 keeps the law, and 1.003 to 1.007 are published."
            )

    def __call__(
        self, schedule: NoiseSchedule, x: Tensor, t: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Raise `x` (B, C, H, W) from time `t`; returns it and its new time, >= `t`."""
        here = schedule(t)
        ratio = here.sigma / here.alpha
        if self.gamma == 0 or not self.least <= ratio <= self.most:
            return x, t
        raised = schedule.time_at(-2 * (ratio * (1 + self.gamma)).log())
        if raised <= t:
            return x, t
        there = schedule(raised)
        std = self.noise * forward_variance(there, here).sqrt()
        return there.alpha / here.alpha * x + std * noise(x), raised
