"""Saving while training, on a disk that may be full.

A run outlives a disk without room.  What cannot be written is told of and tried again; the last
good checkpoint stays, since a new one takes its name only when it is whole.  Only a run that ends
without having saved its last weights fails.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from kao.checkpoints import LOSS, MODEL, Checkpoint
from kao.config import RunConfig
from kao.errors import OutputError
from kao.machine import versions
from kao.processes import Processes
from kao.shards import split, whole
from kao.tracking import Tracker
from kao.training import Hook, Trainer

_SOONER = 10
"""Times that a save is tried again until the next would have been due."""


class Notices:
    """What the user should be told while a run trains, until somebody takes it and says it."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Keep one line."""
        self._lines.append(line)

    def take(self) -> list[str]:
        """The lines since the last call, in order."""
        lines, self._lines = self._lines, []
        return lines


class Patient:
    """A tracker that loses events, rather than the run, where it cannot write.

    Args:
        tracker: Takes the events.
        notices: Told when one is lost after all before went well.
    """

    def __init__(self, tracker: Tracker, notices: Notices):
        self._tracker, self._notices, self._losing = tracker, notices, False

    def event(self, kind: str, images: int, values: Mapping[str, Any]) -> None:
        """See `kao.tracking.Tracker`; never raises because of the disk."""
        try:
            self._tracker.event(kind, images, values)
        except (OutputError, OSError) as error:
            if not self._losing:
                self._notices.add(f"{_said(error)} The run goes on without a part of its log.")
            self._losing = True
        else:
            self._losing = False

    def close(self) -> None:
        """See `kao.tracking.Tracker`; never raises because of the disk."""
        try:
            self._tracker.close()
        except (OutputError, OSError) as error:
            self._notices.add(f"{_said(error)} The end of the log is missing.")


def _said(error: OutputError | OSError) -> str:
    """A sentence; TensorBoard's thread passes on what the operating system says."""
    if isinstance(error, OSError):
        return f"A log cannot be written: {error.strerror or error}."
    return str(error)


class Forgiving:
    """A hook that skips a call, rather than ending the run, where it cannot write.

    Args:
        hook: Writes what a run can do without.
        tracker: Told of what was not written.
        notices: Told, too.
    """

    def __init__(self, hook: Hook, tracker: Tracker, notices: Notices):
        self._hook, self._tracker, self._notices = hook, tracker, notices

    @property
    def every(self) -> int:
        """See `kao.training.Hook`."""
        return self._hook.every

    def __call__(self, trainer: Trainer) -> None:
        """See `kao.training.Hook`; never raises because of the disk."""
        try:
            self._hook(trainer)
        except OutputError as error:
            self._tracker.event("warning", trainer.progress.images, {"message": str(error)})
            self._notices.add(f"{error} The run goes on without it.")


class Checkpoints:
    """Writes checkpoints, and removes old ones.

    A save that fails is tried again after a tenth of the interval, and so is one that falls on a
    step that was skipped: what it would keep may be what made the step fail.  At the end of a run
    there is no later, and a save that fails raises.

    With several processes each calls it, the tensors are put together, and the first one writes.

    Args:
        run: The run directory.
        config: Saved with each; says how many stay.
        tracker: Told of each checkpoint, and of each that could not be written.
        notices: Told of the first in a row that could not be written, and of the next that could.
        every: Images between checkpoints.
        card: More facts for the card of each, JSON.
        saved: Images seen by the newest checkpoint that is there; None where there is none.
    """

    def __init__(
        self,
        run: Path,
        config: RunConfig,
        tracker: Tracker,
        notices: Notices,
        *,
        every: int,
        card: Mapping[str, Any] | None = None,
        saved: int | None = None,
    ):
        self.run, self.config, self.tracker, self.notices = run, config, tracker, notices
        self.card = dict(card or {})
        self._interval, self._saved = every, saved
        self._due = self._failing = False

    @property
    def every(self) -> int:
        """Images between calls; fewer while a save is due."""
        return max(1, self._interval // _SOONER) if self._due else self._interval

    def __call__(self, trainer: Trainer) -> None:
        """Write one, tell the tracker, remove those that need not stay.

        Raises:
            OutputError: It cannot be written, and the run is at its end.
        """
        ending = trainer.stopping or trainer.done >= 1
        if trainer.guard.streak and not ending:
            self._due = True
            return
        images = trainer.progress.images
        try:
            self.save(trainer)
        except OutputError as error:
            if ending:
                raise OutputError(f"{error} {self._kept()}") from error
            if not self._failing:
                self.notices.add(f"{error} The run goes on and tries again. {self._kept()}")
            self._due = self._failing = True
            self.tracker.event("warning", images, {"message": str(error), "saved": self._saved})
        else:
            if self._failing:
                self.notices.add(f"Saved at {images:,} images.")
            self._due = self._failing = False

    def settle(self, trainer: Trainer) -> None:
        """Make up, after the last step, for a save that is due.

        Raises:
            OutputError: It cannot be written.
        """
        if self._due and (trainer.stopping or trainer.done >= 1):
            self(trainer)

    def rescue(self, trainer: Trainer) -> None:
        """Write one on the way out of a run that failed; tell if it cannot be.

        Nothing is written on a step that was skipped, as in `__call__`.
        """
        if trainer.guard.streak:
            return
        images = trainer.progress.images
        try:
            self.save(trainer)
        except OutputError as error:
            self.notices.add(f"{error} {self._kept()}")
            self.tracker.event("warning", images, {"message": str(error), "saved": self._saved})

    def save(self, trainer: Trainer) -> None:
        """Write one now, unless what is learned by these images is saved.

        Raises:
            OutputError: It cannot be written; earlier ones are untouched.
        """
        images, processes = trainer.progress.images, trainer.processes
        if images == self._saved:
            return
        main = processes.main
        learned = trainer.loss.state_dict()
        weights = {
            MODEL: whole(trainer.denoiser.state_dict(), kept=main),
            **{name: whole(average.average, kept=main) for name, average in trainer.ema.items()},
            **({LOSS: whole(learned, kept=main)} if learned else {}),
        }
        state, parts = split(trainer.state_dict())
        shared = _Shared(parts, processes) if parts else None
        failed = None
        if main:
            try:
                Checkpoint.write(
                    self.run,
                    images=images,
                    config=self.config.to_toml(),
                    weights=weights,
                    state=state,
                    card={
                        "versions": versions(),
                        "seconds": trainer.progress.seconds,
                        **self.card,
                    },
                    shared=shared,
                )
            except OutputError as error:
                failed = str(error)
        if shared is not None:
            shared.settle()
        if failed := processes.broadcast(failed):
            raise OutputError(failed)
        self._saved = images
        trainer.guard.remember(images)
        if main:
            self.tracker.event("checkpoint", images, {})
            self._make_room(images)

    def _make_room(self, images: int) -> None:
        hooks = self.config.hooks
        try:
            Checkpoint.prune(self.run, last=hooks.keep_last, every=hooks.keep_every)
        except OutputError as error:
            self.tracker.event("warning", images, {"message": str(error)})
            self.notices.add(f"{error} An old checkpoint stays.")

    def _kept(self) -> str:
        if self._saved is None:
            return "Nothing of this run is saved."
        return f"Nothing newer than {self._saved:,} images of {self.run} is saved."


class _Shared:
    """What all processes write into a checkpoint together, while the first one writes the rest.

    Args:
        parts: This process's parts of tensors, by their path in the trainer's state.
        processes: Which of several this is.
    """

    def __init__(self, parts: Mapping[str, Tensor], processes: Processes):
        self._parts, self._processes, self._met = parts, processes, False

    def __call__(self, folder: Path | None) -> None:
        """Write this process's parts; of the folder only that of the first process counts.

        Raises:
            OutputError: One of the processes cannot write.
        """
        from kao.checkpoints.shards import save_shards

        self._met = True
        there = self._processes.broadcast(folder)
        if there is not None:
            save_shards(there, self._parts)

    def settle(self) -> None:
        """Meet the others, where the first one failed before it could ask them to write."""
        if not self._met:
            with suppress(OutputError):  # the first process has it, too, and tells it
                self(None)
