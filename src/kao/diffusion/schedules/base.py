"""What every schedule is: a curve from times to levels, and a configuration that makes it."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from kao.errors import ConfigError


class Level(NamedTuple):
    """A noise level, eq. (1) of the package: float64 on the CPU until `like` is called.

    Attributes:
        alpha: Signal scale, shape () or (B,), in [0, 1].
        sigma: Noise standard deviation, same shape, >= 0.
    """

    alpha: Tensor
    sigma: Tensor

    @property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio alpha^2 / sigma^2 for data of unit variance; inf if sigma = 0."""
        return (self.alpha / self.sigma) ** 2

    def like(self, x: Tensor) -> "Level":
        """Bring the level to `x`'s device and dtype, shaped to broadcast over `x`, (B, ...)."""
        return Level(like(self.alpha, x), like(self.sigma, x))


def like(coefficient: Tensor, x: Tensor) -> Tensor:
    """Bring a coefficient to `x`'s device and dtype, shaped to broadcast over `x`, (B, ...).

    The only place in the package where one changes dtype or rank.

    Args:
        coefficient: Shape () or (B,).
        x: (B, ...).
    """
    rank = (1,) * (x.ndim - 1) * (coefficient.ndim > 0)
    return coefficient.to(x).reshape(coefficient.shape + rank)


class NoiseSchedule(ABC):
    """The curve t -> (alpha_t, sigma_t).  A new schedule is one method and one attribute.

    Attributes:
        t_max: The noisiest time, in the schedule's own unit; the cleanest is 0.
    """

    t_max: float

    @abstractmethod
    def __call__(self, t: Tensor) -> Level:
        """The level at time `t`.

        Args:
            t: Times in [0, t_max], float64 on the CPU, shape () or (B,).

        Returns:
            Level whose two fields have the shape of `t`; (1, 0) at t = 0, exactly.
        """

    def time_at(self, log_snr: Tensor) -> Tensor:
        """The time whose log(alpha^2 / sigma^2) is `log_snr`, by bisection.

        Good to the last digits of float64; override it where a closed form exists.

        Args:
            log_snr: Natural logarithm, float64, any shape; inf is the clean image, -inf pure
                noise.

        Returns:
            Times in [0, t_max], float64, same shape: the nearer end where the schedule does
            not reach `log_snr`.
        """
        low, high = torch.zeros_like(log_snr), torch.full_like(log_snr, self.t_max)
        for _ in range(64):
            mid = (low + high) / 2
            too_clean = self(mid).snr.log() > log_snr
            low, high = torch.where(too_clean, mid, low), torch.where(too_clean, high, mid)
        return low

    def label(self, t: Tensor) -> Tensor:
        """What a network is told about time `t`: 0..1000 from clean to noise.

        Timestep embeddings (Ho et al. 2020) are made for numbers of this size.

        Args:
            t: Times in (0, t_max], float64, shape () or (B,).

        Returns:
            float64, same shape.
        """
        return 1000 * t / self.t_max


class ScheduleConfig(Protocol):
    """A frozen dataclass that describes a schedule."""

    def build(self) -> NoiseSchedule:
        """Make the schedule.

        Raises:
            ConfigError: A value is out of range; the message names it.
        """


def check_shift(shift: float) -> None:
    """Raise ConfigError unless `shift` is one that float64 levels survive.

    Beyond 20 an image of 64 pixels would be noised like one of a million.
    """
    if not -20 <= shift <= 20:
        raise ConfigError(
            f"schedule.shift = {shift}, but what is added to the log-snr lies between -20 and 20: "
            f"2 log(64 / size) is customary, such as -1.39 for 128 pixels."
        )
