"""Drawn and real pictures side by side in a feature space, and the scores of that view."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from kao.errors import DataError
from kao.evaluation.looking import BATCH, look
from kao.evaluation.parts import Parts
from kao.evaluation.pictures import PictureSet, class_counts
from kao.evaluation.results import Measured
from kao.metrics import METRICS, Features
from kao.metrics.registry import Real
from kao.metrics.sight import Sight
from kao.processes import ALONE, Processes

CLASS_LEAST = 50
"""Drawn and real pictures below which a class gets no scores of its own."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is."""


@dataclass(frozen=True)
class Looking:
    """How pictures are looked at.

    Attributes:
        spaces: Opened feature spaces, by the names that users type.
        device: Where they compute; None: the accelerator if there is one.
        batch: Pictures at a time.
        processes: Who shares the work; all of them must do the same.
        progress: Told how far it is.
    """

    spaces: Mapping[str, Features]
    device: torch.device | None = None
    batch: int = BATCH
    processes: Processes = ALONE
    progress: Progress = lambda what, done, total: None

    def at(self, pictures: PictureSet, space: str, *, kept: bool = True) -> Sight:
        """A set as one of the spaces sees it; see `look`."""
        opened = self.spaces[space]
        what = f"{pictures.name}, {opened.name}"
        return look(
            pictures,
            opened,
            device=self.device,
            batch=self.batch,
            kept=kept,
            processes=self.processes,
            progress=lambda done, total: self.progress(what, done, total),
        )


@dataclass(frozen=True, eq=False)
class View:
    """Drawn and real pictures in one space.

    Attributes:
        drawn: What is scored.
        reference: What it is held against.
        fresh: Real pictures that are scored as if they had been drawn; None: there are none.
        beside: What those are held against.
    """

    drawn: Sight
    reference: Real
    fresh: Sight | None
    beside: Real

    @classmethod
    def of(cls, drawn: Sight, real: Sight, parts: Parts) -> Self:
        """The view on parted real pictures.

        Args:
            drawn: Drawn pictures.
            real: All of `parts.pictures`.
            parts: Which of them are what.
        """
        reference = real.rows(parts.reference)
        # The same object where it can be: what metrics compute of it is computed once.
        beside = reference if parts.beside is parts.reference else real.rows(parts.beside)
        return cls(drawn, reference, real.rows(parts.fresh) if len(parts.fresh) else None, beside)


Pairs = Sequence[tuple[str, str]]
"""Names of metrics and of the spaces to measure them in."""


def scores_of(pairs: Pairs, views: Mapping[str, View], notes: list[str]) -> list[Measured]:
    """All scores, each with its floor.

    Args:
        pairs: What to measure.
        views: By the names of spaces.
        notes: Is told of metrics that cannot be measured.

    Raises:
        DataError: None of them can.
    """
    scores: list[Measured] = []
    failed: DataError | None = None
    for name, space in pairs:
        try:
            scores += _measured(name, views[space])
        except DataError as error:
            failed = failed or error
            notes.append(f"Left out {name}: {error}")
    if failed and not scores:
        raise failed
    return scores


def _measured(name: str, view: View) -> list[Measured]:
    metric = METRICS[name]
    scores = metric(view.reference, view.drawn)
    floors = {}
    # What depends on the number of pictures would show another number as better or worse pictures.
    if view.fresh is not None and (metric.unbiased or len(view.fresh) == len(view.drawn)):
        try:
            floors = {floor.name: floor for floor in metric(view.beside, view.fresh)}
        except DataError:  # half of the real pictures can be too few where all of them are not
            floors = {}
    return [
        Measured(score, view.drawn.space, floors.get(score.name), metric.unbiased)
        for score in scores
    ]


def scores_per_class(
    pairs: Pairs, views: Mapping[str, View], drawn: PictureSet, parts: Parts, notes: list[str]
) -> dict[str, tuple[Measured, ...]]:
    """Scores of the classes that both sets have, without floors.

    Args:
        pairs: What to measure.
        views: By the names of spaces.
        drawn: The drawn pictures of the views.
        parts: Has their reference pictures.
        notes: Is told of classes that have too few pictures.
    """
    of_class = {name: parts.pictures.is_of(name)[parts.reference] for name in drawn.classes}
    ours, theirs = class_counts(drawn), {name: int(x.sum()) for name, x in of_class.items()}
    shared = [name for name in drawn.classes if ours[name] and theirs[name]]
    few = [name for name in shared if min(ours[name], theirs[name]) < CLASS_LEAST]
    if few:
        notes.append(
            f"Classes with fewer than {CLASS_LEAST} drawn or real pictures have no scores of their "
            f"own: {', '.join(few)}."
        )
    found = {}
    for name in shared:
        if name in few:
            continue
        mine, other = drawn.is_of(name), of_class[name]
        own = {
            space: View(view.drawn.rows(mine), view.reference.rows(other), None, view.beside)
            for space, view in views.items()
            if isinstance(view.reference, Sight)
        }
        told: list[str] = []
        try:
            found[name] = tuple(scores_of(pairs, own, told))
        except DataError as error:
            told = [str(error)]
        notes += [f"Class {name}: {note}" for note in told]
    return found
