"""DDPM: walk the chain back by its posterior."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from kao.diffusion.denoiser import Denoise, Prediction
from kao.diffusion.noise import Noise
from kao.diffusion.posterior import forward_variance, posterior_log_variance, posterior_mean
from kao.diffusion.samplers.base import Sampler
from kao.diffusion.schedules import Level
from kao.errors import ConfigError


@dataclass(frozen=True)
class Ancestral(Sampler):
    """Draw from q(x_s | x_t, x_0) of Ho et al. (2020), between any two levels.

    The last step, to sigma = 0, returns the mean and draws nothing (their algorithm 2).

    Attributes:
        variance: "beta_tilde": the posterior's own, eq. 7, right for data that is one point;
            "beta": that of x_t given x_s, right for data that is N(0, I) (their sec. 3.2);
            "learned": between the two, as the network says (Nichol & Dhariwal 2021, eq. 15).

    Raises:
        ConfigError: variance is none of these; or, in `step`, it is to be learned and the
            denoiser predicts none.
    """

    variance: Literal["beta", "beta_tilde", "learned"] = "beta_tilde"

    def __post_init__(self) -> None:
        """Refuse another name."""
        if self.variance not in ("beta", "beta_tilde", "learned"):
            raise ConfigError(
                f'sampler.variance = {self.variance!r}, but the choices are "beta", "beta_tilde" '
                f'and "learned".'
            )

    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` to `s`; see `Sampler.step`."""
        here, there = denoise.schedule(t), denoise.schedule(s)
        prediction = denoise(x, t)
        mean = posterior_mean(x, prediction.x0, here, there)
        if there.sigma == 0:
            return mean, None
        return mean + self._std(prediction, here, there) * noise(x), None

    def _std(self, prediction: Prediction, t: Level, s: Level) -> Tensor:
        """Of x_s about its mean: shape (), or (B, C, H, W) if learned."""
        if self.variance == "learned":
            if prediction.variance is None:
                raise ConfigError(
                    'sampling.sampler.variance = "learned", but the network was trained without a '
                    'variance: choose "beta" or "beta_tilde", or train one with loss.bound = 0.001.'
                )
            return (posterior_log_variance(t, s, prediction.variance) / 2).exp()
        std = forward_variance(t, s).sqrt()
        return std * s.sigma / t.sigma if self.variance == "beta_tilde" else std
