"""Which configuration a run would have, before its pictures are looked at."""

from typing import NamedTuple

import torch

from kao.checkpoints import Checkpoint
from kao.config import RunConfig, dump, load_config
from kao.data.sources import open_source
from kao.errors import CheckpointError, ConfigError, OutputError
from kao.machine import check_precision
from kao.runs.ask import Ask
from kao.runs.changes import branched, taken_up
from kao.runs.restoring import refuse_other_weights
from kao.runs.run import CONFIG, check_drawing
from kao.runs.scaling import Open
from kao.runs.sizing import (
    default_recipe,
    fitted,
    regularised,
    sized,
    with_precision,
)
from kao.runs.timetable import with_intervals
from kao.training import Length

_SIGNAL = 0.1
"""Ratio alpha / sigma at the end of a schedule past which starting from noise can be seen."""


class Plan(NamedTuple):
    """A configuration before pictures are looked at.

    Attributes:
        config: Checked; "auto" where a run that begins leaves it open.
        exists: Whether there is a run to go on with, or to branch from.
        notes: What changes in it.
    """

    config: RunConfig
    exists: bool
    notes: list[str]


def configure(ask: Ask, device: torch.device) -> Plan:
    """The configuration that is asked for, before pictures are looked at.

    A directory whose run has not come to its first checkpoint begins anew.

    Args:
        ask: What is asked for.
        device: Where it will train.

    Raises:
        ConfigError: A key or value cannot work, no pictures are named, or the run exists with
            another configuration (the keys that differ are named).
        CheckpointError: The worse model of [sampling.guidance] is missing.
    """
    exists = (ask.run / CONFIG).is_file() and bool(Checkpoint.all(ask.run))
    if ask.branch is not None:
        config, notes = _branch(ask)
    elif exists:
        config, notes = taken_up(ask)
    else:
        asked = ask.request(None).table
        recipe = ask.recipe or default_recipe(device, asked)
        config = ask.request(recipe).over(dump(RunConfig()))
        if ask.recipe is None:
            config = fitted(config, asked, device)
        notes = _signal_at_the_end(config)
    if not config.data.source:
        raise ConfigError(
            "No pictures are named: give a folder or a zip file of pictures, hf:NAME, or toy."
        )
    config.check()
    check_drawing(config)
    if config.training.precision != "auto":
        check_precision(config.training.precision, device)
    return Plan(config, exists, notes)


def _signal_at_the_end(config: RunConfig) -> list[str]:
    """A note where the noisiest level still shows the picture, and drawing starts without one."""
    schedule = config.schedule.build()
    end = schedule(torch.tensor(float(schedule.t_max), dtype=torch.float64))
    kept = (end.alpha / end.sigma).item()
    if kept <= _SIGNAL:
        return []
    return [
        f"The noisiest level of this schedule keeps {kept:.0%} of a picture beside the noise, and "
        f"drawing starts from noise alone: pictures will come out paler than they are. "
        f"schedule.zero_terminal_snr = true removes it, as do more steps or a larger beta_last."
    ]


def _branch(ask: Ask) -> tuple[RunConfig, list[str]]:
    """The configuration of a branch, and notes on what changes in it.

    Raises:
        OutputError: There is a branch of that name.
        CheckpointError: There is nothing to branch from.
        ConfigError: What was learned cannot be carried into that configuration.
    """
    if Checkpoint.all(ask.home):
        raise OutputError(
            f"{ask.branch} exists already: go on with it with --run {ask.branch} and without "
            f"--branch, or give the branch another name."
        )
    config, notes = branched(ask)
    checkpoint, _ = Checkpoint.latest(ask.run)
    if checkpoint is None:
        raise CheckpointError(
            f"{ask.run} has no whole checkpoint to branch from: train it to its first one."
        )
    there = load_config(checkpoint.config, str(checkpoint.path / CONFIG))
    refuse_other_weights(checkpoint, there, config)
    return config, notes


def plan(ask: Ask, device: torch.device) -> RunConfig:
    """What `open_session` would run, as far as it is known without preparing the pictures.

    Of a run in minutes intervals stay "auto", and width, batch and rate those of the default
    recipe if none was named: they follow from a probe of the speed.

    Args:
        ask: What is asked for.
        device: Where it would train.

    Raises:
        KaoError: As `open_session`, where it can be known.
    """
    config, exists, _ = configure(ask, device)
    data = config.data
    source = open_source(data.source, size=data.size, classes=data.classes)
    if not exists and ask.recipe is None:
        asked = ask.request(None).table
        config = sized(regularised(config, asked, len(source)), asked)
    config = with_precision(config, device)
    length = Length.parse(config.length, batch=config.training.batch)
    return with_intervals(config, length.images) if length.images else config


def waiting(ask: Ask, config: RunConfig) -> list[str]:
    """The keys that a run in minutes will choose when it starts and has measured the machine.

    Args:
        ask: What is asked for.
        config: From `plan`.
    """
    timed = Length.parse(config.length, batch=config.training.batch).minutes > 0
    begun = config.hooks.log != "auto"
    if ask.recipe is not None or not timed or begun:
        return []
    return Open.of(config, ask.request(None).table).keys
