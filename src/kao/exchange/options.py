"""Reading the options of another program's JSON: each is of a kind, or refused by its key."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kao.errors import ConfigError


@dataclass(frozen=True)
class Kind:
    """What the value of an option can be.

    Attributes:
        says: It, as the end of "expected ...".
        fits: Whether a value, as JSON gives it, is one.
    """

    says: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class Option:
    """An option of another program.

    Attributes:
        default: What that program takes where it is left out.
        kind: What it can be.
    """

    default: Any
    kind: Kind


def read_options(
    table: Mapping[str, Any], known: Mapping[str, Option], *, file: str
) -> dict[str, Any]:
    """The value of every known option, those that are left out by default; no others.

    Args:
        table: Of a JSON file.
        known: The options by their keys.
        file: The name of the file, for messages.

    Raises:
        ConfigError: A value is of another kind; the message names the file and the key.
    """
    told = {key: table.get(key, option.default) for key, option in known.items()}
    for key, value in told.items():
        if key in table and not known[key].kind.fits(value):
            raise ConfigError(
                f"{key} = {value!r} in {file} is damaged or foreign: expected "
                f"{known[key].kind.says}."
            )
    return told


def maybe(kind: Kind) -> Kind:
    """The same, or null."""
    return Kind(f"{kind.says}, or null", lambda value: value is None or kind.fits(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, list | tuple) else [value]
    return bool(sides) and all(_is_whole(side) and side > 0 for side in sides)


def _list_of(one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether something is a list, not empty, of what fits; diffusers hands tuples over, too."""
    return lambda value: isinstance(value, list | tuple) and bool(value) and all(map(one, value))


ANY = Kind("anything", lambda value: True)
WORD = Kind("a word", lambda value: isinstance(value, str))
WORDS = Kind("a list of words", _list_of(WORD.fits))
YES = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a number", _is_number)
NUMBERS = Kind("a list of numbers", _list_of(_is_number))
POSITIVE = Kind("a number above 0", lambda value: _is_number(value) and value > 0)
SHARE = Kind("a number in 0..1", lambda value: _is_number(value) and 0 <= value <= 1)
COUNT = Kind("a whole number, 0 or more", lambda value: _is_whole(value) and value >= 0)
WHOLE = Kind("a whole number, 1 or more", lambda value: _is_whole(value) and value >= 1)
WHOLES = Kind("a list of whole numbers, each 1 or more", _list_of(WHOLE.fits))
SIZE = Kind("pixels along a side, 1 or more", _is_size)
