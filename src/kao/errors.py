"""Everything kao raises on purpose.

    KaoError                  a mistake that the user can mend; the command line exits 2
    ├── ConfigError           a key, a value, or a pair of values that cannot work
    ├── DataError             pictures: missing, empty, unreadable, too few
    ├── CheckpointError       a run or a checkpoint: missing, damaged, of another shape
    ├── OutputError           a place to write to: not writable, full, in use
    ├── MissingExtraError     an optional package that is not installed
    └── TrainingError         a run that cannot go on: a loss that is no longer finite
        └── LoneError         the same, but of several processes this one alone met it

Each message is one sentence (or two) that says what was met, what was expected and what to do.
"""

import difflib
from collections.abc import Iterable


def near_miss(word: str, known: Iterable[str]) -> str:
    """The name that was probably meant, as words to add to a message; empty if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f' (did you mean "{near[0]}"?)' if near else ""


class KaoError(Exception):
    """A mistake that the user can mend."""


class ConfigError(KaoError):
    """A configuration key or value that cannot work."""


class DataError(KaoError):
    """Pictures that are missing, empty, unreadable or too few."""


class CheckpointError(KaoError):
    """A run directory or a checkpoint that is missing, damaged or of another shape."""


class OutputError(KaoError):
    """A place to write to that is not writable, full or in use."""


class MissingExtraError(KaoError):
    """An optional package that is not installed.

    Args:
        package: The import name that failed.
        extra: The extra of kao that brings it.
        purpose: What it was needed for, as the end of "to ...".
    """

    def __init__(self, package: str, *, extra: str, purpose: str):
        super().__init__(
            f"The package {package!r} is needed to {purpose} and is not installed: "
            f"install kao with its extra {extra!r}, as in: pip install -e '.[{extra}]'."
        )


class TrainingError(KaoError):
    """A run that cannot go on."""


class LoneError(TrainingError):
    """A run that cannot go on, for what this process met and others may not have.

    Its memory ran out, or another process is gone.  Whoever catches it must not meet the others
    (see `kao.processes`): they do not come.
    """
