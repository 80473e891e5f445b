"""How the score of a run went, from its events: what a verdict and a forecast go by."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from kao.evaluation.by_heart import Event
from kao.evaluation.numbers import number, rounded, signed
from kao.evaluation.trends import Change, Point, change, over_trend, recent
from kao.metrics.scores import Z95

FEWEST = 4
"""Scores below which nothing is said of them: two make a line, and two say how far it is off."""

CHANCE = 0.05
"""Share of runs that stay where they are, of which any verdict may say that they improve."""

_LOOKS = 9
"""Verdicts of a run of twelve scores, the most that "auto" takes."""

_FLAT = 0.25
"""Share of the score that as much training again must bring, at best, for a run not to be flat."""


def of_kind(events: Sequence[Event], kind: str) -> list[Event]:
    """The events of one kind, in order."""
    return [event for event in events if event.get("event") == kind]


def scores_told(events: Sequence[Event]) -> list[Event]:
    """The evaluations by the newest measure, the last at each moment.

    Those of before it was changed do not compare.
    """
    told = [
        event
        for event in of_kind(events, "evaluation")
        if is_known(event.get("score")) and event.get("images", 0) > 0
    ]
    same = [event for event in told if measure_of(event) == measure_of(told[-1])]
    return list({event["images"]: event for event in same}.values())


def measure_of(event: Event) -> tuple[Any, Any]:
    """By what a score was taken, in words and as a digest: scores compare where both are equal.

    Scores of before there was a digest have None.
    """
    return event.get("measure"), event.get("digest")


def is_known(score: Any) -> bool:
    """Whether this is a score with figures, as `kao.runs.scoring` tells them."""
    if not isinstance(score, Mapping):
        return False
    figures = [score.get(name) for name in ("value", "own_error")]
    return all(isinstance(x, int | float) and math.isfinite(x) for x in figures)


def points(scores: Sequence[Event]) -> list[Point]:
    """Scores as points, from `scores_told`."""
    return [
        Point(
            e["images"],
            e["score"]["value"],
            max(e["score"]["own_error"], 1e-12),
            _influences(e.get("influences")),
        )
        for e in scores
    ]


def _influences(told: Any) -> tuple[float, ...]:
    """Those of an event; () where it has none, as of a run of before they were told."""
    if not isinstance(told, Sequence) or isinstance(told, str):
        return ()
    known = all(isinstance(x, int | float) and math.isfinite(x) for x in told)
    return tuple(map(float, told)) if known else ()


@dataclass(frozen=True)
class Trend:
    """How the score changed over the second half of the images, by a line through log images.

    Attributes:
        scores: How many the line goes through.
        images: From the first to the last of them.
        value: The score at their end, on the line.
        change: Over them.
        error: Of the last score, by itself: below two of them it is one of real pictures.
        falls: Whether it fell beyond chance.
        rises: Whether it rose beyond chance, by three standard errors at least.
    """

    scores: int
    images: int
    value: float
    change: Change
    error: float
    falls: bool
    rises: bool

    @classmethod
    def of(cls, scores: Sequence[Event]) -> "Trend | None":
        """The trend of the scores from `scores_told`; None where they are too few."""
        if len(scores) < FEWEST:
            return None
        late = recent(points(scores))
        moved = change(late, late[0].images, late[-1].images)
        ends = over_trend(late, late[-1].images)
        span = round(late[-1].images - late[0].images)
        # A trend is looked at after every score, so one of them is far off by chance in the end:
        # the level of each look is that of all, divided by the looks (Bonferroni; Dunn 1961).
        looks = max(_LOOKS, len(scores) - FEWEST + 1)
        chance = NormalDist().inv_cdf(1 - CHANCE / looks)

        def beyond(z: float) -> bool:
            error = change(late, late[0].images, late[-1].images, z=z).error
            return abs(moved.value) >= z * error > 0

        falls, rises = (
            moved.value < 0 and beyond(chance),
            moved.value > 0 and beyond(max(3, chance)),
        )
        return cls(len(late), span, ends, moved, late[-1].error, falls, rises)

    @property
    def resolved(self) -> bool:
        """Whether a change that matters would have been seen.

        Near 0 no share of the score matters, but what can be told from real pictures does.
        """
        best = self.change.value - Z95 * self.change.error
        return -best <= _FLAT * max(self.value, 2 * self.error)

    @property
    def arrived(self) -> bool:
        """Whether it can hardly be told from the score of real pictures."""
        return self.value <= 2 * self.error

    @property
    def near(self) -> str:
        """That it has arrived, in words."""
        return (
            f"the score, {number(self.value, self.error)}, can hardly be told from that of real "
            f"pictures with so few of them"
        )

    @property
    def advice(self) -> str:
        """What shows smaller changes: more pictures, where their noise is what hides them."""
        if self.change.noise < self.change.error:
            return "More scores will tell."
        return "A larger evaluation.pictures shows smaller changes."

    def __str__(self) -> str:
        """In words, with a 95 % interval."""
        return (
            f"by a line through the last {self.scores} scores, the score changed by "
            f"{signed(self.change.value, self.change.error)} over {rounded(self.images):,} images, "
            f"to {number(self.value, self.error)}"
        )
