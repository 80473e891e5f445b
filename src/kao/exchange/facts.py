"""Reading what a user says of a model that its files leave open; see `Format.facts`."""

import math
from collections.abc import Mapping
from typing import TypeVar

from kao.errors import ConfigError, near_miss
from kao.exchange.formats import Facts

Meaning = TypeVar("Meaning")


def whole(facts: Facts, name: str, *, least: int = 1) -> int | None:
    """A whole number; None where it was not said.

    Args:
        facts: What was said.
        name: Of the fact.
        least: The smallest that can be meant.

    Raises:
        ConfigError: It is something else, or smaller.
    """
    if name not in facts:
        return None
    value = facts[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} = {value!r}; expected a whole number, {least} or more.")
    return value


def number(facts: Facts, name: str, *, above: float = 0.0) -> float | None:
    """A number; None where it was not said.

    Args:
        facts: What was said.
        name: Of the fact.
        above: Below all that can be meant.

    Raises:
        ConfigError: It is something else, or not finite, or not above.
    """
    if name not in facts:
        return None
    value = facts[name]
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or not above < value < math.inf:
        raise ConfigError(f"{name} = {value!r}; expected a number above {above:g}.")
    return float(value)


def yes(facts: Facts, name: str) -> bool | None:
    """True or false; None where it was not said.

    Raises:
        ConfigError: It is something else.
    """
    if name not in facts:
        return None
    value = facts[name]
    if not isinstance(value, bool):
        raise ConfigError(f"{name} = {value!r}; expected true or false.")
    return value


def one_of(facts: Facts, name: str, meanings: Mapping[str, Meaning]) -> Meaning | None:
    """What a word stands for; None where it was not said.

    Args:
        facts: What was said.
        name: Of the fact.
        meanings: The words, with what they stand for.

    Raises:
        ConfigError: It is no word of these.
    """
    if name not in facts:
        return None
    value = facts[name]
    if not isinstance(value, str) or value not in meanings:
        known = " or ".join(meanings)
        raise ConfigError(f"{name} = {value!r}; expected {known}{near_miss(str(value), meanings)}.")
    return meanings[value]
