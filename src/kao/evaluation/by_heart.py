"""What a run has learned by heart: the signs of it in what the run tells."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kao.evaluation.numbers import rounded
from kao.evaluation.trends import Point, change, over_trend, recent

Event = Mapping[str, Any]
"""One line of metrics.jsonl."""

COPIED = 0.05
"""Share of drawn pictures that are copies past which they are no chance: on held-out pictures
the same search finds about 0.01."""

_LOOKS = 2

_MOVING = ("precision", "rate")
"""What a start tells of the configuration that moves the losses."""

_FEWEST = 8
"""Held-out losses below which nothing is said of their course."""

_FALL = 0.005
"""Smallest share by which a held-out loss falls that counts."""

_SURE = 6
"""Standard errors that it must come to, if losses varied independently."""


def copies(scores: Sequence[Event]) -> str:
    """A reason, where more of the drawn pictures are copies than chance makes; or "".

    In two scores in a row: many are taken over a run, and one of them may be unlucky.
    """
    late = [_table(event, "copies") for event in scores[-_LOOKS:]]
    beyond = [_is_number(t.get("low")) and t["low"] > COPIED for t in late]
    if len(late) < _LOOKS or not all(beyond) or not _is_number(late[-1].get("value")):
        return ""
    share = late[-1]["value"]
    return f"{100 * share:.2g} % of the drawn pictures are copies of training pictures"


def unchanged(events: Sequence[Event]) -> Sequence[Event]:
    """The events since the run was last taken up with another rate or precision.

    Such a change moves the losses by itself.
    """
    first, before = 0, dict[str, Any]()
    for place, event in enumerate(events):
        if event.get("event") == "start":
            told = {name: event[name] for name in _MOVING if name in event}
            if any(before.get(name, value) != value for name, value in told.items()):
                first = place
            before.update(told)
    return events[first:]


@dataclass(frozen=True)
class Losses:
    """Losses of one noise band, or of all, over the run.

    Attributes:
        images: Seen.
        held: Loss on held-out pictures.
        train: On as many training pictures.
        error: Standard error of their difference.
    """

    images: Sequence[float]
    held: Sequence[float]
    train: Sequence[float]
    error: Sequence[float]

    @property
    def window(self) -> int:
        """Points that are averaged."""
        return max(2, len(self.images) // 8)

    @property
    def noise(self) -> float:
        """Standard error of the mean of a window.

        From what lies off the line between its neighbours, as no slow curve does.  The moments may
        be at any distances.
        """
        squares = []
        for (a, b, c), (u, v, w) in zip(_threes(self.images), _threes(self.held), strict=True):
            part = (b - a) / (c - a) if c > a else 0.5
            off = v - (1 - part) * u - part * w
            squares.append(off**2 / (1 + (1 - part) ** 2 + part**2))
        return math.sqrt(sum(squares) / len(squares) / self.window)

    def _means(self, values: Sequence[float]) -> list[float]:
        k = self.window
        return [math.fsum(values[i : i + k]) / k for i in range(len(values) - k + 1)]

    def risen(self, *, least: float, sure: float) -> "Rise | None":
        """How far the held-out loss lies above its best while the training loss does not.

        The training loss may have risen by less than half of it.

        Args:
            least: Smallest share of it that counts.
            sure: Standard errors that it must come to, too; many, since the best of many points
                is chosen, and an average of the weights moves slowly.

        Returns:
            The rise; None where it has not.
        """
        held, train = self._means(self.held), self._means(self.train)
        best = min(range(len(held)), key=held.__getitem__)
        rise, others = held[-1] - held[best], train[-1] - train[best]
        apart = self.held[-1] - self.train[-1]
        counts = rise > least * held[best] and rise > sure * math.sqrt(2) * self.noise
        if not counts or others > rise / 2 or apart <= 2 * self.error[-1]:
            return None
        since = self.images[best + self.window // 2]
        return Rise(rise / held[best], since, alone=others <= 0)

    def fallen(self) -> float | None:
        """Share by which the held-out loss fell over the second half of the images, if it did.

        By a line through them, and by six times what their scatter about it says: an average of
        the weights moves slowly, so losses that stay where they are wander, too.
        """
        # Their errors are not known: the scatter alone says them.
        late = recent([Point(x, y, 1e-9) for x, y in zip(self.images, self.held, strict=True)])
        moved = change(late, late[0].images, late[-1].images)
        before = over_trend(late, late[0].images)
        counts = -moved.value > max(_FALL * before, _SURE * moved.error)
        return -moved.value / before if counts else None


@dataclass(frozen=True)
class Rise:
    """How far a held-out loss lies above its best.

    Attributes:
        share: Of the loss.
        since: Images at the best.
        alone: Whether the loss of training pictures has not risen at all; else by less than half.
    """

    share: float
    since: float
    alone: bool

    def __str__(self) -> str:
        """In words."""
        train = "has not" if self.alone else "by less than half of it"
        return (
            f"has risen by {100 * self.share:.2g} % since {rounded(self.since):,} images, and that "
            f"of training pictures {train}"
        )


def _threes(values: Sequence[float]) -> Iterator[tuple[float, float, float]]:
    """Each value but the first and the last between its neighbours."""
    return zip(values, values[1:], values[2:], strict=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def losses(held_out: Sequence[Event], band: str = "") -> Losses | None:
    """The losses of a band, or of all; None where they are too few to see a trend."""
    rows: list[tuple[float, float, float, float]] = []
    for event in held_out:
        held, train, gap = (_table(event, name) for name in ("held", "train", "gap"))
        figures = (
            [held.get("loss"), train.get("loss"), gap.get("error")]
            if not band
            else [
                _table(held, "bands").get(band),
                _table(train, "bands").get(band),
                _table(gap, "errors").get(band),
            ]
        )
        if all(map(_is_number, figures)):
            h, t, e = map(float, figures)  # type: ignore[arg-type]
            rows.append((float(event["images"]), h, t, e))
    if len(rows) < _FEWEST:
        return None
    images, held_, train_, error = zip(*rows, strict=True)
    return Losses(images, held_, train_, error)


def _table(event: Event, name: str) -> Mapping[str, Any]:
    value = event.get(name)
    return value if isinstance(value, Mapping) else {}


def by_heart(held_out: Sequence[Event]) -> str:
    """A reason, where the held-out loss rises while that of training pictures does not; or ""."""
    overall = losses(held_out)
    if overall and (risen := overall.risen(least=0.01, sure=5)):
        return f"the held-out loss {risen}"
    # A single band is one of many, so it must be surer.
    names = dict.fromkeys(n for e in held_out for n in _table(_table(e, "held"), "bands"))
    found = {}
    for name in names:
        band = losses(held_out, name)
        if band and (risen := band.risen(least=0.03, sure=7)):
            found[name] = risen
    if not found:
        return ""
    worst = max(found, key=lambda name: found[name].share)
    return f"the held-out loss at log-snr {worst} {found[worst]}"
