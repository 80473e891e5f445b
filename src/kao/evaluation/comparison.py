"""Which of several sets of pictures is better, and which of their differences are real.

All were held against the same reference, so what its choice does to their scores it does to all
of them alike, and a difference is judged by the errors that come from the drawn pictures alone.
Sets measured by protocols that differ are shown side by side and not ranked.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

from kao.errors import ConfigError
from kao.evaluation.card import Card, differences
from kao.evaluation.numbers import number
from kao.evaluation.remarks import remarks
from kao.evaluation.results import Evaluation, Measured
from kao.metrics.scores import Z95, Better, Score

FALSE_ALARMS = 0.05
"""How often equal sets, however many, show any real difference in one score."""

Finding = Literal["real", "within the noise"]


@dataclass(frozen=True)
class Difference:
    """By how much one score of two sets differs.

    Attributes:
        first, second: Their names.
        value: Score of the first minus that of the second.
        low, high: Interval that holds the true difference; those of all pairs of one score hold
            theirs together in 95 % of comparisons.
        better: Which way good pictures lie.
    """

    first: str
    second: str
    value: float
    low: float
    high: float
    better: Better

    @property
    def real(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    @property
    def finding(self) -> Finding:
        """The same in words."""
        return "real" if self.real else "within the noise"

    @property
    def winner(self) -> str | None:
        """Which of the two is really better; None where neither is, or the score cannot say."""
        if not self.real or self.better == "neither":
            return None
        return self.first if (self.value < 0) == (self.better == "lower") else self.second

    @property
    def figures(self) -> tuple[str, str, str]:
        """Value, low and high as people write them, as exactly as the interval allows."""
        error = (self.high - self.low) / (2 * Z95)
        value, low, high = (number(x, error) for x in (self.value, self.low, self.high))
        return value, low, high

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.value,
            "interval": [self.low, self.high],
            "finding": self.finding,
            "better": self.winner,
        }


@dataclass(frozen=True)
class Row:
    """One score of all sets.

    Attributes:
        name: Of the score.
        space: The feature space; "" where pixels were looked at.
        measured: By the sets' names; those that have no such score are missing.
        differences: Of every pair; none where the sets are not ranked.
        obstacle: Why this one is not, where the protocols agree; "" where it is.
    """

    name: str
    space: str
    measured: Mapping[str, Measured]
    differences: tuple[Difference, ...]
    obstacle: str = ""

    @property
    def better(self) -> Better:
        """Which way good pictures lie."""
        return next(iter(self.measured.values())).score.better

    @property
    def leaders(self) -> tuple[str, ...]:
        """The sets that no other is really better than; none where nothing tells them apart."""
        winners = [d.winner for d in self.differences if d.winner is not None]
        if not winners:
            return ()
        beaten = {
            d.second if d.winner == d.first else d.first
            for d in self.differences
            if d.winner is not None
        }
        return tuple(name for name in self.measured if name not in beaten)

    def verdict(self) -> str:
        """What the score says of the sets, in a few words."""
        if len(self.measured) == 1:
            return f"only of {next(iter(self.measured))}"
        if not self.differences:
            return "not ranked"
        if not any(difference.real for difference in self.differences):
            return "within the noise"
        if not self.leaders:
            return "they differ: real"
        return f"{' or '.join(self.leaders)} best: real"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; the scores themselves are in the evaluations."""
        return {
            "name": self.name,
            "space": self.space,
            "leaders": list(self.leaders),
            "obstacle": self.obstacle,
            "differences": [difference.to_dict() for difference in self.differences],
        }


@dataclass(frozen=True)
class Comparison:
    """Several evaluations side by side.

    Attributes:
        evaluations: By the names of what was evaluated, two or more.
        rows: One for each score that any of them has.
        per_class: The same of the pictures of each class.
        obstacles: In what the protocols differ, a sentence each; if they do, nothing is ranked.
        notes: What a reader must know, a sentence each.
    """

    evaluations: Mapping[str, Evaluation]
    rows: tuple[Row, ...]
    per_class: Mapping[str, tuple[Row, ...]]
    obstacles: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of what was evaluated."""
        return tuple(self.evaluations)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "ranked": not self.obstacles,
            "obstacles": list(self.obstacles),
            "notes": list(self.notes),
            "scores": [row.to_dict() for row in self.rows],
            "per_class": {
                name: [row.to_dict() for row in rows] for name, rows in self.per_class.items()
            },
            "evaluations": {name: one.to_dict() for name, one in self.evaluations.items()},
        }


def compare(evaluations: Mapping[str, Evaluation]) -> Comparison:
    """Set evaluations side by side, and tell which of their differences are real.

    Args:
        evaluations: By the names of what was evaluated, two or more.

    Raises:
        ConfigError: There are fewer than two.
    """
    if len(evaluations) < 2:
        raise ConfigError(
            f"There is {len(evaluations)} evaluation to compare, and a comparison takes two or "
            f"more: name another run, folder or file."
        )
    cards = [replace(one.card, subject=name) for name, one in evaluations.items()]
    obstacles = tuple(
        f"{sentence[:1].upper()}{sentence[1:]}"
        for a, b in itertools.combinations(cards, 2)
        for sentence in differences(a, b)
    )
    ranked = not obstacles
    copies = {name: (one.copies,) for name, one in evaluations.items() if one.copies}
    rows = (
        *_rows({name: one.scores for name, one in evaluations.items()}, _uneven, ranked=ranked),
        *_rows(copies, lambda row: _learned({card.subject: card for card in cards}), ranked=ranked),
    )
    classes = dict.fromkeys(itertools.chain(*(one.per_class for one in evaluations.values())))
    per_class = {
        label: _rows(
            {name: one.per_class.get(label, ()) for name, one in evaluations.items()},
            _uneven,
            ranked=ranked,
        )
        for label in classes
    }
    return Comparison(
        evaluations=dict(evaluations),
        rows=rows,
        per_class=per_class,
        obstacles=obstacles,
        notes=(
            *(row.obstacle for row in rows if row.obstacle),
            *(
                f"Class {label}: {row.obstacle}"
                for label, those in per_class.items()
                for row in those
                if row.obstacle
            ),
            *remarks(evaluations),
        ),
    )


def matching(candidates: Sequence[Sequence[Evaluation]]) -> tuple[Evaluation, ...]:
    """One evaluation of each thing, measured by the same protocol where there are such.

    Args:
        candidates: The evaluations of each, at least one, the one to prefer first.

    Returns:
        The preferred ones whose protocols agree; the first of each where none do.
    """
    for first in candidates[0]:
        chosen = [first]
        for others in candidates[1:]:
            agreeing = [e for e in others if not any(differences(c.card, e.card) for c in chosen)]
            chosen += agreeing[:1]
        if len(chosen) == len(candidates):
            return tuple(chosen)
    return tuple(evaluations[0] for evaluations in candidates)


def pair_differences(scores: Mapping[str, Score]) -> tuple[Difference, ...]:
    """Every pair's difference in one score, with intervals that hold together.

    Each interval is that of the difference of two independent estimates, put together from their
    own ones side by side (Zou & Donner 2008), so that shares near 0 or 1, whose intervals lean to
    one side, are treated as what they are.  For the number of pairs it is widened after
    Bonferroni (Dunn 1961): a difference whose interval leaves zero out is real.

    Sets drawn from the same noise are more alike than independent ones, and a clear difference
    shares a little less of the reference's error than two equal sets do: the first makes the
    intervals too wide, the second too narrow, and neither concerns sets that are equal.

    Args:
        scores: By name, all held against the same reference.

    Returns:
        In the order of the names; none for fewer than two.
    """
    pairs = list(itertools.combinations(scores, 2))
    if not pairs:
        return ()
    z = NormalDist().inv_cdf(1 - FALSE_ALARMS / (2 * len(pairs)))
    found = []
    for first, second in pairs:
        a, b = scores[first], scores[second]
        (below_a, above_a), (below_b, above_b) = _errors(a), _errors(b)
        value = a.value - b.value
        low = value - z * math.hypot(below_a, above_b)
        high = value + z * math.hypot(above_a, below_b)
        found.append(Difference(first, second, value, low, high, a.better))
    return tuple(found)


def _errors(score: Score) -> tuple[float, float]:
    """Standard errors below and above an estimate that come from the drawn pictures."""
    if score.interval is None:
        return score.own, score.own
    share = score.own / score.error if score.error > 0 else 1.0
    return share * (score.value - score.low) / Z95, share * (score.high - score.value) / Z95


def _uneven(row: Mapping[str, Measured]) -> str:
    """Why a score is not ranked that depends on the number of pictures; "" where it can be."""
    counts = {name: one.score.samples for name, one in row.items()}
    if len(set(counts.values())) < 2 or all(one.unbiased for one in row.values()):
        return ""
    score = next(iter(row.values())).score.name
    told = ", ".join(f"{count:,} of {name}" for name, count in counts.items())
    return f"{score} is not ranked, since it depends on the number of pictures: {told}."


def _learned(cards: Mapping[str, Card]) -> str:
    """Why copies of training pictures are not ranked; "" where they can be."""
    if unknown := [name for name, card in cards.items() if card.train_hash is None]:
        return (
            f"Copies are not ranked, since it is not known what {' and '.join(unknown)} was "
            f"trained on."
        )
    if len({card.train_hash for card in cards.values()}) == 1:
        return ""
    return f"Copies are not ranked, since {' and '.join(cards)} were trained on different pictures."


def _rows(
    measured: Mapping[str, Sequence[Measured]],
    obstacle: Callable[[Mapping[str, Measured]], str],
    *,
    ranked: bool,
) -> tuple[Row, ...]:
    """A row for each score of a space, in the order in which they first come.

    Args:
        measured: By the sets' names.
        obstacle: Says of one score why it cannot be ranked.
        ranked: Whether the protocols agree.
    """
    table: dict[tuple[str, str], dict[str, Measured]] = {}
    for name, scores in measured.items():
        for one in scores:
            table.setdefault((one.score.name, one.space), {})[name] = one
    rows = []
    for (score, space), row in table.items():
        why = obstacle(row) if ranked and len(row) > 1 else ""
        found = (
            pair_differences({name: one.score for name, one in row.items()})
            if ranked and not why
            else ()
        )
        rows.append(Row(score, space, row, found, why))
    return tuple(rows)
