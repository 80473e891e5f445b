"""What a run has learned by heart: the signs of it in what the run tells."""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kao.evaluation.numbers import rounded

Event = Mapping[str, Any]
"""One line of metrics.jsonl."""

_COPIED = 0.05
"""Share of drawn pictures that are copies past which they are no chance: on held-out pictures
the same search finds about 0.01."""

_FEWEST = 8
"""Held-out losses below which nothing is said of their course."""


def copies(scores: Sequence[Event]) -> str:
    """A reason, where more of the drawn pictures are copies than chance makes; or ""."""
    told = scores[-1].get("copies") if scores else None
    low = told.get("low") if isinstance(told, Mapping) else None
    if not isinstance(told, Mapping) or not isinstance(low, int | float) or low <= _COPIED:
        return ""
    return f"{100 * told['value']:.2g} % of the drawn pictures are copies of training pictures"


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

    def _noise(self) -> float:
        """Of the mean of a window, from second differences, which no slow curve has."""
        h = self.held
        bends = [h[i - 1] - 2 * h[i] + h[i + 1] for i in range(1, len(h) - 1)]
        return math.sqrt(sum(b * b for b in bends) / (6 * len(bends)) / self.window)

    def _means(self, values: Sequence[float]) -> list[float]:
        k = self.window
        return [math.fsum(values[i : i + k]) / k for i in range(len(values) - k + 1)]

    def risen(self, *, least: float, sure: float) -> tuple[float, float] | None:
        """How far the held-out loss lies above its best while the training loss does not.

        Args:
            least: Smallest share of it that counts.
            sure: Standard errors that it must come to, too; many, since the best of many points
                is chosen, and an average of the weights moves slowly.

        Returns:
            The rise as a share of the loss, and the images at the best; None where it has not.
        """
        held, train = self._means(self.held), self._means(self.train)
        best = min(range(len(held)), key=held.__getitem__)
        rise, others = held[-1] - held[best], train[-1] - train[best]
        apart = self.held[-1] - self.train[-1]
        counts = rise > least * held[best] and rise > sure * math.sqrt(2) * self._noise()
        if not counts or others > rise / 2 or apart <= 2 * self.error[-1]:
            return None
        return rise / held[best], self.images[best + self.window // 2]

    def fallen(self) -> float | None:
        """Share by which the held-out loss fell over the second half of the images, if it did."""
        held = self._means(self.held)
        half = bisect.bisect_left(self.images, self.images[-1] / 2)
        middle = held[min(half, len(held) - 1)]
        fall = middle - held[-1]
        counts = fall > 0.005 * middle and fall > 4 * math.sqrt(2) * self._noise()
        return fall / middle if counts else None


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
        if all(isinstance(x, int | float) and math.isfinite(x) for x in figures):
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
        rise, since = risen
        return (
            f"the held-out loss has risen by {100 * rise:.2g} % since {rounded(since):,} images, "
            f"and that of training pictures has not"
        )
    # A single band is one of many, so it must be surer.
    names = dict.fromkeys(n for e in held_out for n in _table(_table(e, "held"), "bands"))
    found = {}
    for name in names:
        band = losses(held_out, name)
        if band and (risen := band.risen(least=0.03, sure=7)):
            found[name] = risen
    if not found:
        return ""
    worst = max(found, key=lambda name: found[name][0])
    rise, since = found[worst]
    return (
        f"the held-out loss at log-snr {worst} has risen by {100 * rise:.2g} % since "
        f"{rounded(since):,} images, and that of training pictures has not"
    )
