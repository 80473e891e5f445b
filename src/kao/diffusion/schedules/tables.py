"""Configurations of the DDPM chain: the published tables of abar, and two changes to any of them.

Each configuration writes its paper's formula; `_finished` makes the two changes, in this order:

    zero_terminal_snr   the end is moved to pure noise        Lin et al. (2024), algorithm 1
    shift               log snr + shift at every time         Hoogeboom et al. (2023), sec. 3.1
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kao.diffusion.schedules.base import check_shift
from kao.diffusion.schedules.discrete import DiscreteSchedule, running_product
from kao.errors import ConfigError


@dataclass(frozen=True)
class Linear:
    """Betas in equal steps (Ho et al. 2020, sec. 4).

    The two ends are used as given whatever `steps` is, so a chain much shorter than 1000
    keeps signal at its end: raise `beta_last` along with it.

    Attributes:
        steps: T, at least 2.
        beta_first, beta_last: Variances of the first and the last step, in (0, 1).
        zero_terminal_snr: Move the end to pure noise, where the eps target cannot be used.
        shift: Added to the log-snr (natural logarithm), in [-20, 20]; below 0 is noisier.
    """

    steps: int = 1000
    beta_first: float = 1e-4
    beta_last: float = 0.02
    zero_terminal_snr: bool = False
    shift: float = 0.0

    def build(self) -> DiscreteSchedule:
        """Make the schedule.

        Raises:
            ConfigError: Fewer than 2 steps, or a beta or a shift out of range.
        """
        betas = _ramp(self.beta_first, self.beta_last, self.steps)
        return _finished(running_product(betas), self.zero_terminal_snr, self.shift)


@dataclass(frozen=True)
class ScaledLinear:
    """Square roots of betas in equal steps, as in latent diffusion (Rombach et al. 2022).

    Attributes:
        steps: T, at least 2.
        beta_first, beta_last: Variances of the first and the last step, in (0, 1).
        zero_terminal_snr, shift: As for `Linear`.
    """

    steps: int = 1000
    beta_first: float = 0.00085
    beta_last: float = 0.012
    zero_terminal_snr: bool = False
    shift: float = 0.0

    def build(self) -> DiscreteSchedule:
        """Make the schedule.

        Raises:
            ConfigError: Fewer than 2 steps, or a beta or a shift out of range.
        """
        betas = _ramp(self.beta_first, self.beta_last, self.steps, power=2)
        return _finished(running_product(betas), self.zero_terminal_snr, self.shift)


@dataclass(frozen=True)
class Cosine:
    """abar_t = f(t) / f(0), f(t) = cos^2(pi/2 (t/T + s) / (1 + s)); Nichol & Dhariwal 2021, eq. 17.

    Attributes:
        steps: T, at least 2.
        offset: s, at least 0: keeps the first betas from being too small to learn from.
        beta_limit: Largest beta, in (0, 1): keeps the last step from erasing all signal.
        zero_terminal_snr, shift: As for `Linear`.
    """

    steps: int = 1000
    offset: float = 0.008
    beta_limit: float = 0.999
    zero_terminal_snr: bool = False
    shift: float = 0.0

    def build(self) -> DiscreteSchedule:
        """Make the schedule.

        Raises:
            ConfigError: Fewer than 2 steps, a negative offset, or a limit or a shift out of
                range.
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
        return _finished(_limited(f, self.beta_limit), self.zero_terminal_snr, self.shift)


@dataclass(frozen=True)
class Sigmoid:
    """A stretch of the sigmoid, turned over: the gamma(t) of Chen (2023), "sigmoid schedule".

    With u = t / T and S(z) = 1 / (1 + exp(-z / tau)),

        abar_t = (S(end) - S(start + (end - start) u)) / (S(end) - S(start))

    and no less than 1e-9, as there.

    Attributes:
        steps: T, at least 2.
        start, end: Ends of the stretch, start < end.
        tau: Temperature, above 0: the smaller, the longer images stay nearly clean or nearly
            noise.
        beta_limit: Largest beta, in (0, 1): keeps the last step from erasing all signal, as in
            `Cosine`.
        zero_terminal_snr, shift: As for `Linear`.
    """

    steps: int = 1000
    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0
    beta_limit: float = 0.999
    zero_terminal_snr: bool = False
    shift: float = 0.0

    def build(self) -> DiscreteSchedule:
        """Make the schedule.

        Raises:
            ConfigError: Fewer than 2 steps; start not below end; tau, the limit or the shift out
                of range; or a stretch so flat that some step adds no noise.
        """
        _check_steps(self.steps)
        _check_beta("beta_limit", self.beta_limit)
        if not -math.inf < self.start < self.end < math.inf:
            raise ConfigError(
                f"schedule.start = {self.start} and schedule.end = {self.end}, but the stretch of "
                f"the sigmoid goes from one number up to a larger one: -3 and 3 are the published "
                f"values."
            )
        _check_positive("tau", self.tau, customary="1")
        fraction = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        curve = ((self.start + (self.end - self.start) * fraction) / self.tau).sigmoid()
        abar = ((curve[-1] - curve) / (curve[-1] - curve[0])).clamp(min=1e-9)
        return _finished(_limited(abar, self.beta_limit), self.zero_terminal_snr, self.shift)


@dataclass(frozen=True)
class Laplace:
    """Log-snr spread as a Laplace density: most times at middle noise (Hang et al. 2024, table 1).

        log snr = mean - scale sgn(0.5 - u) log(1 - 2 |u - 0.5|),      u in (0, 1)

    The T times take the middles u = (t - 0.5) / T of T equal shares, since u = 0 and u = 1 are
    infinitely far out.  So log snr runs from mean + scale log T to mean - scale log T, +-3.5 by
    default: signal is left at the end, which `zero_terminal_snr` takes away.

    Attributes:
        steps: T, at least 2.
        mean: mu, log-snr of the most frequent level.
        scale: b, above 0: mean distance of the log-snr from `mean`.
        zero_terminal_snr, shift: As for `Linear`; `shift` does what `mean` does, except after
            `zero_terminal_snr`.
    """

    steps: int = 1000
    mean: float = 0.0
    scale: float = 0.5
    zero_terminal_snr: bool = False
    shift: float = 0.0

    def build(self) -> DiscreteSchedule:
        """Make the schedule.

        Raises:
            ConfigError: Fewer than 2 steps; the mean, scale or shift out of range; or levels so
                far out that float64 takes them for clean.
        """
        _check_steps(self.steps)
        if not -math.inf < self.mean < math.inf:
            raise ConfigError(
                f"schedule.mean = {self.mean}, but the most frequent log-snr is a finite number: "
                f"0 is the published value."
            )
        _check_positive("scale", self.scale, customary="0.5")
        u = (torch.arange(self.steps, dtype=torch.float64) + 0.5) / self.steps
        log_snr = self.mean - self.scale * (0.5 - u).sign() * (1 - 2 * (u - 0.5).abs()).log()
        abar = torch.cat([u.new_ones(1), log_snr.sigmoid()])
        return _finished(abar, self.zero_terminal_snr, self.shift)


def _ddpm() -> tuple[float, ...]:
    """The betas of Ho et al. (2020), sec. 4."""
    return tuple(_ramp(1e-4, 0.02, 1000).tolist())


@dataclass(frozen=True)
class Betas:
    """A table that is written out, for chains of other people that follow no formula above.

    Attributes:
        betas: The T variances in time order, at least 2, in (0, 1); the last may be 1, for a chain
            that ends in pure noise.  The default is the table of `Linear`.
    """

    betas: tuple[float, ...] = field(default_factory=_ddpm)

    def build(self) -> DiscreteSchedule:
        """Make the schedule.

        Raises:
            ConfigError: Fewer than 2 betas, or one out of range, or so small that float64 does not
                see it.
        """
        if len(self.betas) < 2:
            raise ConfigError(
                f"schedule.betas has {len(self.betas)} numbers, but a chain needs at least 2 "
                f"steps: 1000 is customary."
            )
        last = len(self.betas) - 1
        for i, beta in enumerate(self.betas):
            if not (0 < beta < 1 or (beta == 1 and i == last)):
                raise ConfigError(
                    f"schedule.betas[{i}] = {beta}, but a forward-process variance lies between 0 "
                    f"and 1; only the last may be 1."
                )
        return DiscreteSchedule(torch.tensor(self.betas, dtype=torch.float64))


def _ramp(first: float, last: float, steps: int, *, power: int = 1) -> Tensor:
    """Betas, (T,), whose roots of order `power` go from `first`'s to `last`'s in equal steps.

    Raises:
        ConfigError: Fewer than 2 steps, or an end outside (0, 1).
    """
    _check_steps(steps)
    _check_beta("beta_first", first)
    _check_beta("beta_last", last)
    ends = first ** (1 / power), last ** (1 / power)
    return torch.linspace(*ends, steps, dtype=torch.float64) ** power


def _limited(f: Tensor, beta_limit: float) -> Tensor:
    """The table of the curve `f`, (T + 1,), with no beta above `beta_limit`."""
    return running_product((1 - f[1:] / f[:-1]).clamp(max=beta_limit))


def _finished(abar: Tensor, zero_terminal_snr: bool, shift: float) -> DiscreteSchedule:
    """The schedule of a table after the changes that every table may have.

    Raises:
        ConfigError: The shift is out of range, or the table does not fall.
    """
    check_shift(shift)
    if zero_terminal_snr:
        # sqrt(abar) is moved by its last value and stretched back over its first.  Written
        # around abar_1, which is kept to the last digit.
        root = abar.sqrt()
        stretched = abar[1] * ((root - root[-1]) / (root[1] - root[-1])) ** 2
        abar = torch.cat([abar[:1], stretched[1:]])
    if shift:
        # sigmoid(logit(abar) + shift), in the form that keeps 1 and 0 where they are.
        signal = math.exp(shift) * abar
        abar = signal / (signal + (1 - abar))
    return DiscreteSchedule.of_abar(abar)


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


def _check_positive(name: str, value: float, *, customary: str) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(
            f"schedule.{name} = {value}, but it must be a positive number: {customary} is the "
            f"published value."
        )
