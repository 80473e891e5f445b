"""Training losses: where on the schedule, how much each level weighs, which norm.

Published losses are weights w on |x0_hat - x_0|^2, functions of snr = alpha^2 / sigma^2.  Plain
MSE on a network's output y = a x_0 + b eps has w = (det / sigma)^2, det = alpha b - sigma a:

    eps MSE (DDPM "simple")   snr              v MSE (VP)            snr + 1
    x0 MSE                    1                velocity MSE (flow)   (1 + sqrt(snr))^2
    EDM                       snr + 1/sd^2     Min-SNR-gamma         min(snr, gamma)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kao.diffusion.denoiser import Denoiser, determinant
from kao.diffusion.schedules import DiscreteSchedule, Level, NoiseSchedule
from kao.errors import ConfigError

Times = Callable[[int, torch.Generator], Tensor]
"""Draws B training times from a CPU generator: float64, (B,), in (0, t_max]."""

Weight = Callable[[Level], Tensor]
"""Weight on the squared error of x_0: level -> float64 of its shape, >= 0 and finite."""

Norm = Callable[[Tensor], Tensor]
"""Penalty of a residual, element by element."""


def uniform(schedule: NoiseSchedule, *, stratified: bool = True) -> Times:
    """Times spread evenly: over 1..T on a discrete schedule, over (0, t_max] on others.

    Args:
        schedule: Whose times.
        stratified: Draw one time in each B-th part of the range, in random order, so that no
            batch misses a noise band; the aim of Kingma et al. (2021), appendix I.1.  Each
            image's own time is uniform either way.

    Returns:
        The draw.
    """

    def draw(batch: int, generator: torch.Generator) -> Tensor:
        u = torch.rand(batch, generator=generator, dtype=torch.float64)
        if stratified:
            u = (torch.randperm(batch, generator=generator) + u) / batch
        # (B - 1 + u) / B may round up to 1, which is outside [0, 1).
        u = u.clamp(max=1 - 2**-53)
        if isinstance(schedule, DiscreteSchedule):
            return 1 + (u * schedule.t_max).floor()
        return schedule.t_max * (1 - u)

    return draw


@dataclass(frozen=True)
class MinSNR:
    """min(snr, gamma): nearly clean images weigh no more than gamma (Hang et al. 2023).

    Attributes:
        gamma: Above 0; 5 in the paper.

    Raises:
        ConfigError: gamma is not a positive number.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        """Refuse a gamma that weighs nothing."""
        if not 0 < self.gamma < math.inf:
            raise ConfigError(
                f"weight.gamma = {self.gamma}, but it must be a positive number: 5 is customary."
            )

    def __call__(self, level: Level) -> Tensor:
        """The weight at `level`."""
        return level.snr.clamp(max=self.gamma)


def l2(residual: Tensor) -> Tensor:
    """r^2."""
    return residual.square()


def l1(residual: Tensor) -> Tensor:
    """|r|."""
    return residual.abs()


@dataclass(frozen=True)
class Huber:
    """r^2 / 2 up to delta, then the tangent line delta (|r| - delta / 2) (Huber 1964).

    Attributes:
        delta: Where the parabola ends, in units of the network's output, above 0.

    Raises:
        ConfigError: delta is not a positive number.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a delta that leaves no parabola."""
        if not 0 < self.delta < math.inf:
            raise ConfigError(
                f"norm.delta = {self.delta}, but it must be a positive number: 1 is customary."
            )

    def __call__(self, residual: Tensor) -> Tensor:
        """The penalty of each element."""
        near = residual.abs().clamp(max=self.delta)
        return near * (residual.abs() - near / 2)


@dataclass(frozen=True)
class Mixed:
    """share |r| + (1 - share) r^2.

    Attributes:
        share: How much of the penalty is L1, in [0, 1].

    Raises:
        ConfigError: share is outside [0, 1].
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if not 0 <= self.share <= 1:
            raise ConfigError(
                f"norm.share = {self.share}, but the share of L1 lies between 0 and 1: "
                f"0 is all L2, 1 is all L1."
            )

    def __call__(self, residual: Tensor) -> Tensor:
        """The penalty of each element."""
        return self.share * l1(residual) + (1 - self.share) * l2(residual)


class Losses(NamedTuple):
    """The loss of each image, and where on the schedule it was taken.

    Attributes:
        value: Mean penalty of each image, (B,), in the images' dtype and on their device.
        level: Noise level of each image, fields (B,), float64 on the CPU.
    """

    value: Tensor
    level: Level


@dataclass(frozen=True)
class DenoisingLoss:
    """Weighted regression on the denoiser's target.

    Attributes:
        times: Where on the schedule to train.
        weight: Weight on the squared error of x_0.  None: the plain mean of the norm over
            whatever the network outputs, which is what most papers write.  With a norm other
            than `l2` the same factor multiplies that norm.
        norm: Penalty of the residual in the network's output.
    """

    times: Times
    weight: Weight | None = None
    norm: Norm = l2

    def __call__(
        self, denoiser: Denoiser, x0: Tensor, condition: Any, generator: torch.Generator
    ) -> Losses:
        """Loss of each image at a random time.

        Args:
            denoiser: The model under training.
            x0: Clean images or latents, (B, C, H, W), float32.
            condition: Whatever the network takes.
            generator: Source of t and eps, on the CPU: the same seed draws the same loss
                on every device.

        Returns:
            Values and levels, in batch order.
        """
        t = self.times(len(x0), generator)
        eps = torch.randn(x0.shape, generator=generator).to(x0)
        level = denoiser.schedule(t)
        alpha, sigma = level.like(x0)
        a, b = denoiser.target(level.like(x0))
        y = denoiser.output(alpha * x0 + sigma * eps, t, condition)
        value = self.norm(y - (a * x0 + b * eps)).flatten(1).mean(1)
        if self.weight is not None:
            # MSE on y already weighs x_0 by (det / sigma)^2; divide that out, put ours in.
            natural = (determinant(level, denoiser.target) / level.sigma) ** 2
            value = value * (self.weight(level) / natural).to(value)
        return Losses(value, level)


WEIGHTS: dict[str, type[MinSNR] | None] = {"plain": None, "min_snr": MinSNR}

NORMS: dict[str, Norm | type[Huber] | type[Mixed]] = {
    "l2": l2,
    "l1": l1,
    "huber": Huber,
    "mixed": Mixed,
}
"""A function has no options; a class is instantiated with them."""
