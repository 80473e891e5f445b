"""Whether a run still grows better, from what it has told so far: `judge`.

The verdict says no more than the figures allow.  A change of the score has an error, which hides
small ones; so a run is called flat only where a change that matters would have been seen.  What
was learned by heart shows in the held-out loss (it rises while that of training pictures does not)
and in drawn pictures that are copies.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kao.evaluation.by_heart import Event, by_heart, copies, losses, unchanged
from kao.evaluation.course import FEWEST, Trend, is_known, of_kind, points, scores_told
from kao.evaluation.numbers import rounded, signed
from kao.evaluation.trends import change, recent

State = Literal["improving", "flat", "worsening", "overfitting", "unknown"]

_STEADY = 0.9
"""Share of the peak learning rate below which it is falling, and scores fall with it."""


@dataclass(frozen=True)
class Forecast:
    """What as much training again would bring.

    Attributes:
        images: More to be seen.
        minutes: That this takes; 0 where the speed is not known.
        change: Of the score, below 0 where it falls.
        error: Standard error of `change`: of the fit, and of not knowing the curve's shape.
        annealed: Whether this counts on the learning rate falling at the end again.
    """

    images: int
    minutes: float
    change: float
    error: float
    annealed: bool

    def __str__(self) -> str:
        """In words, with a 95 % interval."""
        again = ", at the end of which the learning rate falls again" if self.annealed else ""
        return f"Another {self._length()}{again}: score {signed(self.change, self.error)}."

    def _length(self) -> str:
        if self.minutes <= 0:
            return f"{rounded(self.images):,} images"
        if self.minutes < 90:
            return f"{max(1, round(self.minutes))} minute{'s' if self.minutes >= 1.5 else ''}"
        return f"{self.minutes / 60:.2g} hours"


@dataclass(frozen=True)
class Verdict:
    """What became of a run.

    Attributes:
        state: "improving", "flat", "worsening", "overfitting", or "unknown" where the figures do
            not tell.
        sentence: Why, for people.
        forecast: Of the score; None where the figures do not allow one.
        improves: Whether the score falls beyond its error, whatever the held-out loss does.
    """

    state: State
    sentence: str
    forecast: Forecast | None = None
    improves: bool = False

    def __str__(self) -> str:
        """The sentence, with the forecast."""
        return f"{self.sentence} {self.forecast}" if self.forecast else self.sentence

    def to_event(self) -> dict[str, Any]:
        """Values for a tracker."""
        return {
            "state": self.state,
            "sentence": self.sentence,
            "improves": self.improves,
            "forecast": asdict(self.forecast) if self.forecast else None,
        }


def judge(events: Sequence[Event], *, finished: bool = False) -> Verdict:
    """The verdict on a run.

    It is of what the averaged weights draw and how they do on held-out pictures: both are smooth
    where the raw weights are not.

    Args:
        events: Of the run, in order, without those of steps that were done again: "evaluation",
            "held_out" and "train" are read.
        finished: Whether the run has come to its length: only then is there a forecast although
            the learning rate has fallen.
    """
    scores = scores_told(events)
    trend = Trend.of(scores)
    improves = trend is not None and trend.falls
    copied, learned = copies(scores), by_heart(of_kind(unchanged(events), "held_out"))
    if learned and improves and not copied:
        sentence = f"Overfitting: {learned}. The score improves all the same: {trend}."
        return Verdict("overfitting", sentence, improves=True)
    if copied or learned:
        why = "; ".join(reason for reason in (copied, learned) if reason)
        return Verdict("overfitting", f"Overfitting: {why}.")
    forecast = _forecast(scores, events, finished=finished)
    if trend is None:
        return _without_scores(events, len(scores))
    if improves:
        return Verdict("improving", f"Improving: {trend}.", forecast, improves=True)
    if trend.rises:
        return Verdict("worsening", f"Growing worse: {trend}.")
    if trend.resolved:
        why = trend.near if trend.arrived else str(trend)
        return Verdict("flat", f"Flat: {why}.", forecast)
    return Verdict(
        "unknown",
        f"Not known yet: {trend}, and a change that matters could hide in that. {trend.advice}",
        forecast,
    )


def _without_scores(events: Sequence[Event], count: int) -> Verdict:
    """What the held-out loss alone tells."""
    told = losses(of_kind(events, "held_out"))
    why = f"{count} score{'s are' if count != 1 else ' is'} too few to tell a trend"
    if told and (fallen := told.fallen()):
        return Verdict(
            "improving",
            f"Improving by the held-out loss, which fell by {100 * fallen:.2g} % over the second "
            f"half of the images; {why}.",
        )
    return Verdict("unknown", f"Not known yet: {why}.")


# What would come


class _Rates:
    """The learning rate by images, and when it was near its peak.

    Args:
        events: Of a run.
    """

    def __init__(self, events: Sequence[Event]):
        told = [
            (event["images"], event["learning_rate"])
            for event in of_kind(events, "train")
            if isinstance(event.get("learning_rate"), int | float)
        ]
        self._images = [images for images, _ in told]
        self._rates = [rate for _, rate in told]
        self._peak = max(self._rates, default=0.0)

    def steady(self, images: float) -> bool:
        """Whether the rate was not falling at that moment; True where nothing is known of it."""
        at = bisect.bisect_right(self._images, images) - 1
        if at < 0:
            return True
        before = self._rates[: at + 1]
        return before[-1] >= _STEADY * self._peak or max(before) < _STEADY * self._peak


def _forecast(
    scores: Sequence[Event], events: Sequence[Event], *, finished: bool
) -> Forecast | None:
    """What as much training again would bring; None where that cannot be told.

    Scores fall with the learning rate, which says nothing of longer training: the points before
    its fall are used alone, and at the end of the run the forecast is of one that is as long
    again and ends as it did.  While it falls there is none.
    """
    if len(scores) < FEWEST:
        return None
    rates = _Rates(events)
    steady = [point for point in points(scores) if rates.steady(point.images)]
    now = scores[-1]["images"]
    annealed = not rates.steady(now)
    if len(steady) < FEWEST or (annealed and not finished):
        return None
    late = recent(steady)
    # A curve of learning lies between a line in log images and one in 1 / images.
    both = [change(late, now, 2 * now, power=power) for power in (0.0, 1.0)]
    moved = (both[0].value + both[1].value) / 2
    shape = abs(both[0].value - both[1].value) / 2
    error = math.hypot(math.fsum(c.error for c in both) / 2, shape)
    floor = scores[-1].get("floor") or {}
    least = floor["value"] if is_known(floor) else 0.0
    moved = max(moved, min(0.0, least - scores[-1]["score"]["value"]))
    return Forecast(now, _minutes(events, now), moved, error, annealed)


def _minutes(events: Sequence[Event], images: int) -> float:
    """That so many images take, hooks included; 0 where nothing is known."""
    timed = [
        (event["images"], event["seconds"])
        for event in of_kind(events, "train")
        if isinstance(event.get("seconds"), int | float) and event["images"] > 0
    ]
    if not timed:
        return 0.0
    seen, seconds = timed[-1]
    return images * seconds / seen / 60
