"""Standard output and error: any text can go there, and a command outlives whoever reads them."""

import errno
import io
import os
import sys
import tempfile
from typing import Any

from kao.files import readable

_LONGEST = 2_000
"""Characters of a message."""

_results: list[str] = []
"""What was put, for who has to keep it."""


def put(text: str) -> None:
    """A result, on standard output; where nobody takes it, see `Output.undelivered`.

    Args:
        text: Of one line or more.
    """
    line = "\n".join(map(readable, text.split("\n"))) + "\n"
    _results.append(line)
    sys.stdout.write(line)
    sys.stdout.flush()


def refuse(message: str) -> None:
    """Say on standard error, in one line, why a command ended, and which process it ended."""
    rank = os.environ.get("RANK", "0")
    who = "kao" if rank in ("", "0") else f"kao (process {rank})"
    # In one go, or the lines of several processes run into each other.
    sys.stderr.write(f"{who}: {readable(_shortened(' '.join(message.split())))}\n")


def _shortened(message: str) -> str:
    """Without the middle, where what was typed is a list of very many."""
    if len(message) <= _LONGEST:
        return message
    return f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"


class _End(io.RawIOBase):
    """The end of a standard stream: what nobody takes is dropped, and the program goes on.

    Args:
        number: Its file descriptor.

    Attributes:
        lost: Why something could not be written, the first time; None while all was.
        taken: Whether anything was.
    """

    def __init__(self, number: int):
        self._number = number
        self.lost: OSError | None = None
        self.taken = False

    def write(self, data: Any) -> int:
        """Pass bytes on, if somebody takes them."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._number, rest) :]
                self.taken = True
        except OSError as error:
            self.lost = self.lost or error
        return len(data)

    def writable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def fileno(self) -> int:
        """See `io.IOBase`."""
        return self._number

    def isatty(self) -> bool:
        """See `io.IOBase`."""
        return os.isatty(self._number)


class Output:
    """Standard output and error, opened again so that they take any text and outlive their readers.

    A letter that they cannot encode is written as an escape.  Of the three file descriptors that
    programs count on, those that are closed are opened on nothing: else the next file that is
    opened has the number, and what is printed in it.
    """

    def __init__(self) -> None:
        for number in (0, 1, 2):
            try:
                os.fstat(number)
            except OSError:
                # Takes the lowest number that is free.  Writing to a standard output that was
                # closed has to fail, since somebody may miss it.
                os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
        if os.environ.get("COLUMNS") == "0":
            del os.environ["COLUMNS"]  # not known, in which rich would show nothing at all
        self._end = _End(1)
        sys.stdout = _opened(self._end, sys.stdout)
        sys.stderr = _opened(_End(2), sys.stderr)

    def undelivered(self) -> str | None:
        """Keep in a file the results that standard output did not take; say in a sentence where.

        Returns:
            None where it took all, or its reader left, as `head` does, having read some of it.
        """
        sys.stdout.flush()
        lost = self._end.lost
        if lost is None or (lost.errno == errno.EPIPE and (self._end.taken or not _results)):
            return None
        said = f"Standard output cannot be written ({lost.strerror})"
        if not _results:
            return f"{said}."
        try:
            with tempfile.NamedTemporaryFile(
                "w", prefix="kao-", suffix=".txt", encoding="utf-8", delete=False
            ) as file:
                file.writelines(_results)
        except OSError as error:
            return f"{said}, and the results cannot be kept elsewhere ({error.strerror})."
        return f"{said}: the results are in {file.name}."


def _opened(end: _End, before: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(end),
        encoding=before.encoding if before is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
