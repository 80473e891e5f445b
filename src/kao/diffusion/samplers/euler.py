"""Euler's method along the probability-flow ODE, plain, with churn, or partly random."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kao.diffusion.denoiser import Denoise
from kao.diffusion.noise import Noise
from kao.diffusion.samplers.base import Sampler
from kao.diffusion.samplers.churn import Churning
from kao.diffusion.samplers.exponential import hold
from kao.errors import ConfigError


@dataclass(frozen=True)
class Euler(Churning):
    """Euler's method on x / alpha as a function of sigma / alpha, with d = x / alpha - x_0.

    With alpha = 1 this is algorithm 2 of Karras et al. (2022) without its correction; written
    without division by alpha, it may start at pure noise.  Without churn it equals DDIM(eta=0)
    in exact arithmetic, except where x_0 is clipped: DDIM then keeps eps as predicted, and
    Euler takes it from x_t and the clipped x_0.

    Attributes:
        churn, churn_min, churn_max, churn_noise: As in `Churning`.

    Raises:
        ConfigError: A value is out of range.
    """

    def onward(self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Move `x` from `t` to `s`; see `Churning.onward`."""
        return hold(x, denoise(x, t).x0, denoise.schedule(t), denoise.schedule(s))


@dataclass(frozen=True)
class EulerAncestral(Sampler):
    """Euler's method to below s, then noise back up to s: "Euler a" of the k-diffusion library.

    With r = sigma / alpha the noise that is put back has, in units of alpha_s,

        r_up = eta r_s sqrt(1 - (r_s / r_t)^2),      r_down^2 = r_s^2 - r_up^2.

    In exact arithmetic eta = 1 is the ancestral sampler with beta_tilde, and eta = 0 is Euler;
    between them it is DDIM(eta), but for taking eps from x_t and the clipped x_0 as Euler does.

    Attributes:
        eta: In [0, 1].

    Raises:
        ConfigError: eta is outside [0, 1].
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an eta that would need noise of negative variance."""
        if not 0 <= self.eta <= 1:
            raise ConfigError(
                f"sampler.eta = {self.eta}, but it lies between 0 (deterministic) and 1 (as "
                f"random as DDPM)."
            )

    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` to `s`; see `Sampler.step`."""
        here, there = denoise.schedule(t), denoise.schedule(s)
        x0 = denoise(x, t).x0
        q = here.alpha * there.sigma / (there.alpha * here.sigma)  # r_s / r_t
        up = self.eta * there.sigma * (1 - q**2).sqrt()
        down = (there.sigma**2 - up**2).sqrt()
        x = hold(x, x0, here, there._replace(sigma=down))
        return (x if up == 0 else x + up * noise(x)), None
