"""What commands share on the screen: plain lines, and bars where somebody is looking."""

import signal
import sys
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


def say(line: str) -> None:
    """One plain line for the user, beside any bar."""
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
        disable=not console.is_terminal,
    )


@contextmanager
def stopping_gently(trainer: "Trainer") -> Iterator[None]:
    """SIGINT and SIGTERM finish the step in hand and let the run save itself.

    A second SIGINT is taken at its word.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if trainer.stopping and number == signal.SIGINT:
            raise KeyboardInterrupt
        trainer.stop()
        print("\nStopping after this step; saving.", file=sys.stderr)

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
