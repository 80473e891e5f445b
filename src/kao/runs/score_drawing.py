"""How the pictures of a score are drawn, and what their score depends on."""

import hashlib
import json
from dataclasses import replace

from torch import nn

from kao.config import RunConfig, dump
from kao.diffusion import SAMPLERS
from kao.diffusion.grids import LogSNR
from kao.errors import ConfigError
from kao.metrics import Features, open_space
from kao.processes import Processes
from kao.runs.guiding import sampling_table
from kao.runs.yardstick import Yardstick

SAMPLER = "dpm++2m"
"""Draws the pictures of a score: one network call a step, and good in ten."""

NOISE = 0x5C0_4E
"""Seed of the noise; no run's own, so that runs compare."""


def quickly(config: RunConfig) -> RunConfig:
    """The configuration with the way to draw the pictures of a score; guidance stays.

    The grid is of equal steps in log snr, with which ten steps came nearest to many; where the
    schedule has too narrow a range of it, the run's own.
    """
    sampling = replace(config.sampling, sampler=SAMPLERS[SAMPLER](), steps=config.evaluation.steps)
    even = replace(config, sampling=replace(sampling, grid=LogSNR()))
    try:
        even.times(even.schedule.build())
    except ConfigError:
        return replace(config, sampling=sampling)
    return even


def opened_space(config: RunConfig, processes: Processes) -> Features:
    """The feature space of the scores, on the CPU.

    One process of each machine after the other asks for it: weights that are not there are
    downloaded by the first.

    Args:
        config: Says which.
        processes: Which of several this is.

    Raises:
        ConfigError: There is no such space, or its weights are missing or not what they should be.
        MissingExtraError: A package for it is not installed.
    """
    return processes.by_turns(lambda: open_space(config.evaluation.features))


def in_words(config: RunConfig, yardstick: Yardstick) -> str:
    """What a score is and how its pictures are drawn."""
    sampling = quickly(config).sampling
    return (
        f"{yardstick.measure}, {SAMPLER} in {sampling.steps} steps on the "
        f"{dump(sampling)['grid']['kind']} grid"
    )


def digest_of(
    config: RunConfig, yardstick: Yardstick, *, average: str, worse: nn.Module | None
) -> str:
    """Of all that changes a score but the weights: those with the same one compare.

    Args:
        config: Of the run; a grid that it learns counts as the same one all along.
        yardstick: What pictures are held against.
        average: Name of the weights that draw.
        worse: The model that guides, which may itself have trained on meanwhile.

    Returns:
        8 hexadecimal digits.
    """
    facts = {
        "sampling": sampling_table(quickly(config).sampling, worse),
        "noise": NOISE,
        "pictures": config.evaluation.pictures,
        "average": average,
        "precision": config.training.precision,
        "measure": yardstick.measure,
        "reference": yardstick.fingerprint,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
