"""What an evaluation found, and how it is kept."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from kao.errors import DataError
from kao.evaluation.by_heart import COPIED
from kao.evaluation.card import Card
from kao.metrics.scores import Score

FORMAT = 1
"""Version of the JSON: to be raised with every change that makes old files unreadable."""


@dataclass(frozen=True)
class Measured:
    """One score, and what real pictures score.

    Attributes:
        score: Of the drawn pictures.
        space: The feature space, "" where pixels were looked at.
        floor: The same of real pictures that are not in the reference: what a perfect model
            would get.  None: there were too few of them, or it says nothing of this score.
        unbiased: Whether its expectation is the same at any number of drawn pictures; False where
            that is not known.
    """

    score: Score
    space: str = ""
    floor: Score | None = None
    unbiased: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Scores of one set of drawn pictures, with the protocol they were measured by.

    Attributes:
        card: The protocol.
        scores: In the order they were asked for.
        per_class: The same of the pictures of each class, by its name.
        copies: Share of the drawn pictures that are copies of training pictures, with that of
            real pictures as its floor; None where no training pictures were given.
        notes: What a reader must know, a sentence each.
    """

    card: Card
    scores: tuple[Measured, ...]
    per_class: Mapping[str, tuple[Measured, ...]] = field(default_factory=dict)
    copies: Measured | None = None
    notes: tuple[str, ...] = ()

    @property
    def copied(self) -> bool:
        """Whether more of the drawn pictures are copies of training pictures than chance makes.

        The whole interval of their share lies above that of real pictures, or above what the search
        would find of new ones by far.
        """
        if self.copies is None:
            return False
        floor = self.copies.floor
        return self.copies.score.low > (COPIED if floor is None else floor.high)

    def of(self, name: str) -> Measured | None:
        """The score of that name; None if it was not measured."""
        return next((m for m in self.scores if m.score.name == name), None)

    def __str__(self) -> str:
        """For people: a row a score, what must be known of them, and the card."""
        rows = [("score", "value", "95 % interval", "floor", "n")]
        rows += [_row(measured) for measured in self.scores]
        rows += [_row(self.copies)] if self.copies else []
        for name, scores in self.per_class.items():
            rows += [_row(measured, f"{name}: ") for measured in scores]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(cells))
            for cells in (list(zip(row, widths, strict=True)) for row in rows)
        ]
        notes = [f"* {note}" for note in self.notes]
        return "\n".join([*lines, "", *notes, *([""] if notes else []), *self.card.lines()])

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "format": FORMAT,
            "card": self.card.to_dict(),
            "scores": [asdict(measured) for measured in self.scores],
            "per_class": {
                name: [asdict(measured) for measured in scores]
                for name, scores in self.per_class.items()
            },
            "copies": asdict(self.copies) if self.copies else None,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`, of JSON too.

        Raises:
            ValueError, TypeError, KeyError: It does not come from it, or from a later version.
        """
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']}, and this version of kao reads {FORMAT}")
        return cls(
            card=Card.from_dict(told["card"]),
            scores=_measured(told["scores"]),
            per_class={name: _measured(scores) for name, scores in told["per_class"].items()},
            copies=_measured([told["copies"]])[0] if told["copies"] else None,
            notes=tuple(told["notes"]),
        )

    def to_json(self) -> str:
        """As JSON text.

        Raises:
            DataError: A score is not finite.
        """
        try:
            return json.dumps(self.to_dict(), indent=2, allow_nan=False)
        except ValueError as error:
            raise DataError(
                f"A score of {self.card.subject} is not finite, and so cannot be kept: look at the "
                f"pictures, since the model may have diverged, and leave out with --metrics what "
                f"cannot be measured."
            ) from error

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError, TypeError, KeyError: The text does not come from it, or from a later version
                of kao.
        """
        return cls.from_dict(json.loads(text))


def _row(measured: Measured, of: str = "") -> tuple[str, str, str, str, str]:
    score, floor = measured.score, measured.floor
    return (
        of + score.name,
        f"{score.value:.4g}",
        f"{score.low:.4g} .. {score.high:.4g}",
        f"{floor.value:.4g} ({floor.low:.3g} .. {floor.high:.3g})" if floor else "",
        f"{score.samples:,}",
    )


def _measured(told: list[Mapping[str, Any]]) -> tuple[Measured, ...]:
    return tuple(
        Measured(
            _score(one["score"]),
            one["space"],
            _score(one["floor"]) if one["floor"] else None,
            one.get("unbiased", False),
        )
        for one in told
    )


def _score(told: Mapping[str, Any]) -> Score:
    interval = told["interval"]
    return Score(**dict(told) | {"interval": tuple(interval) if interval else None})
