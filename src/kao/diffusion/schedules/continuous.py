"""Schedules in continuous time, and their configurations.

A `shift` is added to the log-snr at every time; so sigma / alpha is multiplied by exp(-shift / 2)
and the pair is scaled back to where it was: onto the unit circle, or onto alpha + sigma = 1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kao.diffusion.schedules.base import Level, NoiseSchedule, check_shift
from kao.errors import ConfigError


class VPCosineSchedule(NoiseSchedule):
    """Variance preserving, on the unit circle: alpha = cos(pi t / 2), sigma = sin(pi t / 2).

    The continuous limit of the cosine schedule (Salimans & Ho 2022, sec. 2).  It ends in pure
    noise.

    Args:
        shift: Added to the log-snr (Hoogeboom et al. 2023, sec. 3.1), in [-20, 20].
    """

    t_max = 1.0

    def __init__(self, shift: float = 0.0):
        self.shift = shift

    def __call__(self, t: Tensor) -> Level:
        """The level at time `t`; see `NoiseSchedule.__call__`."""
        k = math.exp(-self.shift / 2)
        angle = math.pi / 2 * t
        cos, sin = angle.cos(), angle.sin()
        # From the angle of (cos, sin) to that of (cos, k sin); their difference is 0 for k = 1.
        angle = angle + torch.atan2((k - 1) * sin * cos, cos**2 + k * sin**2)
        return Level(angle.cos(), angle.sin())

    def time_at(self, log_snr: Tensor) -> Tensor:
        """The inverse in closed form, by tan(pi t / 2) = sigma / alpha before the shift."""
        return 2 / math.pi * (-(log_snr - self.shift) / 2).exp().atan()


class VESchedule(NoiseSchedule):
    """Variance exploding, in EDM's units (Karras et al. 2022): alpha = 1, sigma = t.

    Args:
        sigma_max: The largest noise standard deviation, in units of the data.
    """

    def __init__(self, sigma_max: float = 80.0):
        self.t_max = sigma_max

    def __call__(self, t: Tensor) -> Level:
        """The level at time `t`; see `NoiseSchedule.__call__`."""
        return Level(torch.ones_like(t), t)

    def time_at(self, log_snr: Tensor) -> Tensor:
        """The inverse in closed form: sigma = snr^(-1/2)."""
        return (-log_snr / 2).exp().clamp(max=self.t_max)

    def label(self, t: Tensor) -> Tensor:
        """c_noise = log(sigma) / 4 of Karras et al. (2022), table 1, in thousandths."""
        return 250 * t.log()


class FlowSchedule(NoiseSchedule):
    """Rectified flow / conditional OT (Liu et al. 2022, Lipman et al. 2022), time reversed.

    alpha = 1 - t, sigma = t: straight lines from the clean image to pure noise.

    Args:
        shift: Added to the log-snr, in [-20, 20]; the time shift by a factor s of Esser et al.
            (2024), eq. 23, is shift = -2 log s.
    """

    t_max = 1.0

    def __init__(self, shift: float = 0.0):
        self.shift = shift

    def __call__(self, t: Tensor) -> Level:
        """The level at time `t`; see `NoiseSchedule.__call__`."""
        k = math.exp(-self.shift / 2)
        # The sum (1 - t) + k t, as a lerp because that is exactly k at t = 1 and 1 for k = 1.
        total = torch.lerp(torch.ones_like(t), torch.full_like(t, k), t)
        return Level((1 - t) / total, k * t / total)

    def time_at(self, log_snr: Tensor) -> Tensor:
        """The inverse in closed form, by t / (1 - t) = sigma / alpha before the shift."""
        return (-(log_snr - self.shift) / 2).sigmoid()


@dataclass(frozen=True)
class VPCosine:
    """The cosine schedule in continuous time.

    Attributes:
        shift: Added to the log-snr (natural logarithm), in [-20, 20]; below 0 is noisier.
            Hoogeboom et al. (2023), sec. 3.1, take 2 log(64 / size).
    """

    shift: float = 0.0

    def build(self) -> VPCosineSchedule:
        """Make the schedule.

        Raises:
            ConfigError: The shift is out of range.
        """
        check_shift(self.shift)
        return VPCosineSchedule(self.shift)


@dataclass(frozen=True)
class VE:
    """The schedule of EDM.

    Attributes:
        sigma_max: The largest noise standard deviation, in units of the data, above 0.
    """

    sigma_max: float = 80.0

    def build(self) -> VESchedule:
        """Make the schedule.

        Raises:
            ConfigError: sigma_max is not a positive number.
        """
        if not 0 < self.sigma_max < math.inf:
            raise ConfigError(
                f"schedule.sigma_max = {self.sigma_max}, but the largest noise level must be a "
                f"positive number: 80 is the published value."
            )
        return VESchedule(self.sigma_max)


@dataclass(frozen=True)
class Flow:
    """The rectified flow.

    Attributes:
        shift: Added to the log-snr (natural logarithm), in [-20, 20]; below 0 is noisier.  The
            factor s of Esser et al. (2024), eq. 23, is shift = -2 log s: -2.2 for their s = 3.
    """

    shift: float = 0.0

    def build(self) -> FlowSchedule:
        """Make the schedule.

        Raises:
            ConfigError: The shift is out of range.
        """
        check_shift(self.shift)
        return FlowSchedule(self.shift)
