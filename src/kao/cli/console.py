"""What commands share on the screen: plain lines, and bars where somebody is looking.

Nothing but this file and `streams` prints, so that no name that a file has moves a cursor.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kao.files import readable

if TYPE_CHECKING:
    from kao.training import Trainer

console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
"""Progress and remarks; results go to standard output."""


def speaks() -> bool:
    """Whether this is the one of several processes that talks to the user.

    The launcher's variable is read, since joining the others takes torch, and time.
    """
    return os.environ.get("RANK", "0") in ("", "0")


def say(line: str) -> None:
    """One plain line for the user, beside any bar; of several processes the first says it."""
    if speaks():
        console.print(readable(line))


def bar() -> Progress:
    """A progress bar with time gone and time left; nothing where no terminal is."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or not speaks(),
    )


class Bars:
    """A bar for each of several things that report how far they are.

    Args:
        progress: From `bar`.
    """

    def __init__(self, progress: Progress):
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, what: str, done: int, total: int) -> None:
        """So much of a thing is done."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(readable(what), total=total, figures="")
        self._progress.update(self._tasks[what], completed=done, total=total)


UNFINISHED = 75
"""Exit code where a scheduler's signal ended a run that is to be started again: EX_TEMPFAIL."""


class Stop:
    """Whether a signal asked a run to stop.

    Attributes:
        number: The first signal that came; None while none has.
        trainer: Is told to stop; None while there is none, and nothing to save.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.trainer: Trainer | None = None

    @property
    def evicted(self) -> bool:
        """Whether it was a scheduler's signal, and not a person's."""
        return self.number is not None and self.number != signal.SIGINT


_GENTLE = [s for s in signal.Signals if s.name in ("SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1")]
"""Those of them that this system knows."""

_HANGUP = [number for number in _GENTLE if number.name == "SIGHUP"]

_SAME = 2.0
"""Seconds within which another signal is the first one once more: a terminal and a launcher, or a
scheduler and a launcher, both pass theirs on."""


@contextmanager
def stopping_gently() -> Iterator[Stop]:
    """Signals finish the step in hand, once there is a trainer, and let the run save itself.

    They are SIGINT, SIGTERM, SIGUSR1 and, unless it is ignored as under nohup, SIGHUP.  Before
    there is a trainer they end what is being done, which can be done again.  A second signal is
    taken at its word.

    Raises:
        KeyboardInterrupt: SIGINT came before there was a trainer, or as a second signal.
        SystemExit: Another came before there was a trainer; with the code `UNFINISHED`.
    """
    asked, first = Stop(), 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if asked.number is None:
            asked.number, first = number, time.monotonic()
            if asked.trainer is not None:
                asked.trainer.stop()
                _tell("Stopping after this step; saving.")
            elif number == signal.SIGINT:
                raise KeyboardInterrupt
            else:
                _tell("Stopped before the first step; nothing is lost.")
                # No Exception: whoever mends those on the way must not mend this one.
                raise SystemExit(UNFINISHED)
        elif time.monotonic() - first > _SAME:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    heard = [n for n in _GENTLE if n not in _HANGUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(line: str) -> None:
    """Say a line from within a signal handler, which may have come in the middle of a print."""
    if speaks():
        with suppress(OSError):  # from who listens no more
            os.write(2, f"\n{line}\n".encode())
