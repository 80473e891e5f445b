"""Starting a run, or taking it up where it stopped."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from kao.checkpoints import Checkpoint, Snapshot
from kao.config import RunConfig, dump, load_config
from kao.config.run import CHANNELS
from kao.data.keeping import place
from kao.data.prepare import prepare
from kao.data.prepared import PreparedSet
from kao.data.sources import open_source
from kao.errors import CheckpointError, ConfigError, KaoError, OutputError, TrainingError
from kao.files import LOCK, hold, write_text, writing
from kao.machine import describe, keep_freed_memory, versions
from kao.networks.cost import flops, parameters
from kao.processes import TURNS, Processes, join
from kao.runs.ask import Ask
from kao.runs.averages import Snapshots
from kao.runs.blackbox import BlackBox
from kao.runs.changes import once_open, open_intervals, refuse_changes
from kao.runs.held_out import HeldOut
from kao.runs.hooks import Log, Samples, Trackers
from kao.runs.planning import configure
from kao.runs.restoring import carry, restore
from kao.runs.run import CONFIG, SAMPLES, Run
from kao.runs.saving import Checkpoints, Forgiving, Notices, Patient
from kao.runs.sizing import regularised, resolve
from kao.runs.timetable import intervals
from kao.tracking import Jsonl, TensorBoard, Tracker, Wandb, read_events
from kao.training import Hook, Trainer


@dataclass
class Session:
    """A run that is about to train.

    Attributes:
        run: Its directory.
        config: Resolved, as in run.toml.
        trainer: At the point where the run stands.
        tracker: Takes its events.
        prepared: The pictures.
        lock: Keeps other processes out of the directory while it is open; None in all but the
            first of several that train together.
        resumed: Images seen when it was taken up; None for a new run.
        checkpoints: Its hook that saves.
        notices: What the user should be told while it trains.
        notes: What the user should be told before it starts.
    """

    run: Run
    config: RunConfig
    trainer: Trainer
    tracker: Tracker
    prepared: PreparedSet
    lock: IO[str] | None
    resumed: int | None
    checkpoints: Checkpoints
    notices: Notices
    notes: list[str]


def open_session(ask: Ask, device: torch.device) -> Session:
    """Prepare the pictures, resolve the configuration, build the trainer, take up the run.

    Several processes do this together; the first of them writes.

    Args:
        ask: What is asked for.
        device: Where to train.

    Raises:
        KaoError: Anything that the user can mend; nothing is lost.
    """
    processes = join(device)
    if device.type == "cpu":
        keep_freed_memory()
    config, exists, notes = configure(ask, device)
    if processes.main:
        _refuse_foreign(ask.home)
    prepared = _prepared(config, processes)
    if exists and prepared.fingerprint != config.data.fingerprint:
        raise ConfigError(
            f"{ask.run} belongs to another configuration: the pictures of {config.data.source} "
            f"have changed since it began. Bring them back to go on with it, or give another --run."
        )
    asked = ask.request(None).table if not exists and ask.recipe is None else None
    if asked is not None:
        config = regularised(config, asked, len(prepared))
    opened = open_intervals(config)
    reserve: Mapping[str, float] = {}  # a run that is taken up has its own saved
    if opened or not exists:
        resolved = resolve(config, prepared, device, asked=asked, processes=processes)
        config, reserve = resolved.config, resolved.reserve
        notes = [*notes, *resolved.notes]

    lock = _held(ask.home) if processes.main else None
    checkpoint, more = processes.broadcast(_newest(ask, config) if processes.main else None)
    notes += more
    if processes.main:
        _write_directory(ask.home, config, prepared)
        Snapshot.drop(ask.home, newer_than=checkpoint.images if checkpoint else 0)
    processes.wait()
    run = Run(ask.home)
    origin = _origin(ask, checkpoint)
    resumed = checkpoint.images if checkpoint else None
    notices = Notices()
    tracker = _trackers(run, config, notices, processes, images=resumed or 0)
    checkpoints = Checkpoints(
        run.path,
        config,
        tracker,
        notices,
        every=int(config.hooks.checkpoints),
        card={"branched_from": origin} if origin else {},
        saved=None if ask.branch else resumed,
    )
    hooks = _hooks(run, config, prepared, tracker, notices, checkpoints)
    trainer = config.build(
        prepared,
        device,
        lambda _: list(hooks.values()),
        processes=processes,
        reserve=[reserve.get(name, 0.0) for name in hooks],
    )
    if processes.main:
        trainer.guard.tell = BlackBox(run.path, tracker, notices)
    if checkpoint and ask.branch:
        notes.append(f"{ask.branch} begins with what {checkpoint.path} has learned.")
        there = load_config(checkpoint.config, str(checkpoint.path / CONFIG))
        notes += carry(checkpoint, trainer, there=there, now=config)
    elif checkpoint:
        restore(checkpoint, trainer)
    shape = (CHANNELS, config.data.size, config.data.size)
    start = {
        "machine": describe(),
        "versions": versions(),
        "processes": processes.world,
        "parameters": parameters(trainer.denoiser),
        "flops": flops(config.build_denoiser("meta").network, shape),
        "precision": config.training.precision,
        "pictures": len(prepared),
        "keep": place(prepared, config.data.keep, device, processes=processes.world),
        "resumed": resumed is not None,
        "auto": opened or once_open(ask),
        **({"branched_from": origin} if origin else {}),
    }
    tracker.event("start", trainer.progress.images, start)
    if ask.branch:
        checkpoints.save(trainer)  # so that the branch goes on if it is killed before its first
    return Session(
        run, config, trainer, tracker, prepared, lock, resumed, checkpoints, notices, notes
    )


def _prepared(config: RunConfig, processes: Processes) -> PreparedSet:
    """The pictures.

    The first process prepares them, then the first of each machine, which finds them prepared if
    the cache is shared; the others find them in any case.
    """
    data = config.data
    source = open_source(data.source, size=data.size, classes=data.classes)
    for turn in range(TURNS):
        if turn == processes.turn:
            prepared = prepare(source, size=data.size, crop=data.crop)
        processes.wait()
    return prepared


def _held(path: Path) -> IO[str]:
    """A run directory with what belongs there, kept from other processes."""
    with writing(path):
        (path / SAMPLES).mkdir(parents=True, exist_ok=True)
    return hold(path)


def _newest(ask: Ask, config: RunConfig) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to go on from, and a note on each that is damaged."""
    checkpoint, damages = Checkpoint.latest(ask.run)
    if checkpoint is None and (damages or ask.branch):
        raise CheckpointError(
            f"{ask.run} has no whole checkpoint to go on from"
            f"{f' ({damages[0]})' if damages else ''}: restore one, or start again with another "
            f"--run."
        )
    if checkpoint is None:
        return None, []
    if ask.branch is None:
        saved = load_config(checkpoint.config, str(checkpoint.path / CONFIG))
        refuse_changes(saved, config, f"{checkpoint.path}")
        Checkpoint.set_aside(ask.run, newer_than=checkpoint.images)
    return checkpoint, [f"{damage}: going back to {checkpoint.path.name}." for damage in damages]


def _origin(ask: Ask, checkpoint: Checkpoint | None) -> str | None:
    """The checkpoint that a run was branched from, now or when it began."""
    if ask.branch:
        return str(checkpoint.path) if checkpoint else None
    told = (event.get("branched_from") for event in read_events(ask.run))
    return next((origin for origin in told if origin), None)


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


def _write_directory(path: Path, config: RunConfig, prepared: PreparedSet) -> None:
    with writing(path):
        for name in ("audit.json", "contact.png"):
            shutil.copyfile(prepared.path / name, path / name)
    write_text(path / CONFIG, config.to_toml())


def _trackers(
    run: Run, config: RunConfig, notices: Notices, processes: Processes, *, images: int
) -> Trackers:
    if not processes.main:
        return Trackers([])
    trackers: list[Tracker] = [Jsonl(run.path, images=images)]
    if config.tracking.tensorboard:
        trackers.append(TensorBoard(run.path, images=images))
    if config.tracking.wandb:
        project = config.tracking.project
        trackers.append(Wandb(run.path, project=project, config=dump(config)))
    return Trackers([Patient(tracker, notices) for tracker in trackers])


def _hooks(
    run: Run,
    config: RunConfig,
    prepared: PreparedSet,
    tracker: Tracker,
    notices: Notices,
    checkpoints: Checkpoints,
) -> dict[str, Hook]:
    """By the names of `timetable.COUNTS`, in the order in which they are called."""
    every = intervals(config)

    def forgiving(hook: Hook) -> Hook:
        return Forgiving(hook, tracker, notices)

    hooks: dict[str, Hook] = {"log": Log(tracker, every=every["log"])}
    if every["snapshots"]:
        hooks["snapshots"] = forgiving(Snapshots(run.path, tracker, every=every["snapshots"]))
    # Before what may take long, or fail.
    hooks["checkpoints"] = checkpoints
    if every["held_out"]:
        hooks["held_out"] = HeldOut(
            prepared, tracker, held_out=int(config.data.held_out), every=every["held_out"]
        )
    hooks["samples"] = forgiving(Samples(run.path, config, tracker, every=every["samples"]))
    return hooks


def finish(session: Session, error: KaoError | None = None) -> str:
    """Save what is still unsaved, write the last event, let go of the directory.

    After a loss that is no longer finite the weights before it are saved first.

    Args:
        session: Whose steps have ended.
        error: What ended them, if it was one of ours.

    Returns:
        "finished", "interrupted" or "failed".

    Raises:
        OutputError: The last weights cannot be saved, and nothing else has failed.
    """
    trainer, unsaved = session.trainer, None
    try:
        if error is None:
            session.checkpoints.settle(trainer)
        elif isinstance(error, TrainingError):
            with suppress(KaoError):  # what ended the run is what the user must hear of
                session.checkpoints(trainer)
    except OutputError as refused:
        unsaved = refused
    failed = error is not None or unsaved is not None
    reason = "failed" if failed else "finished" if trainer.done >= 1 else "interrupted"
    session.tracker.event(
        "end",
        trainer.progress.images,
        {"seconds": round(trainer.progress.seconds, 1), "reason": reason},
    )
    session.tracker.close()
    if session.lock is not None:
        session.lock.close()
    if unsaved is not None:
        raise unsaved
    return reason
