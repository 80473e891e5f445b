"""Starting a run, or taking it up where it stopped."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import torch

from kao.checkpoints import LOSS, MODEL, Checkpoint
from kao.config import Request, RunConfig, Table, dump, leaves, load_config
from kao.config.run import CHANNELS
from kao.data.prepare import prepare
from kao.data.prepared import PreparedSet
from kao.data.sources import open_source
from kao.errors import CheckpointError, ConfigError, KaoError, OutputError, TrainingError
from kao.files import LOCK, hold, write_text, writing
from kao.machine import check_alone, check_precision, describe, versions
from kao.networks.cost import flops, parameters
from kao.runs.hooks import Checkpoints, Log, Samples, Trackers
from kao.runs.run import CONFIG, SAMPLES, Run, check_drawing
from kao.runs.sizing import (
    default_recipe,
    fitted,
    regularised,
    resolve,
    with_intervals,
    with_precision,
)
from kao.tracking import Jsonl, TensorBoard, Tracker, Wandb
from kao.training import Hook, Length, Trainer

_SIGNAL = 0.1
"""Ratio alpha / sigma at the end of a schedule past which starting from noise can be seen."""

CHANGEABLE = (
    "length",
    "hooks.",
    "sampling.",
    "tracking.",
    "data.source",
    "loss.perceptual.network",
    "optimizer.rate",
    "training.precision",
)
"""Keys that may change when a run goes on.

The first four do not touch what is learned.  Pictures may have moved: their fingerprint, not
their place, decides.  So may the file of the perceptual network, which is known by its path
alone.  Rate and precision are the ways out of a loss that is no longer finite.
"""


@dataclass
class Session:
    """A run that is about to train.

    Attributes:
        run: Its directory.
        config: Resolved, as in run.toml.
        trainer: At the point where the run stands.
        tracker: Takes its events.
        prepared: The pictures.
        lock: Keeps other processes out of the directory while it is open.
        resumed: Images seen when it was taken up; None for a new run.
        notes: What the user should be told before it starts.
    """

    run: Run
    config: RunConfig
    trainer: Trainer
    tracker: Tracker
    prepared: PreparedSet
    lock: IO[str]
    resumed: int | None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ask:
    """What a user asked for.

    Attributes:
        run: The run directory, which may exist.
        source: The pictures; None takes those of run.toml.
        recipe: Name or path; None takes the one for this machine, or what run.toml says.
        overrides: `key=value` words.
        flags: A table made of command-line flags.
    """

    run: Path
    source: str | None = None
    recipe: str | None = None
    overrides: Sequence[str] = ()
    flags: Table = field(default_factory=dict)

    def request(self, recipe: str | None) -> Request:
        """The differences from the defaults, with the source put in."""
        flags = dict(self.flags)
        if self.source is not None:
            flags["data"] = {**flags.get("data", {}), "source": self.source}
        return Request.of(recipe, self.overrides, flags)


class Plan(NamedTuple):
    """A configuration before pictures are looked at.

    Attributes:
        config: Checked; "auto" where a run that begins leaves it open.
        exists: Whether there is a run to go on with.
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
    notes: list[str] = []
    if exists:
        config, notes = _taken_up(ask)
    else:
        asked = ask.request(None).table
        recipe = ask.recipe or default_recipe(device, asked)
        config = ask.request(recipe).over(dump(RunConfig()))
        if ask.recipe is None:
            config = fitted(config, asked)
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


def plan(ask: Ask, device: torch.device) -> RunConfig:
    """What `open_session` would run, as far as it is known without preparing the pictures.

    Intervals of a run in minutes stay "auto": they follow from a probe of the speed.

    Args:
        ask: What is asked for.
        device: Where it would train.

    Raises:
        KaoError: As `open_session`, where it can be known.
    """
    config, exists, _ = configure(ask, device)
    data = config.data
    source = open_source(data.source, size=data.size, classes=data.classes)
    if exists:
        return config
    if ask.recipe is None:
        config = regularised(config, ask.request(None).table, len(source))
    config = with_precision(config, device)
    length = Length.parse(config.length, batch=config.training.batch)
    return with_intervals(config, length.images) if length.images else config


def _taken_up(ask: Ask) -> tuple[RunConfig, list[str]]:
    """The stored configuration with the changes that are allowed, and a note on each."""
    stored = Run.open(ask.run).config
    # "auto" was resolved when the run started; asking for it again asks for no change.
    asked = Request(_without_auto(ask.request(ask.recipe).table)).over(dump(stored))
    _refuse_differences(stored, asked, f"{ask.run}")
    # Of what may change, a recipe's own values are no wish: only what was typed is.
    config = Request(_without_auto(ask.request(None).table)).over(dump(stored))
    before, after = leaves(dump(stored)), leaves(dump(config))
    changed = [key for key in after if after[key] != before.get(key)]
    return config, [f"{key} was {before.get(key)!r} and is {after[key]!r} now." for key in changed]


def _without_auto(table: Table) -> Table:
    return {
        key: _without_auto(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value != "auto"
    }


def _refuse_differences(there: RunConfig, now: RunConfig, place: str) -> None:
    """Raise a ConfigError that names the keys that differ, of those that may not."""
    before, after = leaves(dump(there)), leaves(dump(now))
    differences = [
        f"{key} = {before.get(key, 'not set')!r} there and {after.get(key, 'not set')!r} now"
        for key in {**before, **after}
        if before.get(key) != after.get(key) and not key.startswith(CHANGEABLE)
    ]
    if differences:
        more = f" and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise ConfigError(
            f"{place} belongs to another configuration: {'; '.join(differences[:4])}{more}. Give "
            f"the same settings to go on with it, or another --run."
        )


def open_session(ask: Ask, device: torch.device) -> Session:
    """Prepare the pictures, resolve the configuration, build the trainer, take up the run.

    Args:
        ask: What is asked for.
        device: Where to train.

    Raises:
        KaoError: Anything that the user can mend; nothing is lost.
    """
    check_alone()
    config, exists, notes = configure(ask, device)
    _refuse_foreign(ask.run)
    data = config.data
    source = open_source(data.source, size=data.size, classes=data.classes)
    prepared = prepare(source, size=data.size, crop=data.crop)
    if exists:
        if prepared.fingerprint != data.fingerprint:
            raise ConfigError(
                f"{ask.run} belongs to another configuration: the pictures of {data.source} have "
                f"changed since it began. Bring them back to go on with it, or give another --run."
            )
    else:
        if ask.recipe is None:
            config = regularised(config, ask.request(None).table, len(prepared))
        config = resolve(config, prepared, device)
    with writing(ask.run):
        (ask.run / SAMPLES).mkdir(parents=True, exist_ok=True)
    lock = hold(ask.run)
    checkpoint, damages = Checkpoint.latest(ask.run)
    if checkpoint:
        saved = load_config(checkpoint.config, str(checkpoint.path / CONFIG))
        _refuse_differences(saved, config, f"{checkpoint.path}")
        notes += [f"{damage}: going back to {checkpoint.path.name}." for damage in damages]
        Checkpoint.set_aside(ask.run, newer_than=checkpoint.images)
    elif damages:
        raise CheckpointError(
            f"{ask.run} has no whole checkpoint to go on from ({damages[0]}): restore one, or "
            f"start again with another --run."
        )
    run = _write_directory(ask.run, config, prepared)
    resumed = checkpoint.images if checkpoint else None
    tracker = _trackers(run, config, images=resumed or 0)
    trainer = config.build(prepared, device, lambda c: _hooks(run, c, tracker))
    if checkpoint:
        checkpoint.load_into(trainer.denoiser, MODEL)
        if trainer.loss.state_dict():
            checkpoint.load_into(trainer.loss, LOSS)
        for name, average in trainer.ema.items():
            average.load(checkpoint.weights(name))
        trainer.load_state_dict(checkpoint.state())
    shape = (CHANNELS, data.size, data.size)
    start = {
        "machine": describe(),
        "versions": versions(),
        "parameters": parameters(trainer.denoiser),
        "flops": flops(config.build_denoiser("meta").network, shape),
        "precision": config.training.precision,
        "pictures": len(prepared),
        "resumed": resumed is not None,
    }
    tracker.event("start", trainer.progress.images, start)
    return Session(run, config, trainer, tracker, prepared, lock, resumed, notes)


def _refuse_foreign(path: Path) -> None:
    """Raise an OutputError for a folder that holds something and is no run."""
    if not path.is_dir() or (path / CONFIG).is_file():
        return
    found = sorted(entry.name for entry in path.iterdir() if entry.name not in (LOCK, SAMPLES))
    if found:
        raise OutputError(
            f"{path} is no run and holds {found[0]}"
            f"{f' and {len(found) - 1} more' if len(found) > 1 else ''}: give an empty or new "
            f"folder with --run."
        )


def _write_directory(path: Path, config: RunConfig, prepared: PreparedSet) -> Run:
    with writing(path):
        for name in ("audit.json", "contact.png"):
            shutil.copyfile(prepared.path / name, path / name)
    write_text(path / CONFIG, config.to_toml())
    return Run.open(path)


def _trackers(run: Run, config: RunConfig, *, images: int) -> Trackers:
    trackers: list[Tracker] = [Jsonl(run.path, images=images)]
    if config.tracking.tensorboard:
        trackers.append(TensorBoard(run.path, images=images))
    if config.tracking.wandb:
        project = config.tracking.project
        trackers.append(Wandb(run.path, project=project, config=dump(config)))
    return Trackers(trackers)


def _hooks(run: Run, config: RunConfig, tracker: Tracker) -> list[Hook]:
    hooks = config.hooks
    return [
        Log(tracker, every=int(hooks.log)),
        # Before the grids, which may take long, or fail.
        Checkpoints(run.path, config, tracker, every=int(hooks.checkpoints)),
        Samples(run.path, config, tracker, every=int(hooks.samples)),
    ]


def finish(session: Session, error: KaoError | None = None) -> str:
    """Write the last event, close the trackers, let go of the directory.

    After a loss that is no longer finite the weights before it are saved first.

    Args:
        session: Whose steps have ended.
        error: What ended them, if it was one of ours.

    Returns:
        "finished", "interrupted" or "failed".
    """
    trainer = session.trainer
    if isinstance(error, TrainingError):
        for hook in trainer.hooks:
            if isinstance(hook, Checkpoints):
                hook(trainer)
    reason = "failed" if error else "finished" if trainer.done >= 1 else "interrupted"
    session.tracker.event(
        "end",
        trainer.progress.images,
        {"seconds": round(trainer.progress.seconds, 1), "reason": reason},
    )
    session.tracker.close()
    session.lock.close()
    return reason
