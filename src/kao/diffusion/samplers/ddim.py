"""DDIM: a first-order step along the probability-flow ODE, or partly random."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kao.diffusion.denoiser import Denoise
from kao.diffusion.noise import Noise
from kao.diffusion.samplers.base import Sampler
from kao.errors import ConfigError


@dataclass(frozen=True)
class DDIM(Sampler):
    """Song et al. (2021a), eq. 12, for any two levels.

    Attributes:
        eta: In [0, 1].  0: deterministic; 1: DDPM with the smaller variance, beta_tilde.

    Raises:
        ConfigError: eta is outside [0, 1].
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an eta that would need noise of negative variance."""
        if not 0 <= self.eta <= 1:
            raise ConfigError(
                f"sampler.eta = {self.eta}, but it lies between 0 (deterministic) and 1 (DDPM)."
            )

    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` to `s`; see `Sampler.step`."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = denoise.schedule(t), denoise.schedule(s)
        prediction = denoise(x, t)
        std = self.eta * sigma_s * (1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2).sqrt()
        mean = alpha_s * prediction.x0 + (sigma_s**2 - std**2).sqrt() * prediction.eps
        return (mean if std == 0 else mean + std * noise(x)), None
