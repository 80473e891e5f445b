"""Which ways to draw are worth comparing: samplers, their randomness, grids and steps."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

from kao.config import SamplingConfig, dump
from kao.diffusion import (
    DDIM,
    GRIDS,
    SAMPLERS,
    Ancestral,
    DPMSolver2M,
    DPMSolver2MSDE,
    Heun,
    Sampler,
    UniPC,
)
from kao.errors import ConfigError, near_miss
from kao.runs.run import Run, with_sampling

STEPS = (5, 10, 20, 50)
SWEEP: Mapping[Sampler, int] = {
    DDIM(): 1,
    DPMSolver2M(): 1,
    UniPC(): 1,
    Heun(): 1,
    DDIM(eta=1.0): 20,
    DPMSolver2MSDE(): 20,
    Ancestral(): 20,
}
"""The samplers that are tried if none is named, and from how many steps: those that add noise
are hopeless with few."""


def settings(
    run: Run,
    *,
    samplers: Sequence[str] = (),
    grids: Sequence[str] = (),
    steps: Sequence[int] = (),
    etas: Sequence[float] = (),
) -> tuple[list[SamplingConfig], list[str]]:
    """The ways to draw that are to be compared, those of few steps first.

    What [sampling] says beside sampler, grid and steps stays as the run has it.

    Args:
        run: The run.
        samplers: Names of `SAMPLERS`; empty: those of `SWEEP`.
        grids: Names of `GRIDS`; empty: uniform, karras and log_snr, and learned where the run's
            training times were.
        steps: Numbers of steps; empty: `STEPS`.
        etas: For every sampler that has an eta, each in [0, 1]; empty: each sampler's own.

    Returns:
        The ways, with the knots of a learned grid written out; and a sentence on each that does
        not fit the run.

    Raises:
        ConfigError: A name is unknown, an eta is out of range or for samplers without, or nothing
            fits.
        CheckpointError: The run has learned times and no whole checkpoint.
    """
    config, learned = run.config, run.learned_times()
    knots = learned.knots() if learned else None
    if not grids:
        grids = ("uniform", "karras", "log_snr") + ("learned",) * (knots is not None)
    chosen = _samplers(samplers, etas)
    places = [_entry("grid", GRIDS, name) for name in grids]
    fitting: list[SamplingConfig] = []
    notes: list[str] = []
    for count, sampler, grid in product(sorted(steps or STEPS), chosen, places):
        if count < chosen[sampler]:
            continue
        sampling = replace(config.sampling, sampler=sampler, grid=grid, steps=count)
        try:
            fitting.append(with_sampling(config, sampling, knots=knots).sampling)
        except ConfigError as error:
            name = dump(sampling)["sampler"]["kind"]
            notes.append(f"Left out {name} in {count} steps: {error}")
    if not fitting:
        raise ConfigError(f"No way to draw is left to compare. {notes[0]}")
    return list(dict.fromkeys(fitting)), list(dict.fromkeys(notes))


def _samplers(names: Sequence[str], etas: Sequence[float]) -> Mapping[Sampler, int]:
    """The samplers to try, and from how many steps."""
    named: list[Sampler] = [_entry("sampler", SAMPLERS, name) for name in names]
    chosen = dict.fromkeys(named, 1) or SWEEP
    if not etas:
        return chosen
    if not any(_has_eta(sampler) for sampler in chosen):
        having = ", ".join(name for name, entry in SAMPLERS.items() if _has_eta(entry()))
        raise ConfigError(
            f"--etas has nothing to change, since none of {', '.join(names)} has an eta: add a "
            f"sampler that has ({having}), or leave --etas out."
        )
    varied: dict[Sampler, int] = {}
    for sampler, fewest in chosen.items():
        if _has_eta(sampler):
            varied |= dict.fromkeys((_with_eta(sampler, float(eta)) for eta in etas), 1)
        else:
            varied[sampler] = fewest
    return varied


def _has_eta(sampler: Any) -> bool:
    return any(field.name == "eta" for field in fields(sampler))


def _with_eta(sampler: Any, eta: float) -> Sampler:
    varied: Sampler = replace(sampler, eta=eta)
    return varied


def _entry(what: str, registry: Mapping[str, Any], name: str) -> Any:
    """The component of that name, with its own options."""
    if name not in registry:
        raise ConfigError(
            f'unknown {what} "{name}"{near_miss(name, registry)}; there are: {", ".join(registry)}.'
        )
    entry = registry[name]
    return entry() if isinstance(entry, type) else entry
