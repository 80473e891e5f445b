"""Decreasing times for samplers: float64, (steps + 1,), ending at 0.

uniform, trailing    equal steps of time, from t_max
leading, linspace    the other two spacings of a chain's whole times
Spaced               the same as other programs have them: shifted, one more, or spread by the ratio
Karras, LogSNR       by the noise-to-signal ratio, so they mean the same on every schedule
Learned              by the density of times that a run has learned
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kao.diffusion.schedules import DiscreteSchedule, NoiseSchedule
from kao.errors import ConfigError

_PURE = 4096.0
"""The ratio sigma / alpha that diffusers gives pure noise."""

Grid = Callable[[NoiseSchedule, int], Tensor]
"""(schedule, steps) -> decreasing times, float64, (steps + 1,), the last of them 0."""


def uniform(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Equal steps from t_max to 0; on a discrete schedule, rounded to whole times.

    Args:
        schedule: Whose times.
        steps: At least 1; at most T on a discrete schedule.

    Returns:
        Times, float64, (steps + 1,).

    Raises:
        ConfigError: steps is out of range.
    """
    _check_steps(schedule, steps)
    times = schedule.t_max * torch.arange(steps, -1, -1, dtype=torch.float64) / steps
    return times.round() if isinstance(schedule, DiscreteSchedule) else times


def trailing(schedule: NoiseSchedule, steps: int) -> Tensor:
    """The "trailing" spacing of Lin et al. (2024), table 2: it starts at T.

    Counting times from 1 with 0 for the clean image, this is `uniform`; the name is kept
    because the field knows it.  Arguments and errors are those of `uniform`.
    """
    return uniform(schedule, steps)


def leading(schedule: NoiseSchedule, steps: int) -> Tensor:
    """The "leading" spacing of DDPM and DDIM code (Lin et al. 2024, table 2).

    Times 1, 1 + T // steps, ... reversed: it starts below T, and its last step is from 1 to 0.

    Args:
        schedule: A discrete one.
        steps: In 1..T.

    Returns:
        Times, float64, (steps + 1,).

    Raises:
        ConfigError: steps is out of range, or the schedule is continuous.
    """
    return Spaced("leading", offset=0)(schedule, steps)


def linspace(schedule: NoiseSchedule, steps: int) -> Tensor:
    """The "linspace" spacing of Nichol & Dhariwal (2021) (Lin et al. 2024, table 2).

    `steps` times in equal steps from T to 1, rounded to whole times, and a last step from 1 to
    0.  A single time is T: that of other code, 1, would start from an almost clean image.

    Args:
        schedule: A discrete one.
        steps: In 1..T.

    Returns:
        Times, float64, (steps + 1,).

    Raises:
        ConfigError: steps is out of range, or the schedule is continuous.
    """
    return Spaced("linspace")(schedule, steps)


@dataclass(frozen=True)
class Karras:
    """Karras et al. (2022), eq. 5, on the noise-to-signal ratio sigma / alpha.

    Placed by ratio rather than by time, so it means the same thing for every schedule.  On a
    discrete schedule times fall between whole numbers.

    It starts at sigma_max, so a schedule that ends in pure noise is not begun at its end: at the
    ratio 80 alpha is still 0.0125, which a linear chain of zero terminal snr has at t = 886 of
    1000.

    Attributes:
        sigma_min: Ratio of the last time before 0, at least 1e-6; or that of time 1 if a
            discrete schedule's is larger: no network is trained below it.
        sigma_max: Ratio of the first time, above sigma_min, at most 1e6; or that of t_max if it
            is smaller.
        rho: How much the steps crowd towards 0, in [0.1, 1000].

    Raises:
        ConfigError: An option is out of range.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        """Refuse ends that no schedule resolves, and a rho without meaning."""
        _check_ends(self.sigma_min, self.sigma_max)
        if not 0.1 <= self.rho <= 1000:
            raise ConfigError(
                f"grid.rho = {self.rho}, but it lies between 0.1 and 1000: 7 is the published "
                f"value."
            )

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """The times.

        Args:
            schedule: Whose times.
            steps: At least 1; at most T on a discrete schedule.

        Returns:
            Times, float64, (steps + 1,).

        Raises:
            ConfigError: steps is out of range, or the schedule has no ratio between the ends.
        """
        ends = self.sigma_min, self.sigma_max
        return _by_ratio(
            schedule, steps, ends, lambda r: r ** (1 / self.rho), lambda r: r**self.rho
        )


@dataclass(frozen=True)
class LogSNR:
    """Equal steps of the log-snr (Lu et al. 2022a, "step size schedule"): Karras, rho -> inf.

    Like `Karras` it starts at sigma_max and never at pure noise.

    Attributes:
        sigma_min: Ratio sigma / alpha of the last time before 0; as in `Karras`.
        sigma_max: Ratio of the first time; as in `Karras`.

    Raises:
        ConfigError: An option is out of range.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        """Refuse ends that no schedule resolves."""
        _check_ends(self.sigma_min, self.sigma_max)

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """The times; arguments and errors are those of `Karras.__call__`."""
        return _by_ratio(schedule, steps, (self.sigma_min, self.sigma_max), torch.log, torch.exp)


@dataclass(frozen=True)
class Spaced:
    """Times of a chain as diffusers' schedulers space them, to draw what they draw.

    Attributes:
        spacing: "leading", "linspace" or "trailing", the grids of these names; or "even":
            linspace without rounding, so that times fall between whole numbers.
        offset: Added to the times of "leading", as its steps_offset; 0 or more.
        spare: Whether "leading", "linspace" and "even" are spaced for one step more, of which the
            cleanest is left out, as its DPM-Solver and UniPC do.
        ratios: "spaced": those of these times; or "karras" or "log_snr": between the first and
            the last of them as `Karras` and `LogSNR` place them.

    Raises:
        ConfigError: An option is out of range.
    """

    spacing: Literal["leading", "linspace", "trailing", "even"] = "leading"
    offset: int = 1
    spare: bool = False
    ratios: Literal["spaced", "karras", "log_snr"] = "spaced"

    def __post_init__(self) -> None:
        """Refuse other names, and times below the chain's."""
        if self.spacing not in ("leading", "linspace", "trailing", "even"):
            raise ConfigError(
                f"grid.spacing = {self.spacing!r}, but the choices are leading, linspace, trailing "
                f"and even."
            )
        if self.ratios not in ("spaced", "karras", "log_snr"):
            raise ConfigError(
                f"grid.ratios = {self.ratios!r}, but the choices are spaced, karras and log_snr."
            )
        if self.offset < 0:
            raise ConfigError(
                f"grid.offset = {self.offset}, but it is added to times from 1: 0 or more."
            )

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """The times.

        Args:
            schedule: A discrete one.
            steps: In 1..T, and fewer where `offset` or `spare` leave room for fewer.

        Returns:
            Times, float64, (steps + 1,).

        Raises:
            ConfigError: steps is out of range, or the schedule is continuous.
        """
        _check_steps(schedule, steps)
        _check_discrete(self.spacing, schedule)
        count = steps + self.spare
        index = torch.arange(count - 1, -1, -1, dtype=torch.float64)
        if self.spacing == "trailing":
            times = uniform(schedule, steps)[:-1]
        elif self.spacing == "leading":
            times = index * (schedule.t_max // count) + 1 + self.offset
        else:
            times = index * ((schedule.t_max - 1) / max(count - 1, 1))
            # As indices from 0: halves go to even numbers as in other code.
            times = (times if self.spacing == "even" else times.round()) + 1
            times[0] = schedule.t_max
        times = times[:steps]
        if times[0] > schedule.t_max or not (times[1:] < times[:-1]).all():
            raise ConfigError(
                f"steps = {steps} with grid.offset = {self.offset} and grid.spare = {self.spare} "
                f"do not fit the {schedule.t_max} times of the schedule: take fewer steps."
            )
        times = torch.cat([times, times.new_zeros(1)])
        if self.ratios == "spaced" or steps == 1:
            return times
        alpha, sigma = schedule(times[[steps - 1, 0]])
        low, high = (sigma / alpha).nan_to_num(posinf=_PURE).tolist()
        within = Karras(low, high) if self.ratios == "karras" else LogSNR(low, high)
        return within(schedule, steps)


@dataclass(frozen=True)
class Learned:
    """Equal shares of a learned density of times: steps lie close where the density is high.

    Attributes:
        knots: The density's quantile function at equally spaced shares from 0 to 1, as parts of
            t_max: from 0 to 1, each at least 1e-9 above the one before; linear in between.
            Empty: to be filled in from a run (`Times.knots`).

    Raises:
        ConfigError: The knots are not such a function.
    """

    knots: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse knots that do not rise from 0 to 1; none at all may still be filled in."""
        if not self.knots:
            return
        if len(self.knots) < 2 or self.knots[0] != 0 or self.knots[-1] != 1:
            raise ConfigError(
                f"grid.knots has {len(self.knots)} numbers from {self.knots[0]} to "
                f"{self.knots[-1]}, but a quantile function goes from 0 to 1 in two knots or "
                f"more: take them from a run whose times are learned."
            )
        # The gap keeps times apart in float64, for any number of steps that is ever taken.
        for i, (low, high) in enumerate(itertools.pairwise(self.knots)):
            if not high - low >= 1e-9:
                raise ConfigError(
                    f"grid.knots[{i}] = {low} and grid.knots[{i + 1}] = {high}, but each knot "
                    f"lies at least 1e-9 above the one before: take them from a run whose times "
                    f"are learned."
                )

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """The times, from t_max; on a discrete schedule whole, and no two the same.

        Args:
            schedule: Whose times; the one that the knots were learned on.
            steps: At least 1; at most T on a discrete schedule.

        Returns:
            Times, float64, (steps + 1,).

        Raises:
            ConfigError: steps is out of range, or there are no knots.
        """
        _check_steps(schedule, steps)
        if not self.knots:
            raise ConfigError(
                "The learned grid has no knots, which come from a run whose times are learned: "
                "draw from a checkpoint of such a run, or choose another grid."
            )
        knots = torch.tensor(self.knots, dtype=torch.float64)
        place = (len(knots) - 1) * torch.arange(steps + 1, dtype=torch.float64) / steps
        i = place.floor().clamp(max=len(knots) - 2).long()
        rising = schedule.t_max * torch.lerp(knots[i], knots[i + 1], place - i)
        if isinstance(schedule, DiscreteSchedule):
            # Up by one where rounding made two the same, then down where that went past T.
            count = torch.arange(steps + 1, dtype=torch.float64)
            rising = (rising.round() - count).cummax(0).values.clamp(max=schedule.t_max - steps)
            rising = rising + count
        return rising.flip(0)


def _by_ratio(
    schedule: NoiseSchedule,
    steps: int,
    ends: tuple[float, float],
    bend: Callable[[Tensor], Tensor],
    unbend: Callable[[Tensor], Tensor],
) -> Tensor:
    """Times at equal steps of bend(sigma / alpha), then 0: (steps + 1,).

    Args:
        schedule: Whose times.
        steps: At least 1; at most T on a discrete schedule.
        ends: Smallest and largest ratio, moved to where a network is trained.
        bend: A rising function of the ratio, elementwise, and `unbend` its inverse.
        unbend: See `bend`.

    Raises:
        ConfigError: steps is out of range, or the schedule has no ratio between the ends.
    """
    _check_steps(schedule, steps)
    # No network is trained on a chain's times below 1; where time flows, any is near enough.
    cleanest = 1.0 if isinstance(schedule, DiscreteSchedule) else 0.0
    trained = schedule(torch.tensor([cleanest, schedule.t_max], dtype=torch.float64))
    least, most = (trained.sigma / trained.alpha).tolist()
    last, first = max(ends[0], least), min(ends[1], most)
    if not last < first:
        raise ConfigError(
            f"The grid's noise-to-signal ratios, {ends[0]:.4g} to {ends[1]:.4g}, and those of the "
            f"schedule, {least:.4g} to {most:.4g}, have no stretch in common: change "
            f"sampling.grid.sigma_min or sampling.grid.sigma_max."
        )
    bent = bend(torch.tensor([first, last], dtype=torch.float64))
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    ratio = unbend(bent[0] * (1 - ramp) + bent[1] * ramp)
    times = schedule.time_at(-2 * ratio.log())
    # The ends of the schedule are visited themselves, not times within rounding of them.
    if last == least and steps > 1:
        times[-1] = cleanest
    if first == most:
        times[0] = schedule.t_max
    return torch.cat([times, times.new_zeros(1)])


def _check_steps(schedule: NoiseSchedule, steps: int) -> None:
    if steps < 1:
        raise ConfigError(f"A sampler needs at least 1 step, and steps = {steps}.")
    if isinstance(schedule, DiscreteSchedule) and steps > schedule.t_max:
        raise ConfigError(
            f"steps = {steps}, but the schedule has {schedule.t_max} times to visit: "
            f"ask for {schedule.t_max} steps or fewer."
        )


def _check_discrete(grid: str, schedule: NoiseSchedule) -> None:
    if not isinstance(schedule, DiscreteSchedule):
        raise ConfigError(
            f"The {grid} grid counts the steps of a discrete schedule, and "
            f"{type(schedule).__name__} is continuous: choose the trailing, uniform, karras or "
            f"log_snr grid."
        )


def _check_ends(sigma_min: float, sigma_max: float) -> None:
    # Beyond 1e6, times near the end of a schedule are too close for float64.
    if not 1e-6 <= sigma_min < sigma_max <= 1e6:
        raise ConfigError(
            f"grid.sigma_min = {sigma_min} and grid.sigma_max = {sigma_max}, but the ratios rise "
            f"from one to the other within 1e-6 to 1e6: 0.002 and 80 are the published values."
        )


GRIDS: dict[str, Grid | type[Spaced] | type[Karras] | type[LogSNR] | type[Learned]] = {
    "uniform": uniform,
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "spaced": Spaced,
    "karras": Karras,
    "log_snr": LogSNR,
    "learned": Learned,
}
"""A function has no options; a class is instantiated with them."""
