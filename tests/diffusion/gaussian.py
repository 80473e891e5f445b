"""Data of which everything is known: independent pixels N(mean, std^2)."""

from itertools import pairwise

import torch
from torch import Tensor

from kao.diffusion import NoiseSchedule, Prediction, trajectory
from kao.diffusion.posterior import forward_variance


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


class EndOfPath:
    """A consistency function: its x_0 is where the path of Gaussian data through x_t ends."""

    def __init__(self, data: Gaussian):
        self.data, self.schedule = data, data.schedule

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        mean, variance = self.data.law(t)
        end = self.data.mean + self.data.std * (x - mean) / variance.sqrt()
        return self.data(x, t)._replace(x0=end)


class KnownVariance:
    """Gaussian data with the share of the variance of x_s given x_t that a network may learn.

    Nichol & Dhariwal (2021), eq. 15, solved for the share; the steps are those of a known grid.
    """

    def __init__(self, data: Gaussian, times: Tensor):
        self.data, self.schedule = data, data.schedule
        self.next = dict(pairwise(times.tolist()))

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        here, there = self.schedule(t), self.schedule(scalar(self.next[t.item()]))
        beta = forward_variance(here, there)
        tilde = beta * there.sigma**2 / here.sigma**2
        (_, var_t), (_, var_s) = self.data.law(t), self.data.law(scalar(self.next[t.item()]))
        exact = var_s - (here.alpha / there.alpha * var_s) ** 2 / var_t
        share = (exact / tilde).log() / (beta / tilde).log() if there.sigma > 0 else scalar(0)
        return self.data(x, t)._replace(variance=torch.ones_like(x) * share)


def law_after(denoise, sampler, times: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the images a sampler ends with, without a random number.

    On Gaussian data the end is affine in the start and every noise drawn.  The batch is a basis
    of these: image 0 has none of them, image 1 a unit start, and image 2 + k the k-th noise.
    """
    drawn = 0

    def unit(x: Tensor) -> Tensor:
        nonlocal drawn
        noise = torch.zeros_like(x)
        noise[2 + drawn] = 1
        drawn += 1
        return noise

    x = torch.zeros(2 + 2 * len(times), 1, 1, 1, dtype=torch.float64)
    x[1] = 1
    for end in trajectory(denoise, sampler, x, times, noise=unit):
        x = end
    coefficients = x[1:] - x[0]
    mean, variance = getattr(denoise, "data", denoise).law(times[0])
    return (
        (x[0] + coefficients[0] * mean).squeeze(),
        coefficients[0].squeeze() ** 2 * variance + coefficients[1:].square().sum(),
    )


def scalar(value: float) -> Tensor:
    """A time, as samplers get it."""
    return torch.tensor(value, dtype=torch.float64)
