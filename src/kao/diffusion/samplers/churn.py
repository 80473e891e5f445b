"""Churn: a little new noise before each step (Karras et al. 2022, algorithm 2)."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kao.diffusion.denoiser import Denoise
from kao.diffusion.noise import Noise
from kao.diffusion.posterior import forward_variance
from kao.diffusion.samplers.base import Sampler
from kao.errors import ConfigError

MOST = math.sqrt(2) - 1
"""The largest share: with it a step's new noise has the variance of the noise there was."""


@dataclass(frozen=True)
class Churning(Sampler):
    """What samplers with churn share: before each step, x_t is raised to a noisier time.

    Its ratio r = sigma / alpha becomes (1 + churn) r.  New noise undoes errors of earlier steps at
    the price of more of the step to come.  Images at pure noise stay as they are; where the
    schedule ends before (1 + churn) r, they are raised to its end.

    Attributes:
        churn: Share of noise added before each step, the paper's S_churn / steps, in
            [0, sqrt(2) - 1]; 0 adds none and draws none.  It must shrink with the steps for the
            error to vanish.
        churn_min, churn_max: Ratios sigma / alpha between which it is added,
            0 <= churn_min < churn_max.
        churn_noise: Standard deviation of what is added, the paper's S_noise, above 0; 1 keeps
            the law.

    Raises:
        ConfigError: A value is out of range.
    """

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = 1e6
    churn_noise: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what algorithm 2 does not allow."""
        if not 0 <= self.churn <= MOST:
            raise ConfigError(
                f"sampler.churn = {self.churn}, but it is the share of noise added a step, from 0 "
                f"(none) to sqrt(2) - 1 = 0.4142: divide the paper's S_churn by the steps."
            )
        if not 0 <= self.churn_min < self.churn_max < math.inf:
            raise ConfigError(
                f"sampler.churn_min = {self.churn_min} and sampler.churn_max = {self.churn_max}, "
                f"but they are ratios sigma / alpha with 0 <= churn_min < churn_max: 0 and 1e6 "
                f"mean always."
            )
        if not 0 < self.churn_noise < math.inf:
            raise ConfigError(
                f"sampler.churn_noise = {self.churn_noise}, but a standard deviation is a positive "
                f"number: 1 keeps the law, and 1.003 to 1.007 are published."
            )

    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` up, by churn, and then to `s`; see `Sampler.step`."""
        x, t = self._raised(denoise, x, t, noise)
        return self.onward(denoise, x, t, s), None

    @abstractmethod
    def onward(self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Move `x` from `t` to `s` without randomness; arguments as in `Sampler.step`."""

    def _raised(
        self, denoise: Denoise, x: Tensor, t: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """`x` (B, C, H, W) with churn, and its time, >= `t`."""
        here = denoise.schedule(t)
        ratio = here.sigma / here.alpha
        if self.churn == 0 or not self.churn_min <= ratio <= self.churn_max:
            return x, t
        raised = denoise.schedule.time_at(-2 * (ratio * (1 + self.churn)).log())
        if raised <= t:
            return x, t
        there = denoise.schedule(raised)
        std = self.churn_noise * forward_variance(there, here).sqrt()
        return there.alpha / here.alpha * x + std * noise(x), raised
