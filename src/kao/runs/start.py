"""Starting a run, or taking it up where it stopped."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO

import torch

from kao.checkpoints import Checkpoint
from kao.config import RunConfig, dump, load_config
from kao.config.run import CHANNELS
from kao.data.keeping import place
from kao.data.prepared import PreparedSet
from kao.errors import (
    CheckpointError,
    KaoError,
    LoneError,
    OutputError,
    TrainingError,
)
from kao.machine import describe, keep_freed_memory, versions
from kao.networks.cost import flops, parameters
from kao.processes import Processes, join, leave
from kao.runs.ask import Ask
from kao.runs.averages import Snapshots
from kao.runs.blackbox import BlackBox
from kao.runs.changes import once_open, recipe_of, refuse_changes
from kao.runs.deciding import decide
from kao.runs.directory import held, write
from kao.runs.held_out import HeldOut
from kao.runs.hooks import Log, Samples, Trackers
from kao.runs.planning import origin_of
from kao.runs.provenance import Provenance
from kao.runs.restoring import carry, restore
from kao.runs.run import CONFIG, Run
from kao.runs.saving import Checkpoints, Forgiving, Notices, Patient
from kao.runs.score_drawing import opened_space
from kao.runs.scoring import Scoring, drop_later_best
from kao.runs.timetable import intervals
from kao.runs.yardstick import FEWEST
from kao.tracking import METRICS, Jsonl, TensorBoard, Tracker, Wandb
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
        news: How it fares, for whoever wants to hear it while it trains.
        scoring: Its hook that scores; None where it is not scored.
        notes: What the user should be told before it starts.
        plan: What was chosen and measured for it, and how its time will be spent.
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
    news: Notices
    scoring: Scoring | None
    notes: list[str]
    plan: list[str]


def open_session(ask: Ask, device: torch.device) -> Session:
    """Prepare the pictures, resolve the configuration, build the trainer, take up the run.

    Several processes do this together; the first of them writes.  It decides, builds and restores
    before it writes, so that a start that is refused changes nothing of a run.

    Args:
        ask: What is asked for.
        device: Where to train.

    Raises:
        KaoError: Anything that the user can mend; nothing is lost.
    """
    processes = join(device)
    if device.type == "cpu":
        keep_freed_memory()
    decided = decide(ask, device, processes)
    ask, config, prepared, notes = decided.ask, decided.config, decided.prepared, decided.notes
    with ExitStack() as undo:
        lock = held(ask.home, tell=notes.append) if processes.main else None
        if lock is not None:
            undo.callback(lock.close)
        checkpoint, damages = processes.broadcast(_newest(ask, config) if processes.main else None)
        notes += damages
        origin = _origin(ask, checkpoint)
        resumed = checkpoint.images if checkpoint else None

        run, notices, news, tracker = Run(ask.home), Notices(), Notices(), Trackers()
        undo.callback(tracker.close)
        checkpoints = Checkpoints(
            run.path,
            config,
            tracker,
            notices,
            every=int(config.hooks.checkpoints),
            card={"branched_from": origin} if origin else {},
            saved=None if ask.branch else resumed,
        )
        scoring = None
        if config.evaluation.every != 0:
            scoring = _scoring(
                run,
                config,
                prepared,
                processes,
                tracker,
                news,
                notices,
            )
        hooks = _hooks(run, config, prepared, tracker, notices, checkpoints, scoring)
        kept = place(prepared, config.data.keep, device, processes=processes.local_world)
        trainer = config.build(
            prepared,
            device,
            lambda _: hooks,
            processes=processes,
            kept=kept,
            reserve=decided.reserve,
            weights=decided.weights,
        )
        if processes.main:
            trainer.guard.tell = BlackBox(run.path, tracker, notices)
        if checkpoint:
            notes += _filled(trainer, checkpoint, ask, config)
        if processes.main:
            _connect(tracker, run, config, notices)

        # Nothing is refused from here on, but by the disk.
        if processes.main:
            write(ask, config, prepared, checkpoint)
            _log(tracker, run, config, notices, images=resumed or 0)
            drop_later_best(run.path, images=resumed or 0)
        processes.wait()
        shape = (CHANNELS, config.data.size, config.data.size)
        start = {
            "machine": describe(),
            "versions": versions(),
            "processes": processes.world,
            "parameters": parameters(trainer.denoiser),
            "flops": flops(config.build_denoiser("meta").network, shape),
            "precision": config.training.precision,
            "rate": config.optimizer.rate,
            "pictures": len(prepared),
            "keep": kept,
            "resumed": resumed is not None,
            "recipe": recipe_of(ask.run) if resumed is not None and not ask.branch else ask.recipe,
            "auto": list(dict.fromkeys([*once_open(ask), *decided.opened])),
            **({"branched_from": origin} if origin else {}),
            **_began_with(config, decided.provenance),
        }
        tracker.event("start", trainer.progress.images, start)
        if ask.branch or decided.weights is not None:
            # So that it goes on if it is killed before its first, and its origin is gone.
            checkpoints.save(trainer)
        undo.pop_all()
    return Session(
        run,
        config,
        trainer,
        tracker,
        prepared,
        lock,
        resumed,
        checkpoints,
        notices,
        news,
        scoring,
        notes,
        decided.plan,
    )


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
    return checkpoint, [f"{damage}: going back to {checkpoint.path.name}." for damage in damages]


def _origin(ask: Ask, checkpoint: Checkpoint | None) -> str | None:
    """The checkpoint that a run was branched from, now or when it began."""
    if ask.branch:
        return str(checkpoint.path) if checkpoint else None
    return origin_of(ask.run)


def _began_with(config: RunConfig, provenance: Provenance) -> dict[str, str | None]:
    """What the first event says of the base; nothing where it began with noise."""
    base = config.finetune.base
    return {"base": base, **provenance.told()} if base else {}


def _filled(trainer: Trainer, checkpoint: Checkpoint, ask: Ask, config: RunConfig) -> list[str]:
    """Put what was learned into a trainer; returns what the user should be told of it."""
    if ask.branch is None:
        restore(checkpoint, trainer)
        return []
    there = load_config(checkpoint.config, str(checkpoint.path / CONFIG))
    return [
        f"{ask.branch} begins with what {checkpoint.path} has learned.",
        *carry(checkpoint, trainer, there=there, now=config),
    ]


def _connect(tracker: Trackers, run: Run, config: RunConfig, notices: Notices) -> None:
    """Add the tracker that may be refused, by a service."""
    if config.tracking.wandb:
        project = config.tracking.project
        tracker.add(Patient(Wandb(run.path, project=project, config=dump(config)), notices))


def _log(tracker: Trackers, run: Run, config: RunConfig, notices: Notices, *, images: int) -> None:
    """Add the trackers that write into the directory; what they have past those images goes."""
    tracker.add(Patient(Jsonl(run.path, images=images), notices))
    if config.tracking.tensorboard:
        try:
            tracker.add(Patient(TensorBoard(run.path, images=images), notices))
        except UnicodeEncodeError:
            notices.add(
                f"TensorBoard takes no folder whose name is not UTF-8, as {run.path}: the run goes "
                f"on without it, and {METRICS} has all that it would show."
            )


def _scoring(
    run: Run,
    config: RunConfig,
    prepared: PreparedSet,
    processes: Processes,
    tracker: Tracker,
    news: Notices,
    notices: Notices,
) -> Scoring | None:
    """The hook that scores; None where there are too few pictures to be held against."""
    trained = len(prepared) - int(config.data.held_out)
    if trained < FEWEST:
        return None
    return Scoring(
        run.path,
        config,
        prepared,
        opened_space(config, processes),
        tracker,
        news=news,
        notices=notices,
    )


def _hooks(
    run: Run,
    config: RunConfig,
    prepared: PreparedSet,
    tracker: Tracker,
    notices: Notices,
    checkpoints: Checkpoints,
    scoring: Scoring | None,
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
    if scoring is not None:  # after the held-out loss, which its verdict goes by
        hooks["evaluation"] = forgiving(scoring)
    hooks["samples"] = forgiving(Samples(run.path, config, tracker, every=every["samples"]))
    return hooks


@contextmanager
def ending(session: Session) -> Iterator[None]:
    """Around the steps of a run: what ends them too early is dealt with, and goes on its way.

    Args:
        session: Whose steps are taken inside; `finish` it after them.
    """
    try:
        yield
    except KaoError as error:
        finish(session, error)
        raise
    except KeyboardInterrupt:
        finish(session)
        raise
    except Exception:
        # A fault of a program: the other processes know nothing of it, and would wait.
        leave(waiting=False)
        raise


def finish(session: Session, error: KaoError | None = None) -> str:
    """Save what is still unsaved, write the last event, let go of the directory.

    After a loss that is no longer finite the weights before it are saved first, unless they are
    those that the run was taken up with.  What ended one of several processes alone lets go of the
    others instead: saving would take them all.

    Args:
        session: Whose steps have ended.
        error: What ended them, if it was one of ours.

    Returns:
        "finished", "stopped" (by a verdict), "interrupted" or "failed".

    Raises:
        OutputError: The last weights cannot be saved, and nothing else has failed.
        LoneError: Nor can they, since another process is gone.
    """
    trainer = session.trainer
    unsaved: KaoError | None = None
    alone = _alone(error, trainer.processes)
    try:
        if error is None:
            session.checkpoints.settle(trainer)
        elif isinstance(error, TrainingError) and not alone:
            if trainer.progress.images > (session.resumed or 0):  # else there is nothing new
                with suppress(KaoError):  # what ended the run is what the user must hear of
                    session.checkpoints.rescue(trainer)
    except KaoError as refused:
        unsaved = refused
    if alone or _alone(unsaved, trainer.processes):
        leave(waiting=False)
    failed = error is not None or unsaved is not None
    stopped = session.scoring is not None and session.scoring.stopped
    early = "stopped" if stopped else "interrupted"
    reason = "failed" if failed else "finished" if trainer.done >= 1 else early
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


def _alone(error: KaoError | None, processes: Processes) -> bool:
    """Whether an error ended this process, and others may go on without it.

    A loss that is not finite is the same figure in all, and what the first one cannot write it
    tells the others.
    """
    if error is None or processes.world == 1:
        return False
    return isinstance(error, LoneError) or not isinstance(error, TrainingError | OutputError)
