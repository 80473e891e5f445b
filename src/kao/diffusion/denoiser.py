"""From a network to a prediction of the clean image and the noise.

Samplers and losses see `Prediction`s only, so they work with any schedule, target and network.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from kao.diffusion.schedules import Level, NoiseSchedule
from kao.diffusion.targets import Target
from kao.errors import ConfigError


class Prediction(NamedTuple):
    """What a network knows about x_t.

    Both halves are kept because samplers clip one and not the other.

    Attributes:
        x0: Predicted clean image, (B, C, H, W), in the units of the data ([-1, 1] for pixels).
        eps: Predicted noise, same shape, unit variance.
    """

    x0: Tensor
    eps: Tensor


def determinant(level: Level, target: Target) -> Tensor:
    """Determinant of the 2 x 2 matrix of `targets`: alpha b - sigma a.

    Plain MSE on y weighs the squared error of x_0 by (det / sigma)^2.

    Args:
        level: Any level, shape () or (B,) or broadcastable to images.
        target: What y means.

    Returns:
        Same shape and dtype as the level's fields.
    """
    a, b = target(level)
    return level.alpha * b - level.sigma * a


def solve(x: Tensor, y: Tensor, level: Level, target: Target) -> Prediction:
    """Invert the 2 x 2 system of `targets`: (x_t, y) -> (x_0, eps).

    Args:
        x: Noisy images at `level`, (B, C, H, W).
        y: The network's outputs, same shape.
        level: Brought to `x` by `Level.like`.
        target: What y means.

    Returns:
        The prediction; not finite where the determinant is 0.
    """
    a, b = target(level)
    det = determinant(level, target)
    return Prediction((b * x - level.sigma * y) / det, (level.alpha * y - a * x) / det)


class Denoise(Protocol):
    """Anything samplers can integrate: a Denoiser, a guided one, a closed form in a test."""

    schedule: NoiseSchedule

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict (x_0, eps) from `x` (B, C, H, W) at time `t`, float64, shape () or (B,)."""


class Denoiser(nn.Module):
    """A network, told what it sees (schedule) and what it says (target).

    Args:
        network: Called as network(x, label, condition) -> y; x and y are (B, C, H, W),
            label is float32 (B,).
        schedule: The levels it is trained on.
        target: What y means.
        sigma_data: Standard deviation of the data.  If given, inputs are divided by
            sqrt(alpha^2 sigma_data^2 + sigma^2) (c_in of Karras et al. 2022); if None, they are
            left alone.
        label: What the network is told about the time.  None: the schedule's own `label`.

    Raises:
        ConfigError: Where the schedule ends, x_0 cannot be told from (x, y): the eps target on
            a schedule that ends in pure noise.  Or sigma_data is not a positive number.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        target: Target,
        *,
        sigma_data: float | None = None,
        label: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        _refuse_singular(schedule, target)
        if sigma_data is not None and not 0 < sigma_data < math.inf:
            raise ConfigError(
                f"sigma_data = {sigma_data}, but the data's standard deviation is a positive "
                f"number: 0.5 fits most pictures in [-1, 1]."
            )
        self.network, self.schedule, self.target = network, schedule, target
        self.sigma_data = sigma_data
        self.label = schedule.label if label is None else label

    def output(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """The network's raw output y.

        Args:
            x: Noisy images, (B, C, H, W).
            t: Times, float64 on the CPU, shape () or (B,).
            condition: Whatever the network takes.

        Returns:
            (B, C, H, W), in the units of the target and in `x`'s dtype: autocast ends here.
        """
        label = self.label(t).to(x.device, torch.float32).expand(len(x))
        scaled = x
        if self.sigma_data is not None:
            alpha, sigma = self.schedule(t).like(x)
            scaled = x / (alpha**2 * self.sigma_data**2 + sigma**2).sqrt()
        return self.network(scaled, label, condition).to(x.dtype)

    def forward(self, x: Tensor, t: Tensor, condition: Any = None) -> Prediction:
        """Predict (x_0, eps); arguments as in `output`."""
        y = self.output(x, t, condition)
        return solve(x, y, self.schedule(t).like(x), self.target)


def _refuse_singular(schedule: NoiseSchedule, target: Target) -> None:
    """Raise ConfigError if (x, y) do not determine x_0 at the schedule's noisiest level.

    The discrete cosine table ends at a determinant of 5e-5 for eps, which float32 still
    inverts; schedules that end in pure noise give less than 1e-16.
    """
    end = schedule(torch.tensor(float(schedule.t_max), dtype=torch.float64))
    det = determinant(end, target).item()
    if abs(det) < 1e-6:
        name = getattr(target, "__name__", repr(target))
        raise ConfigError(
            f"The {name} target does not go with {type(schedule).__name__}: at its last level "
            f"(alpha = {end.alpha:.2g}, sigma = {end.sigma:.2g}) the clean image cannot be "
            f"recovered from it; choose the v or velocity target, or another schedule."
        )
