"""What commands share on the screen: plain lines, and bars where somebody is looking."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from kao.training import Trainer

console = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress and remarks; results go to standard output."""


def speaks() -> bool:
    """Whether this is the one of several processes that talks to the user.

    The launcher's variable is read, since joining the others takes torch, and time.
    """
    return os.environ.get("RANK", "0") in ("", "0")


def say(line: str) -> None:
    """One plain line for the user, beside any bar; of several processes the first says it."""
    if speaks():
        console.print(line, markup=False)


def bar() -> Progress:
    """A progress bar with time gone and time left; nothing where no terminal is."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or not speaks(),
    )


class Stop:
    """Whether a signal asked a run to stop.

    Attributes:
        number: The first signal that came; None while none has.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def evicted(self) -> bool:
        """Whether it was a scheduler's signal, and not a person's."""
        return self.number is not None and self.number != signal.SIGINT


_GENTLE = [s for s in signal.Signals if s.name in ("SIGINT", "SIGTERM", "SIGUSR1")]  # where known

_SAME = 2.0
"""Seconds within which another signal is the first one once more: a terminal and a launcher, or a
scheduler and a launcher, both pass theirs on."""


@contextmanager
def stopping_gently(trainer: "Trainer") -> Iterator[Stop]:
    """SIGINT, SIGTERM and SIGUSR1 finish the step in hand and let the run save itself.

    A second signal is taken at its word.
    """
    asked, first = Stop(), 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if asked.number is None:
            asked.number, first = number, time.monotonic()
            trainer.stop()
            if speaks():
                print("\nStopping after this step; saving.", file=sys.stderr)
        elif time.monotonic() - first > _SAME:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    before = {number: signal.signal(number, stop) for number in _GENTLE}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
