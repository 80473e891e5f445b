"""Times that a run learns, without changing what it is trained for."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kao.diffusion.schedules import DiscreteSchedule, NoiseSchedule
from kao.diffusion.times.base import Draw, Times, shares
from kao.diffusion.times.bins import RunningBins, root_mean, slope
from kao.diffusion.times.fixed import place_uniform
from kao.errors import ConfigError


class LearnedTimes(Times):
    """Times of a learned density, weighted so that the objective stays that of uniform times.

    The density is constant over each bin, a mixture of what `density` asks for and a floor of
    uniform.  Weights are uniform density / density drawn from, so the mean of weight * f(t) is
    the uniform mean of f, whatever f and whatever was learned; and no weight exceeds 1 / floor.
    On a discrete schedule each whole time has a probability of its own, and its weight is exact.

    Until every bin has seen `warmup` images, draws are those of uniform times, byte for byte.

    Args:
        schedule: Whose times.
        statistic: (loss, error) -> the number of each image that is averaged over its bin,
            float64, (B,).
        density: Averages (K,) -> unnormalised density (K,), >= 0; all zero means uniform.
        bins: K, at least 2; a discrete schedule has no more bins than times.
        floor: Share of uniform in the mixture, in (0, 1).
        memory: Images that a bin's average reaches back.
        warmup: Images that each bin must have seen.
        stratified: Whether the shares of a batch are stratified.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        *,
        statistic: Callable[[Tensor, Tensor], Tensor],
        density: Callable[[Tensor], Tensor],
        bins: int,
        floor: float,
        memory: int,
        warmup: int,
        stratified: bool,
    ):
        super().__init__(schedule)
        self.discrete = isinstance(schedule, DiscreteSchedule)
        count = min(bins, int(schedule.t_max)) if self.discrete else bins
        self.bins = RunningBins(count, memory=memory)
        self.statistic, self.wanted = statistic, density
        self.floor, self.warmup, self.stratified = floor, warmup, stratified

    def forward(self, batch: int, generator: torch.Generator) -> Draw:
        """Draw the times of a batch; see `Times.forward`."""
        return self.at(shares(batch, generator, stratified=self.stratified))

    def at(self, u: Tensor) -> Draw:
        """The draw at given shares of the probability, float64, (B,), in [0, 1)."""
        if not self.learned:
            return Draw(place_uniform(self.schedule, u), torch.ones_like(u))
        density = self.density()
        share, cell = _quantile(density, 1 - u)
        t = cell.double() + 1 if self.discrete else self.schedule.t_max * share
        return Draw(t, 1 / density[cell])

    def update(self, t: Tensor, loss: Tensor, error: Tensor) -> None:
        """Learn from a batch; see `Times.update`."""
        self.bins.update(self._bin(t), self.statistic(loss, error))

    def knots(self, count: int = 65) -> tuple[float, ...]:
        """The quantile function of what is drawn from now; see `Times.knots`."""
        if count < 2:
            raise ValueError(f"{count} knots cannot reach from 0 to 1: ask for 2 or more")
        share, _ = _quantile(self.density(), torch.linspace(0, 1, count, dtype=torch.float64))
        return tuple(share.tolist())

    @property
    def learned(self) -> bool:
        """Whether every bin has seen enough for the density to be other than uniform."""
        return bool(self.bins.seen.min() >= self.warmup)

    def density(self) -> Tensor:
        """What is drawn from now, relative to uniform: >= floor, of mean 1, float64 on the CPU.

        Returns:
            (K,), one for each bin; on a discrete schedule (T,), one for each whole time.
        """
        cells = torch.arange(self.bins.count)
        if self.discrete:
            cells = self._bin(torch.arange(1, self.schedule.t_max + 1, dtype=torch.float64))
        wanted = self.wanted(self.bins.average)[cells]
        if not self.learned or not wanted.any():
            return torch.ones_like(wanted)
        return self.floor + (1 - self.floor) * wanted / wanted.mean()

    def _bin(self, t: Tensor) -> Tensor:
        """The bin of each time, int64; a whole time t of T stands for ((t - 1) / T, t / T]."""
        share = (t - 0.5 * self.discrete) / self.schedule.t_max
        return ((share * self.bins.count).ceil().long() - 1).clamp(0, self.bins.count - 1)


def _quantile(density: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Where a piecewise constant density on [0, 1] has the share `p` of its mass below.

    Args:
        density: Of N equal cells, (N,), above 0; it need not be normalised.
        p: float64, in [0, 1].

    Returns:
        The place in [0, 1], above 0 where p is; and its cell, int64 in 0..N-1.
    """
    mass = torch.cat([density.new_zeros(1), density.cumsum(0)])
    mass = mass / mass[-1]
    cell = torch.searchsorted(mass[1:], p)
    within = (p - mass[cell]) / (mass[cell + 1] - mass[cell])
    return (cell + within) / len(density), cell


@dataclass(frozen=True)
class LossMoment:
    """Density proportional to sqrt(E[L^2]) (Nichol & Dhariwal 2021, sec. 3.3, eq. 18).

    That density makes the gradient's noise from the choice of times least.  The paper keeps the
    last 10 losses of each time; here a bin keeps an exponential average.

    Attributes:
        bins: Parts of equal uniform probability, at least 2; no more than T are used on a discrete
            schedule.
        floor: Share of uniform in the mixture, in (0, 1): no weight exceeds 1 / floor.
        memory: Images that a bin's average reaches back, at least 1.
        warmup: Images that each bin must have seen before anything but uniform is drawn, at least
            1; 10 in the paper.
        stratified: Draw one time in each B-th part of the density; see `shares`.

    Raises:
        ConfigError: An option is out of range.
    """

    bins: int = 100
    floor: float = 0.1
    memory: int = 500
    warmup: int = 10
    stratified: bool = True

    def __post_init__(self) -> None:
        """Refuse bins that nothing can be learned in."""
        _check(self.bins, self.floor, self.memory, self.warmup)

    def build(self, schedule: NoiseSchedule) -> LearnedTimes:
        """Make the times of a schedule."""
        return LearnedTimes(
            schedule,
            statistic=_squared_loss,
            density=root_mean,
            bins=self.bins,
            floor=self.floor,
            memory=self.memory,
            warmup=self.warmup,
            stratified=self.stratified,
        )


@dataclass(frozen=True)
class Warped:
    """Density proportional to the slope of the error of x_0 over time: most where it changes.

    After the time warping of Dieleman et al. (2022), who fit the cross-entropy as a function of
    time and draw times along which it rises linearly.  Here the curve is the squared error of x_0,
    and weights undo the change of objective that the paper's warping also is.  Its knots place a
    sampler's steps where the picture is decided.

    Bins are even in t, so a schedule whose t says little of its noise (ve, where t is sigma up to
    80) resolves its clean end coarsely.

    Attributes:
        bins: Parts of equal uniform probability, at least 2; no more than T are used on a discrete
            schedule.
        smoothing: Standard deviation, in bins, of the Gaussian over which the slope is averaged;
            above 0.
        floor: Share of uniform in the mixture, in (0, 1): no weight exceeds 1 / floor.
        memory: Images that a bin's average reaches back, at least 1.
        warmup: Images that each bin must have seen before anything but uniform is drawn, at least
            1.
        stratified: Draw one time in each B-th part of the density; see `shares`.

    Raises:
        ConfigError: An option is out of range.
    """

    bins: int = 100
    smoothing: float = 1.0
    floor: float = 0.1
    memory: int = 500
    warmup: int = 10
    stratified: bool = True

    def __post_init__(self) -> None:
        """Refuse bins that nothing can be learned in."""
        _check(self.bins, self.floor, self.memory, self.warmup)
        if not 0 < self.smoothing < math.inf:
            raise ConfigError(
                f"times.smoothing = {self.smoothing}, but it is a positive number of bins: 1 is "
                f"customary."
            )

    def build(self, schedule: NoiseSchedule) -> LearnedTimes:
        """Make the times of a schedule."""
        return LearnedTimes(
            schedule,
            statistic=_error,
            density=partial(slope, smoothing=self.smoothing),
            bins=self.bins,
            floor=self.floor,
            memory=self.memory,
            warmup=self.warmup,
            stratified=self.stratified,
        )


def _squared_loss(loss: Tensor, error: Tensor) -> Tensor:
    return loss.square()


def _error(loss: Tensor, error: Tensor) -> Tensor:
    return error


def _check(bins: int, floor: float, memory: int, warmup: int) -> None:
    if not 2 <= bins < math.inf:
        raise ConfigError(
            f"times.bins = {bins}, but a density is learned from 2 bins up: 100 is customary."
        )
    if not 0 < floor < 1:
        raise ConfigError(
            f"times.floor = {floor}, but the share of uniform times lies between 0 and 1 (both "
            f"excluded): 0.1 is customary."
        )
    for name, value, customary in (("memory", memory, 500), ("warmup", warmup, 10)):
        if not 1 <= value < math.inf:
            raise ConfigError(
                f"times.{name} = {value}, but it counts images, 1 or more: {customary} is "
                f"customary."
            )
