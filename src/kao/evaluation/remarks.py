"""What a reader of a comparison must know besides its numbers, a sentence each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kao.evaluation.card import Card
from kao.evaluation.results import Evaluation

_NOTED = {
    "precision": ("They were drawn in several precisions", "in"),
    "ema": ("They were drawn with several averages of the weights", "with"),
    "kao": ("They were measured by several versions of kao", "by"),
}
"""What hinders no ranking, and can still move a score; how it is told of."""


def remarks(evaluations: Mapping[str, Evaluation]) -> tuple[str, ...]:
    """What is taken on trust, what differs and hinders nothing, and what evaluations say.

    Args:
        evaluations: By the names of what was evaluated.
    """
    cards = [replace(one.card, subject=name) for name, one in evaluations.items()]
    return (
        *(
            f"How {card.subject} was drawn is not known: that it was drawn as the others is taken "
            f"on trust."
            for card in cards
            if card.sampling is None
        ),
        *_differing(cards),
        *_notes(evaluations),
    )


def _differing(cards: Sequence[Card]) -> list[str]:
    """A sentence on each fact of `_NOTED` in which those that know it differ."""
    notes = []
    for name, (words, by) in _NOTED.items():
        told = {card.subject: getattr(card, name) for card in cards}
        known = {subject: value for subject, value in told.items() if value is not None}
        if len(set(known.values())) > 1:
            notes.append(f"{words}: {', '.join(f'{s} {by} {v}' for s, v in known.items())}.")
    return notes


def _notes(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """What each of them says; what all say, once and without a name."""
    said = [set(one.notes) for one in evaluations.values()]
    common = set.intersection(*said)
    first = next(iter(evaluations.values()))
    return [
        *(note for note in first.notes if note in common),
        *(
            f"{name}: {note}"
            for name, one in evaluations.items()
            for note in one.notes
            if note not in common
        ),
    ]
