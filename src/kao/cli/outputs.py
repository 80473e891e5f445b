"""Files and folders that a command is to write: looked at before the work, not after it."""

import itertools
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kao.errors import ConfigError, OutputError
from kao.files import beside_file, writing


@dataclass(frozen=True)
class Output:
    """One place to write to.

    Attributes:
        option: As it is typed: "--grid".
        place: What was given; None: nothing was, and nothing is looked at.
        what: What goes there, in words: "the grid".
        ending: Of the file, ".png"; upper case and none at all are taken too.  Empty: the place
            is a folder.
    """

    option: str
    place: Path | None
    what: str
    ending: str = ""


def check_outputs(*outputs: Output) -> None:
    """Refuse places that could not be written, or not as what they are called.

    Nothing is left on the disk; folders on the way may be missing.

    Args:
        outputs: All that one command writes.

    Raises:
        ConfigError: Two are one file, or a file has another ending.
        OutputError: Something is in the way, or the place is not writable.
    """
    given = [(output, output.place) for output in outputs if output.place is not None]
    for (one, place), (other, same) in itertools.combinations(given, 2):
        if place.resolve() == same.resolve():
            raise ConfigError(
                f"{one.option} and {other.option} are both {place}: give them two names."
            )
    for output, place in given:
        _refuse_unwritable(place, folder=not output.ending)
        if output.ending and place.suffix.lower() not in ("", output.ending):
            raise ConfigError(
                f"{output.option} = {place}, but {output.what} is written as {output.ending}: "
                f"give it that ending."
            )


def refuse_filled(option: str, place: Path) -> None:
    """Raise an OutputError for a file, or a folder that holds something: neither is replaced.

    Args:
        option: As it is typed.
        place: May be missing.
    """
    if place.is_file():
        raise OutputError(
            f"{option} = {place} exists already, and is not replaced: give another name, or remove "
            f"that one."
        )
    if place.is_dir() and any(place.iterdir()):
        raise OutputError(
            f"{option} = {place} holds something already, and nothing of it is replaced: give a "
            f"new or an empty folder, or remove that one."
        )


def _refuse_unwritable(place: Path, *, folder: bool) -> None:
    """Raise OutputError where `place` cannot be made, or replaced."""
    with writing(place):
        with suppress(FileNotFoundError):
            place.lstat()  # says of a name that it is too long
        if not folder:
            beside_file(place)
        elif place.exists() and not place.is_dir():
            raise OutputError(f"{place} is in the way, since it is no folder: choose another.")
        there = place if folder else place.parent
        while not there.exists() and there != there.parent:
            there = there.parent
        # Tried, not asked: permissions do not tell of a file system that cannot be written.
        with tempfile.TemporaryFile(dir=there):
            pass
