"""Data of which everything is known: independent pixels N(mean, std^2)."""

import torch
from torch import Tensor

from kao.diffusion import NoiseSchedule, Prediction


class Gaussian:
    """The exact denoiser of Gaussian data, and the exact solution of its probability-flow ODE."""

    def __init__(self, schedule: NoiseSchedule, *, mean: float = 0.3, std: float = 0.5):
        self.schedule, self.mean, self.std = schedule, mean, std

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        alpha, sigma = self.schedule(t).like(x)
        residual = (x - alpha * self.mean) / (alpha**2 * self.std**2 + sigma**2)
        return Prediction(self.mean + alpha * self.std**2 * residual, sigma * residual)

    def law(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of x_t."""
        alpha, sigma = self.schedule(t)
        return alpha * self.mean, alpha**2 * self.std**2 + sigma**2

    def path(self, z: Tensor, t: Tensor) -> Tensor:
        """Where the ODE carries the standardised coordinate `z`, which it keeps fixed."""
        mean, variance = self.law(t)
        return mean + variance.sqrt() * z


def scalar(value: float) -> Tensor:
    """A time, as samplers get it."""
    return torch.tensor(value, dtype=torch.float64)
