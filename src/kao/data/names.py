"""Names of classes, folders and files: their order, and what to say of one that is not there."""

import re
from collections.abc import Sequence

from kao.errors import DataError, near_miss


def natural(names: Sequence[str] | set[str]) -> tuple[str, ...]:
    """Distinct names in the order a person expects: letters as in a dictionary, 2 before 10."""

    def key(name: str) -> tuple[list[tuple[int, int | str]], str]:
        # Python refuses to read numbers of thousands of digits, which names in archives may hold.
        parts = [part for part in re.split(r"([0-9]{1,18})", name.casefold()) if part]
        return [(0, int(part)) if part[0] in "0123456789" else (1, part) for part in parts], name

    return tuple(sorted(set(names), key=key))


def picked(known: Sequence[str], wanted: Sequence[str], *, of: str) -> tuple[str, ...]:
    """The names that are wanted, in the order in which they are known; all where none is.

    Args:
        known: What there is.
        wanted: In any order.
        of: What has these classes, for the message.

    Raises:
        DataError: One that is wanted is not there.
    """
    for name in wanted:
        if name not in known:
            raise DataError(
                f"{of} has no class {name!r}{near_miss(name, known)}: "
                f"its classes are {listed(known)}."
            )
    return tuple(name for name in known if name in wanted) or tuple(known)


def listed(names: Sequence[str], most: int = 12) -> str:
    """The first names, and how many more there are; "none" if there is none."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
