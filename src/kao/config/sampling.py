"""[sampling]: how pictures are drawn."""

import math
from dataclasses import dataclass, replace

from kao.config.tree import Origin, Table, component, dump, finite, leaves, parse
from kao.diffusion import (
    DDIM,
    GRIDS,
    PNDM,
    SAMPLERS,
    THRESHOLDS,
    Clip,
    DiscreteSchedule,
    Grid,
    NoiseSchedule,
    Sampler,
    Threshold,
    VESchedule,
    grids,
)
from kao.errors import ConfigError

STEPS = 25
"""Fewest along even times, where nobody says how many."""


@dataclass(frozen=True)
class GuidanceConfig:
    """[sampling.guidance]: steps away from what another model says, or the same one less informed.

    With `worse` that is a worse model (Karras et al. 2024b); without, and with classes, the same
    model that is not told the class (Ho & Salimans 2022).

    Attributes:
        worse: A run directory, or one of its checkpoints: a smaller or less trained model of the
            same pictures.  Empty: none, which guides where conditions.classes = true alone.
        scale: 1 follows the model alone; more goes away from the other.
        interval: Noise-to-signal ratios sigma / alpha between which it acts.
        rescale: Share, 0..1, of the contrast that guidance added to be taken back.

    Raises:
        ConfigError: A value is out of range, or a worse model is named at scale 1.  Whether a
            scale alone does anything, `runs.run.check_drawing` knows.
    """

    worse: str = ""
    scale: float = 1.0
    interval: tuple[float, float] = (0.0, math.inf)
    rescale: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot guide, and what would do nothing."""
        low, high = self.interval
        if not 0 <= self.scale < math.inf:
            raise ConfigError(
                f"sampling.guidance.scale = {self.scale}; expected a number from 0 up: 1 is no "
                f"guidance."
            )
        if not 0 <= low < high:
            raise ConfigError(
                f"sampling.guidance.interval = [{low}, {high}]; expected a noise-to-signal ratio "
                f"from 0 up and then a larger one, which may be inf."
            )
        if not 0 <= self.rescale <= 1:
            raise ConfigError(
                f"sampling.guidance.rescale = {self.rescale}; expected a share from 0 to 1: 0.7 "
                f"is the published value."
            )
        if self.worse and self.scale == 1:
            raise ConfigError(
                f'sampling.guidance.worse = "{self.worse}" does nothing at scale = 1: set '
                f"sampling.guidance.scale, of which 2 is customary, or leave worse out."
            )


@dataclass(frozen=True)
class SamplingConfig:
    """[sampling]: how pictures are drawn where nothing else is said.

    Attributes:
        sampler: How the path is integrated.
        grid: Where on it.
        steps: In how many steps.
        threshold: What is done to predicted pictures beyond what pixels can show, at each step.
        guidance: By a worse model, or by classes.
    """

    sampler: Sampler = component(SAMPLERS, DDIM())
    grid: Grid = component(GRIDS, grids.uniform)
    steps: int = 25
    threshold: Threshold | None = component(THRESHOLDS, Clip())
    guidance: GuidanceConfig = GuidanceConfig()


def described(table: Table) -> str:
    """A way to draw in a few words, as "ddim eta 0.5, karras, 10 steps"; defaults go unsaid.

    Args:
        table: A whole [sampling], from `dump`.
    """
    kinds = {name: table[name]["kind"] for name in ("sampler", "grid")}
    usual = leaves(finite(dump(parse(SamplingConfig, kinds, Origin("[sampling]")))))
    changed = [
        (key, "..".join(map(str, value)) if isinstance(value, list) else value)
        for key, value in leaves(finite(table)).items()
        # A learned grid's knots are many numbers, and follow from the run.
        if value != usual.get(key) and key not in ("steps", "grid.knots")
    ]
    said = kinds | {"steps": f"{table['steps']} steps"}
    for key, value in changed:
        owner, _, option = key.partition(".")
        if owner in kinds:
            said[owner] += f" {option} {value}"
        else:
            said[key] = f"{key} {value}"
    return ", ".join(said.values())


def evenly(sampling: SamplingConfig, schedule: NoiseSchedule) -> SamplingConfig:
    """The same along times for steps of first order: even ones, and `STEPS` of them or more.

    Solvers of higher order draw best in few steps of equal log-snr, which are too coarse for these.
    On "ve", which has no even times, the grid stays and gets as many steps; other grids stay as
    they are.

    Args:
        sampling: How a run draws.
        schedule: Of the run.
    """
    if not _by_ratio(sampling.grid):
        return sampling
    steps = max(sampling.steps, STEPS)
    if isinstance(schedule, DiscreteSchedule):
        steps = min(steps, int(schedule.t_max))
    grid = sampling.grid if isinstance(schedule, VESchedule) else grids.uniform
    return replace(sampling, grid=grid, steps=steps)


def stepped_by(
    sampler: Sampler, sampling: SamplingConfig, schedule: NoiseSchedule
) -> SamplingConfig:
    """The same by another sampler, `evenly` where that takes even steps and this did not.

    Even steps suit samplers of first order, and PNDM is made for them alone.

    Args:
        sampler: Instead of the run's.
        sampling: How the run draws.
        schedule: Of the run.
    """
    other = _takes_even_steps(sampler) and not _takes_even_steps(sampling.sampler)
    sampling = replace(sampling, sampler=sampler)
    return evenly(sampling, schedule) if other else sampling


def _by_ratio(grid: Grid) -> bool:
    """Whether a grid places its times by sigma / alpha, so that steps of time are uneven."""
    if isinstance(grid, grids.Spaced):
        return grid.ratios != "spaced"
    return isinstance(grid, grids.LogSNR | grids.Karras)


def _takes_even_steps(sampler: Sampler) -> bool:
    return sampler.order < 2 or isinstance(sampler, PNDM)


def refuse_uneven(sampling: SamplingConfig) -> None:
    """Refuse PNDM where its formulas do not hold: there it draws noise, or numbers without end.

    With an exact denoiser of pictures whose root mean square is 0.6, that of what it draws in two
    to five steps of equal log-snr is 1 to 4000.

    Raises:
        ConfigError: Its steps are not of equal size in t, or fewer than the four that its formula
            is made from.
    """
    if not isinstance(sampling.sampler, PNDM):
        return
    if _by_ratio(sampling.grid) or isinstance(sampling.grid, grids.Learned):
        raise ConfigError(
            'sampling.sampler.kind = "pndm" is made for steps of equal size in t, and those of '
            'sampling.grid are not: set sampling.grid = "uniform", or choose "dpm++2m" or "unipc".'
        )
    if sampling.steps < 4:
        raise ConfigError(
            f'sampling.sampler.kind = "pndm" works with four predictions, and sampling.steps = '
            f'{sampling.steps}: take 4 steps or more, or choose "dpm++2m" or "unipc".'
        )
