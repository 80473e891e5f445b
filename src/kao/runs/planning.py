"""Which configuration a run would have, before its pictures are looked at."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from kao.checkpoints import Checkpoint, Snapshot
from kao.config import RunConfig, dump, load_config
from kao.data.sources import open_source
from kao.errors import CheckpointError, ConfigError, OutputError
from kao.machine import check_precision
from kao.runs.ask import Ask
from kao.runs.bases import Base, open_base
from kao.runs.beginning import asked_over, begun, refuse_misplaced, refuse_without_a_base, same_base
from kao.runs.changes import branched, taken_up
from kao.runs.classes import with_classes
from kao.runs.importing import refuse_imported
from kao.runs.restoring import refuse_other_weights
from kao.runs.run import CONFIG, check_drawing
from kao.runs.scaling import Open
from kao.runs.sizing import (
    SIBLINGS,
    default_recipe,
    fitted,
    regularised,
    sized,
    with_precision,
)
from kao.runs.small_data import expected_of_few, stopped_for_few, trained_on
from kao.runs.timetable import with_intervals
from kao.tracking import read_events
from kao.training import Length

_SIGNAL = 0.1
"""Ratio alpha / sigma at the end of a schedule past which starting from noise can be seen."""


class Plan(NamedTuple):
    """A configuration before pictures are looked at.

    Attributes:
        config: Checked; "auto" where a run that begins leaves it open.
        exists: Whether there is a run to go on with, or to branch from.
        notes: What changes in it.
        ask: What is asked for; of a branch that was begun already, to go on with it.
        base: What a run that begins does so with; None: noise, or it goes on.
    """

    config: RunConfig
    exists: bool
    notes: list[str]
    ask: Ask
    base: Base | None = None


def configure(ask: Ask, device: torch.device) -> Plan:
    """The configuration that is asked for, before pictures are looked at.

    A directory whose run has not come to its first checkpoint begins anew.  Nothing is written.

    Args:
        ask: What is asked for.
        device: Where it will train.

    Raises:
        ConfigError: A key or value cannot work, no pictures are named, or the run exists with
            another configuration (the keys that differ are named).
        CheckpointError: The run was imported; or its checkpoints, its base, or the worse model of
            [sampling.guidance], are missing.
        MissingExtraError: The base needs a package that is not installed.
        OutputError: There is another run where the branch is to be.
    """
    ask = _meant(ask)
    _refuse_lost(ask.home)
    refuse_imported(ask.run)
    if ask.base is not None:
        refuse_misplaced(ask)
    exists, base = _exists(ask), None
    if ask.branch is not None:
        config, notes = _branch(ask)
    elif exists:
        config, notes = taken_up(ask)
        notes += same_base(ask, config.finetune)
    elif ask.base is not None:
        base = open_base(ask.base)
        config = asked_over(base, ask)
        notes = [*base.notes, *_signal_at_the_end(config)]
        _refuse_misplaced_stop(config)
    else:
        asked = ask.request(None).table
        recipe = ask.recipe or default_recipe(device, asked)
        config = ask.request(recipe).over(dump(RunConfig()))
        if ask.recipe is None:
            config = fitted(config, asked, device)
        refuse_without_a_base(config, ask)
        notes = [*_sibling(ask), *_signal_at_the_end(config)]
        _refuse_misplaced_stop(config)
    if not config.data.source:
        raise ConfigError(
            "No pictures are named: give a folder or a zip file of pictures, hf:NAME, or toy."
        )
    config.check()
    check_drawing(config)
    if config.training.precision != "auto":
        check_precision(config.training.precision, device)
    return Plan(config, exists, notes, ask, base)


def _meant(ask: Ask) -> Ask:
    """What is asked for; where a branch of this run was begun already, to go on with that."""
    if ask.branch is None or not Checkpoint.all(ask.branch):
        return ask
    origin = origin_of(ask.branch)
    # RUN/checkpoints/000012800
    if origin is None or Path(origin).parents[1].resolve() != ask.run.resolve():
        return ask
    return replace(ask, run=ask.branch, branch=None)


def origin_of(run: Path) -> str | None:
    """The checkpoint that a run was branched from; None where it was not."""
    told = (event.get("branched_from") for event in read_events(run))
    return next((origin for origin in told if origin), None)


def _refuse_lost(run: Path) -> None:
    """Raise a CheckpointError where a run has saved something, and nothing of it is there.

    To begin anew would remove what is left of it.
    """
    if Checkpoint.all(run):
        return
    saved = any(event["event"] == "checkpoint" for event in read_events(run))
    if saved or Snapshot.all(run):
        raise CheckpointError(
            f"{run} was saved, and its checkpoints are missing: bring them back, or give another "
            f"--run."
        )


def _exists(ask: Ask) -> bool:
    return (ask.run / CONFIG).is_file() and bool(Checkpoint.all(ask.run))


def _refuse_misplaced_stop(config: RunConfig) -> None:
    """Raise a ConfigError where scores should stop the run and none are taken."""
    if config.evaluation.stop == "auto" and config.evaluation.every == 0:
        raise ConfigError(
            'evaluation.stop = "auto" goes by scores, and evaluation.every = 0 takes none: set '
            'evaluation.every = "auto", or leave evaluation.stop at "never".'
        )


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
        OutputError: There is another run of that name.
        CheckpointError: There is nothing to branch from.
        ConfigError: What was learned cannot be carried into that configuration.
    """
    if Checkpoint.all(ask.home):
        raise OutputError(
            f"{ask.branch} exists already and is no branch of {ask.run}: go on with it with --run "
            f"{ask.branch} and without --branch, or give the branch another name."
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


class Foreseen(NamedTuple):
    """What a run would be.

    Attributes:
        config: As far as it is known.
        notes: Where it would go on, or what would be kept, converted and chosen of a base and what
            is new, and what else the user should be told.
    """

    config: RunConfig
    notes: list[str]


def plan(ask: Ask, device: torch.device) -> RunConfig:
    """The configuration of `foreseen`."""
    return foreseen(ask, device).config


def foreseen(ask: Ask, device: torch.device) -> Foreseen:
    """What `open_session` would run, as far as it is known without preparing the pictures.

    Of a run in minutes intervals stay "auto", and width, batch and rate those of the default
    recipe if none was named: they follow from a probe of the speed.

    Args:
        ask: What is asked for.
        device: Where it would train.

    Raises:
        KaoError: As `open_session`, where it can be known.
    """
    config, exists, notes, ask, base = configure(ask, device)
    if exists:
        notes = [_standing(ask, config), *notes]
    data = config.data
    source = open_source(data.source, size=data.size, classes=data.classes)
    if not exists:
        config = with_classes(config, source.classes)
        notes = [*notes, *expected_of_few(trained_on(config, len(source)))]
    config = with_precision(config, device)
    if base is not None:
        trained = trained_on(config, len(source))
        config, _, told = begun(config, base, ask, trained=trained)
        notes += told
    elif not exists and ask.recipe is None:
        asked = ask.request(None).table
        config = sized(regularised(config, asked, len(source)), asked, device)
    length = Length.parse(config.length, batch=config.training.batch)
    if length.images:
        config = with_intervals(config, length.images)
    if base is not None:
        config, told = stopped_for_few(config, ask.request(ask.recipe).table, trained)
        notes += told
    return Foreseen(config, notes)


def _standing(ask: Ask, config: RunConfig) -> str:
    """A sentence on the run that exists and would be gone on with, or branched from.

    Args:
        ask: Names it.
        config: That it would have.
    """
    checkpoint, _ = Checkpoint.latest(ask.run)
    images = 0 if checkpoint is None else checkpoint.images
    if ask.branch is not None:
        return f"{ask.branch} would begin with what {ask.run} has learned in {images:,} images."
    base = config.finetune.base
    began = f", and began with {base}" if base else ""
    return (
        f"{ask.run} exists, at {images:,} images{began}: it would go on from there, unless its "
        f"{config.length} are over."
    )


def _sibling(ask: Ask) -> list[str]:
    """A sentence on the recipe that a run begins with for its kind of network alone.

    Args:
        ask: What is asked for.
    """
    if ask.recipe is not None:
        return []
    recipe = default_recipe(torch.device("cpu"), ask.request(None).table)
    kinds = [kind for kind, name in SIBLINGS.items() if name == recipe]
    return [
        f'No recipe is named: network.kind = "{kind}" begins with {recipe}, for 32x32 pixels; '
        f"the name of another goes behind that of the pictures."
        for kind in kinds
    ]


def waiting(ask: Ask, config: RunConfig) -> list[str]:
    """The keys that a run in minutes will choose when it starts and has measured the machine.

    Args:
        ask: What is asked for.
        config: From `plan`.
    """
    timed = Length.parse(config.length, batch=config.training.batch).minutes > 0
    if ask.recipe is not None or ask.base is not None or not timed or _exists(ask):
        return []
    return Open.of(config, ask.request(None).table).keys
