"""DDPM: walk the chain back by its posterior."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from kao.diffusion.denoiser import Denoise
from kao.diffusion.noise import Noise
from kao.diffusion.samplers.base import Sampler
from kao.diffusion.schedules import Level
from kao.errors import ConfigError


def forward_variance(t: Level, s: Level) -> Tensor:
    """Variance of x_t given x_s, for any two levels s < t; beta_t if t = s + 1 in DDPM."""
    return t.sigma**2 - (t.alpha / s.alpha * s.sigma) ** 2


def posterior_mean(x_t: Tensor, x0: Tensor, t: Level, s: Level) -> Tensor:
    """E[x_s | x_t, x_0], Ho et al. (2020), eq. 7, for any two levels s < t.

    Args:
        x_t: Images at level `t`, (B, C, H, W).
        x0: Clean images, same shape.
        t: The noisier level, fields of shape ().
        s: The cleaner level, fields of shape ().

    Returns:
        (B, C, H, W).
    """
    ratio = t.alpha / s.alpha
    return (ratio * s.sigma**2 * x_t + s.alpha * forward_variance(t, s) * x0) / t.sigma**2


@dataclass(frozen=True)
class Ancestral(Sampler):
    """Draw from q(x_s | x_t, x_0) of Ho et al. (2020), between any two levels.

    The last step, to sigma = 0, returns the mean and draws nothing (their algorithm 2).

    Attributes:
        variance: "beta_tilde": the posterior's own, eq. 7, right for data that is one point;
            "beta": that of x_t given x_s, right for data that is N(0, I) (their sec. 3.2).

    Raises:
        ConfigError: variance is neither.
    """

    variance: Literal["beta", "beta_tilde"] = "beta_tilde"

    def __post_init__(self) -> None:
        """Refuse another name, which would pass for "beta"."""
        if self.variance not in ("beta", "beta_tilde"):
            raise ConfigError(
                f'sampler.variance = {self.variance!r}, but the choices are "beta" and '
                f'"beta_tilde".'
            )

    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` to `s`; see `Sampler.step`."""
        here, there = denoise.schedule(t), denoise.schedule(s)
        mean = posterior_mean(x, denoise(x, t).x0, here, there)
        if there.sigma == 0:
            return mean, None
        std = forward_variance(here, there).sqrt()
        if self.variance == "beta_tilde":
            std = std * there.sigma / here.sigma
        return mean + std * noise(x), None
