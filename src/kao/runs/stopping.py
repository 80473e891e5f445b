"""When a run with `evaluation.stop = "auto"` ends before its length."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

PATIENCE = 3
"""Verdicts in a row after which a run is stopped."""

FEWEST_SCORES = 8
"""Before a run is stopped for scores that do not fall: many stay where they are at first."""

_HALF = 0.5
"""Share of its length before which it is not stopped for that, either."""

_FRESH = 0.75
"""The first verdict of the row is of no more than this share of the images: a trend is of the
second half of them, so those of the first and the last verdict have half their scores in common."""


class Grounds(NamedTuple):
    """Why a run is stopped.

    Attributes:
        row: How many verdicts in a row.
        states: Theirs, each once, the newest first.
    """

    row: int
    states: tuple[str, ...]


def since_start(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The verdicts since a run was started or last taken up: who goes on knows the older ones."""
    starts = [place for place, event in enumerate(events) if event.get("event") == "start"]
    late = events[starts[-1] :] if starts else events
    return [event for event in late if event.get("event") == "verdict"]


def grounds(
    verdicts: Sequence[Mapping[str, Any]], *, scores: int, done: float, anneals: bool
) -> Grounds | None:
    """The states for which a run is to be stopped; None where it goes on.

    Learning by heart is one, unless the score falls all the same.  A score that stays or rises is
    another, late in the run and where the learning rate does not fall at its end: the fall brings
    more than what came before.

    Args:
        verdicts: Events since the start, in order.
        scores: How many compare.
        done: Share of the run that is behind, 0..1.
        anneals: Whether the learning rate falls at the end.
    """
    row = list(takewhile(_hopeless, reversed(verdicts)))
    if len(row) < PATIENCE:
        return None
    if {verdict["state"] for verdict in row[:PATIENCE]} == {"overfitting"}:
        return Grounds(PATIENCE, ("overfitting",))
    early = done < _HALF or scores < FEWEST_SCORES
    stale = row[-1]["images"] > _FRESH * row[0]["images"]
    if anneals or early or stale:
        return None
    return Grounds(len(row), tuple(dict.fromkeys(verdict["state"] for verdict in row)))


def _hopeless(verdict: Mapping[str, Any]) -> bool:
    states = ("overfitting", "flat", "worsening")
    return verdict.get("state") in states and not verdict.get("improves")
