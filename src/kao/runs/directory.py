"""The directory of a run that starts: whether it may be used, who holds it, what it says."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

from kao.checkpoints import FOLDER, Checkpoint, Snapshot
from kao.config import RunConfig
from kao.data.prepared import PreparedSet
from kao.errors import OutputError
from kao.files import LOCK, bring_back, hold, write_text, writing
from kao.runs.ask import Ask
from kao.runs.run import CONFIG, SAMPLES
from kao.tracking import WANDB

_EMPTY = (LOCK, SAMPLES, WANDB)
"""What a start that was refused may leave in a directory that is no run yet."""


def refuse_foreign(path: Path) -> None:
    """Raise an OutputError for a folder that holds something and is no run."""
    if not path.is_dir() or (path / CONFIG).is_file():
        return
    found = sorted(entry.name for entry in path.iterdir() if entry.name not in _EMPTY)
    if found:
        raise OutputError(
            f"{path} is no run and holds {found[0]}"
            f"{f' and {len(found) - 1} more' if len(found) > 1 else ''}: give an empty or new "
            f"folder with --run."
        )


def held(path: Path, *, tell: Callable[[str], None]) -> IO[str]:
    """A run directory with what belongs there, kept from other processes.

    Args:
        path: Made where it is missing.
        tell: Called with a sentence where the file system has no locks.

    Returns:
        What keeps it, until it is closed.

    Raises:
        OutputError: Another process holds it, or it cannot be made.
    """
    with writing(path):
        (path / SAMPLES).mkdir(parents=True, exist_ok=True)
    lock = hold(path, tell=tell)
    bring_back(path / FOLDER)
    return lock


def write(
    ask: Ask, config: RunConfig, prepared: PreparedSet, checkpoint: Checkpoint | None
) -> None:
    """Say in the directory what the run is from now on; what is past the checkpoint goes.

    Args:
        ask: Says which directory.
        config: Resolved.
        prepared: The pictures; what they are like is copied.
        checkpoint: That the run is taken up with, or branched from.

    Raises:
        OutputError: The disk is full or not writable.
    """
    path, images = ask.home, checkpoint.images if checkpoint else 0
    # First, since it makes the directory a run, which may be begun again.
    write_text(path / CONFIG, config.to_toml())
    with writing(path):
        for name in ("audit.json", "contact.png"):
            shutil.copyfile(prepared.path / name, path / name)
    if checkpoint and ask.branch is None:
        Checkpoint.set_aside(path, newer_than=images)
    Snapshot.drop(path, newer_than=images)
