"""The optimiser and its learning rate."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from kao.errors import ConfigError


class RateSchedule(Protocol):
    """The learning rate as a share of its peak."""

    def __call__(self, images: int, done: float) -> float:
        """The share, 0..1, for the step that starts after `images` images.

        Args:
            images: Images seen.
            done: Share of the run's length that is behind, 0..1.
        """


def _check_warmup(warmup: int) -> None:
    if warmup < 0:
        raise ConfigError(f"optimizer.schedule.warmup = {warmup}; expected 0 images or more.")


def _warm_up(images: int, warmup: int) -> float:
    return min(1.0, (images + 1) / warmup) if warmup else 1.0


@dataclass(frozen=True)
class Trapezoid:
    """Linear warm-up, flat, then a linear cool-down to zero at the end (Zhai et al. 2022).

    Attributes:
        warmup: Images over which the rate rises.
        cooldown: Share of the run, at its end, over which it falls; 0 keeps it flat.

    Raises:
        ConfigError: warmup is negative, or cooldown is no share.
    """

    warmup: int = 3_200
    cooldown: float = 0.4

    def __post_init__(self) -> None:
        """Refuse what is no number of images, or no share."""
        _check_warmup(self.warmup)
        if not 0 <= self.cooldown <= 1:
            raise ConfigError(
                f"optimizer.schedule.cooldown = {self.cooldown}; expected a share of the run, "
                f"0 to 1."
            )

    def __call__(self, images: int, done: float) -> float:
        """See `RateSchedule`."""
        left = (1 - done) / self.cooldown if self.cooldown else 1.0
        return min(_warm_up(images, self.warmup), max(0.0, left))


@dataclass(frozen=True)
class CosineRate:
    """Linear warm-up, then half a cosine down to zero (Loshchilov & Hutter 2017, eq. 5).

    Attributes:
        warmup: Images over which the rate rises.

    Raises:
        ConfigError: warmup is negative.
    """

    warmup: int = 3_200

    def __post_init__(self) -> None:
        """Refuse what is no number of images."""
        _check_warmup(self.warmup)

    def __call__(self, images: int, done: float) -> float:
        """See `RateSchedule`."""
        return _warm_up(images, self.warmup) * (1 + math.cos(math.pi * min(1.0, done))) / 2


RATES = {"trapezoid": Trapezoid, "cosine": CosineRate}


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019).

    Attributes:
        rate: Peak learning rate.
        betas: Decay of the first and second moments.
        weight_decay: Decoupled weight decay.
        clip_norm: Largest norm of all gradients together; 0 leaves gradients alone.
        schedule: How the rate moves over the run.
    """

    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    schedule: RateSchedule = field(default=Trapezoid(), metadata={"registry": RATES})

    def check(self) -> None:
        """Raise a ConfigError for a value outside its range."""
        if not self.rate > 0:
            raise ConfigError(f"optimizer.rate = {self.rate}; expected more than 0, e.g. 1e-3.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(
                f"optimizer.betas = {list(self.betas)}; expected two numbers, 0 or more, below 1."
            )
        if not (self.weight_decay >= 0 and self.clip_norm >= 0):  # also refuses nan
            raise ConfigError(
                f"optimizer.weight_decay = {self.weight_decay} and clip_norm = {self.clip_norm} "
                f"must be 0 or more."
            )

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser, with its rate at the peak; the trainer sets it at each step.

        Raises:
            ConfigError: A value is outside its range.
        """
        self.check()
        return torch.optim.AdamW(
            parameters,
            lr=self.rate,
            betas=self.betas,
            weight_decay=self.weight_decay,
            fused=True,
        )
