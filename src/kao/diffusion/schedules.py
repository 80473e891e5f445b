"""Noise schedules: how much signal and how much noise there is at time t.

Everything in this package describes a noisy image as

    x_t = alpha_t * x_0 + sigma_t * eps,      eps ~ N(0, I),                    (1)

and a schedule is the curve t -> (alpha_t, sigma_t).  t = 0 is clean; t = t_max is (almost)
noise; in between alpha / sigma falls.  The unit of t is the schedule's own, the one its
paper uses: 1..T for DDPM, [0, 1] for flows, sigma itself for EDM.

    DDPM (discrete)   alpha = sqrt(abar_t)     sigma = sqrt(1 - abar_t)    t in 0..T
    VP cosine         alpha = cos(pi t / 2)    sigma = sin(pi t / 2)       t in [0, 1]
    VE, EDM           alpha = 1                sigma = t                   t in [0, 80]
    rectified flow    alpha = 1 - t            sigma = t                   t in [0, 1]

Below the curves stand their configurations, one frozen dataclass a name in `SCHEDULES`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from kao.errors import ConfigError


class Level(NamedTuple):
    """A noise level, eq. (1): float64 on the CPU until `like` is called.

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
        """Bring the level to `x`'s device and dtype, shaped to broadcast over `x`, (B, ...).

        The only place in the package where a coefficient changes dtype or rank.
        """

        def fit(c: Tensor) -> Tensor:
            return c.to(x).reshape(c.shape + (1,) * (x.ndim - 1) * (c.ndim > 0))

        return Level(fit(self.alpha), fit(self.sigma))


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
            log_snr: Natural logarithm, float64, any shape.

        Returns:
            Times in [0, t_max], float64, same shape: the nearer end where the schedule does
            not reach `log_snr`.
        """
        low, high = torch.zeros_like(log_snr), torch.full_like(log_snr, self.t_max)
        for _ in range(64):
            mid = (low + high) / 2
            too_clean = self(mid).snr.log() > log_snr
            low, high = torch.where(too_clean, mid, low), torch.where(too_clean, high, mid)
        return (low + high) / 2

    def label(self, t: Tensor) -> Tensor:
        """What a network is told about time `t`: 0..1000 from clean to noise.

        Timestep embeddings (Ho et al. 2020) are made for numbers of this size.

        Args:
            t: Times in (0, t_max], float64, shape () or (B,).

        Returns:
            float64, same shape.
        """
        return 1000 * t / self.t_max


class DiscreteSchedule(NoiseSchedule):
    """The DDPM chain: abar_t = prod_{i<=t} (1 - beta_i) for t = 0..T, with abar_0 = 1.

    t counts as in Ho et al. (2020), 1..T with 0 for the clean image.  The table is built and
    kept in float64; at whole t it is read, not computed, and between whole t abar is linear.

    Args:
        betas: The T forward-process variances in time order, (T,), in (0, 1).

    Attributes:
        abar: The table, (T + 1,), float64.
        t_max: T.
    """

    def __init__(self, betas: Tensor):
        abar = (1 - betas.double()).cumprod(0)
        self.abar = torch.cat([abar.new_ones(1), abar])
        self.t_max = len(betas)

    def __call__(self, t: Tensor) -> Level:
        """The level at time `t`; see `NoiseSchedule.__call__`."""
        i = t.floor().clamp(0, self.t_max - 1).long()
        abar = torch.lerp(self.abar[i], self.abar[i + 1], t - i)
        return Level(abar.sqrt(), (1 - abar).sqrt())

    def label(self, t: Tensor) -> Tensor:
        """The 0-based index t - 1, on which published DDPM weights were trained."""
        return t - 1


class VPCosineSchedule(NoiseSchedule):
    """Variance preserving, on the unit circle: alpha = cos(pi t / 2), sigma = sin(pi t / 2).

    The continuous limit of the cosine schedule (Salimans & Ho 2022, sec. 2).  It ends in pure
    noise.
    """

    t_max = 1.0

    def __call__(self, t: Tensor) -> Level:
        """The level at time `t`; see `NoiseSchedule.__call__`."""
        angle = math.pi / 2 * t
        return Level(angle.cos(), angle.sin())

    def time_at(self, log_snr: Tensor) -> Tensor:
        """The inverse in closed form, by tan(pi t / 2) = sigma / alpha."""
        return 2 / math.pi * (-log_snr / 2).exp().atan()


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
    """

    t_max = 1.0

    def __call__(self, t: Tensor) -> Level:
        """The level at time `t`; see `NoiseSchedule.__call__`."""
        return Level(1 - t, t)

    def time_at(self, log_snr: Tensor) -> Tensor:
        """The inverse in closed form, by t / (1 - t) = sigma / alpha."""
        return (-log_snr / 2).sigmoid()


class ScheduleConfig(Protocol):
    """A frozen dataclass that describes a schedule."""

    def build(self) -> NoiseSchedule:
        """Make the schedule.

        Raises:
            ConfigError: A value is out of range; the message names it.
        """


def _check_steps(steps: int) -> None:
    if steps < 2:
        raise ConfigError(
            f"schedule.steps = {steps}, but a chain needs at least 2 steps: 1000 is customary."
        )


def _check_beta(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(
            f"schedule.{name} = {value}, but a forward-process variance lies between 0 and 1 "
            f"(both excluded): leave it out to take the published value."
        )


@dataclass(frozen=True)
class Linear:
    """Betas in equal steps (Ho et al. 2020, sec. 4).

    The two ends are used as given whatever `steps` is, so a chain much shorter than 1000
    keeps signal at its end: raise `beta_last` along with it.

    Attributes:
        steps: T, at least 2.
        beta_first, beta_last: Variances of the first and the last step, in (0, 1).
    """

    steps: int = 1000
    beta_first: float = 1e-4
    beta_last: float = 0.02

    def build(self) -> DiscreteSchedule:
        """Make the schedule.

        Raises:
            ConfigError: Fewer than 2 steps, or a beta outside (0, 1).
        """
        _check_steps(self.steps)
        _check_beta("beta_first", self.beta_first)
        _check_beta("beta_last", self.beta_last)
        return DiscreteSchedule(
            torch.linspace(self.beta_first, self.beta_last, self.steps, dtype=torch.float64)
        )


@dataclass(frozen=True)
class ScaledLinear:
    """Square roots of betas in equal steps, as in latent diffusion (Rombach et al. 2022).

    Attributes:
        steps: T, at least 2.
        beta_first, beta_last: Variances of the first and the last step, in (0, 1).
    """

    steps: int = 1000
    beta_first: float = 0.00085
    beta_last: float = 0.012

    def build(self) -> DiscreteSchedule:
        """Make the schedule.

        Raises:
            ConfigError: Fewer than 2 steps, or a beta outside (0, 1).
        """
        _check_steps(self.steps)
        _check_beta("beta_first", self.beta_first)
        _check_beta("beta_last", self.beta_last)
        first, last = math.sqrt(self.beta_first), math.sqrt(self.beta_last)
        return DiscreteSchedule(torch.linspace(first, last, self.steps, dtype=torch.float64) ** 2)


@dataclass(frozen=True)
class Cosine:
    """abar_t = f(t) / f(0), f(t) = cos^2(pi/2 (t/T + s) / (1 + s)); Nichol & Dhariwal 2021, eq. 17.

    Attributes:
        steps: T, at least 2.
        offset: s, at least 0: keeps the first betas from being too small to learn from.
        beta_limit: Largest beta, in (0, 1): keeps the last step from erasing all signal.
    """

    steps: int = 1000
    offset: float = 0.008
    beta_limit: float = 0.999

    def build(self) -> DiscreteSchedule:
        """Make the schedule.

        Raises:
            ConfigError: Fewer than 2 steps, a negative offset, or a limit outside (0, 1).
        """
        _check_steps(self.steps)
        _check_beta("beta_limit", self.beta_limit)
        if not 0 <= self.offset < math.inf:
            raise ConfigError(
                f"schedule.offset = {self.offset}, but the cosine schedule's offset is a number "
                f"from 0 up: 0.008 is the published value."
            )
        fraction = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        f = (math.pi / 2 * (fraction + self.offset) / (1 + self.offset)).cos() ** 2
        return DiscreteSchedule((1 - f[1:] / f[:-1]).clamp(max=self.beta_limit))


@dataclass(frozen=True)
class VPCosine:
    """The cosine schedule in continuous time; it has no options."""

    def build(self) -> VPCosineSchedule:
        """Make the schedule."""
        return VPCosineSchedule()


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
    """The rectified flow; it has no options."""

    def build(self) -> FlowSchedule:
        """Make the schedule."""
        return FlowSchedule()


SCHEDULES: dict[str, type[ScheduleConfig]] = {
    "linear": Linear,
    "scaled_linear": ScaledLinear,
    "cosine": Cosine,
    "vp_cosine": VPCosine,
    "ve": VE,
    "flow": Flow,
}
