"""Starting a run, or taking it up where it stopped."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from kao.checkpoints import MODEL, Checkpoint
from kao.config import Request, RunConfig, Table, dump, leaves
from kao.config.run import CHANNELS
from kao.data.prepare import prepare
from kao.data.prepared import PreparedSet
from kao.data.sources import open_source
from kao.errors import CheckpointError, ConfigError, KaoError
from kao.files import write_text, writing
from kao.machine import check_alone, check_precision, describe, versions
from kao.networks.cost import flops, parameters
from kao.runs.hooks import Checkpoints, Log, Samples, Trackers
from kao.runs.run import CONFIG, SAMPLES, Run
from kao.runs.sizing import default_recipe, fitted, regularised, resolve
from kao.tracking import Jsonl, TensorBoard, Tracker, Wandb
from kao.training import Hook, Trainer

CHANGEABLE = ("length", "hooks.", "sampling.", "tracking.")
"""Keys that do not change what was learned so far, and so may change when a run goes on."""


@dataclass
class Session:
    """A run that is about to train.

    Attributes:
        run: Its directory.
        config: Resolved, as in run.toml.
        trainer: At the point where the run stands.
        tracker: Takes its events.
        prepared: The pictures.
        resumed: Images seen when it was taken up; None for a new run.
        notes: What the user should be told before it starts.
    """

    run: Run
    config: RunConfig
    trainer: Trainer
    tracker: Tracker
    prepared: PreparedSet
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


def configure(ask: Ask, device: torch.device) -> tuple[RunConfig, bool]:
    """The configuration that is asked for, before pictures are looked at.

    Args:
        ask: What is asked for.
        device: Where it will train.

    Returns:
        The configuration, and whether the run exists.

    Raises:
        ConfigError: A key or value cannot work, no pictures are named, or the run exists with
            another configuration (the keys that differ are named).
    """
    exists = (ask.run / CONFIG).is_file()
    if exists:
        stored = Run.open(ask.run).config
        config = _taken_up(stored, ask.request(ask.recipe).table, ask.run)
    else:
        asked = ask.request(None).table
        recipe = ask.recipe or default_recipe(device, asked)
        config = ask.request(recipe).over(dump(RunConfig()))
        if ask.recipe is None:
            config = fitted(config, asked)
    if not config.data.source:
        raise ConfigError(
            "No pictures are named: give a folder or a zip file of pictures, hf:NAME, or toy."
        )
    config.check()
    if config.training.precision != "auto":
        check_precision(config.training.precision, device)
    return config, exists


def _taken_up(stored: RunConfig, asked: Table, run: Path) -> RunConfig:
    """The stored configuration with the changes that are allowed."""
    request = Request(asked)
    before, after = leaves(dump(stored)), leaves(dump(request.over(dump(stored))))
    # "auto" was resolved when the run started; asking for it again asks for no change.
    changes = {
        key: value
        for key, value in after.items()
        if value != before.get(key) and value != "auto" and not _same_place(key, value, before)
    }
    refused = [key for key in changes if not key.startswith(CHANGEABLE)]
    gone = [key for key in before if key not in after and not key.startswith(CHANGEABLE)]
    if refused or gone:
        shown = [f"{key} = {before.get(key)!r} there and {changes[key]!r} now" for key in refused]
        shown += [f"{key} = {before[key]!r} there and not at all now" for key in gone]
        more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
        raise ConfigError(
            f"{run} belongs to another configuration: {'; '.join(shown[:4])}{more}. Give the same "
            f"settings to go on with it, or another --run."
        )
    allowed = {k: v for k, v in changes.items() if k.startswith(CHANGEABLE)}
    if not allowed:
        return stored
    changed = request.over(dump(stored))
    return replace(
        stored,
        length=changed.length,
        sampling=changed.sampling,
        tracking=changed.tracking,
        hooks=replace(
            stored.hooks,
            **{k.removeprefix("hooks."): v for k, v in allowed.items() if k.startswith("hooks.")},
        ),
    )


def _same_place(key: str, value: Any, before: dict[str, Any]) -> bool:
    """Whether two spellings of data.source are one place."""
    if key != "data.source" or not before.get(key):
        return False
    return Path(str(value)).resolve() == Path(str(before[key])).resolve()


def open_session(ask: Ask, device: torch.device) -> Session:
    """Prepare the pictures, resolve the configuration, build the trainer, take up the run.

    Args:
        ask: What is asked for.
        device: Where to train.

    Raises:
        KaoError: Anything that the user can mend; nothing is lost.
    """
    check_alone()
    config, exists = configure(ask, device)
    data = config.data
    source = open_source(data.source, size=data.size, classes=data.classes)
    prepared = prepare(source, size=data.size, crop=data.crop)
    notes: list[str] = []
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
    run = _write_directory(ask.run, config, prepared)

    checkpoint, damages = Checkpoint.latest(run.path)
    if damages and checkpoint:
        notes += [f"{damage}: going back to {checkpoint.path.name}." for damage in damages]
    elif damages:
        raise CheckpointError(
            f"{run.path} has no whole checkpoint to go on from ({damages[0]}): restore one, or "
            f"start again with another --run."
        )
    resumed = checkpoint.images if checkpoint else None
    tracker = _trackers(run, config, images=resumed or 0)
    trainer = config.build(prepared, device, lambda c: _hooks(run, c, tracker))
    if checkpoint:
        checkpoint.load_into(trainer.denoiser, MODEL)
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
    return Session(run, config, trainer, tracker, prepared, resumed, notes)


def _write_directory(path: Path, config: RunConfig, prepared: PreparedSet) -> Run:
    with writing(path):
        (path / SAMPLES).mkdir(parents=True, exist_ok=True)
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
        Samples(run.path, config, tracker, every=int(hooks.samples)),
        Checkpoints(run.path, config, tracker, every=int(hooks.checkpoints)),
    ]


def finish(session: Session, error: KaoError | None = None) -> str:
    """Write the last event and close the trackers.

    Returns:
        "finished", "interrupted" or "failed".
    """
    trainer = session.trainer
    reason = "failed" if error else "finished" if trainer.done >= 1 else "interrupted"
    session.tracker.event(
        "end",
        trainer.progress.images,
        {"seconds": round(trainer.progress.seconds, 1), "reason": reason},
    )
    session.tracker.close()
    return reason
