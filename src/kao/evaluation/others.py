"""What is asked besides distances in a feature space: colours, pairs of pictures, copies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from kao.errors import DataError
from kao.evaluation.parts import Parts
from kao.evaluation.pictures import PictureSet, overlap
from kao.evaluation.planning import LPIPS, Plan
from kao.evaluation.results import Measured
from kao.evaluation.views import Looking
from kao.machine import device as best_device
from kao.metrics.colours import channel_drift, drift_sentence
from kao.metrics.copies import Copies, CopyFinder
from kao.metrics.diversity import lpips_diversity, pairwise_distance
from kao.metrics.scores import Score

PAIRS = 1_000
"""Pairs of pictures whose LPIPS is taken."""

_Measure = Callable[[PictureSet, PictureSet], Sequence[Score]]
"""Of real pictures and those that are scored."""


@dataclass(frozen=True, eq=False)
class Sets:
    """The pictures that are compared.

    Attributes:
        drawn: The drawn ones.
        parts: The real ones.
        train: What the model was trained on; None: not known.
    """

    drawn: PictureSet
    parts: Parts
    train: PictureSet | None

    @cached_property
    def reference(self) -> PictureSet:
        """What the drawn ones are held against, copied when it is first asked for."""
        return self.parts.pictures.take(self.parts.reference)

    @cached_property
    def fresh(self) -> PictureSet:
        """Other real ones, which are scored as if they had been drawn; may be empty."""
        return self.parts.pictures.take(self.parts.fresh)

    @cached_property
    def beside(self) -> PictureSet:
        """Those that `fresh` is held against."""
        if self.parts.beside is self.parts.reference:
            return self.reference
        return self.parts.pictures.take(self.parts.beside)


def other_scores(
    plan: Plan, sets: Sets, looking: Looking, *, seed: int, kept: bool, notes: list[str]
) -> list[Measured]:
    """What is asked for besides `METRICS` and copies, each with its floor.

    Args:
        plan: What is asked for.
        sets: The pictures.
        looking: With the plan's spaces.
        seed: Of random choices.
        kept: Whether the features of drawn pictures may be kept on the disk.
        notes: Is told of what cannot be measured, and of colours that are wrong.
    """

    def drift(real: PictureSet, scored: PictureSet) -> Sequence[Score]:
        return channel_drift(real=real.images, drawn=scored.images)

    def diversity(real: PictureSet, scored: PictureSet) -> Sequence[Score]:
        lasting = kept or scored is not sets.drawn
        return (pairwise_distance(looking.at(scored, plan.main, kept=lasting), seed=seed),)

    def lpips(real: PictureSet, scored: PictureSet) -> Sequence[Score]:
        on = looking.device or best_device()
        images = scored.some(2 * PAIRS, seed=seed).images.to(on)
        return (lpips_diversity(images, looking.spaces[LPIPS].to(on), pairs=PAIRS, seed=seed),)

    measures: dict[str, tuple[str, _Measure]] = {
        "drift": ("", drift),
        "diversity": (plan.main, diversity),
        LPIPS: (LPIPS, lpips),
    }
    found: list[Measured] = []
    for name in plan.others:
        if name not in measures:
            continue
        space, measure = measures[name]
        try:
            scores = measure(sets.reference, sets.drawn)
        except DataError as error:
            notes.append(f"Left out {name}: {error}")
            continue
        if name == "drift":
            notes.append(drift_sentence(scores))
        floors = _floors(measure, sets)
        label = looking.spaces[space].name if space else ""
        found += [Measured(score, label, floors.get(score.name), True) for score in scores]
    return found


def _floors(measure: _Measure, sets: Sets) -> dict[str, Score]:
    """What real pictures score; nothing where there are too few."""
    if not len(sets.parts.fresh):
        return {}
    try:
        return {score.name: score for score in measure(sets.beside, sets.fresh)}
    except DataError:
        return {}


def copies_of(
    plan: Plan, sets: Sets, real: PictureSet, looking: Looking, *, seed: int, notes: list[str]
) -> Copies | None:
    """Which drawn pictures are copies of training pictures; None where that cannot be told.

    Args:
        plan: What is asked for.
        sets: The pictures.
        real: All real ones: those that were not trained on show what is chance.
        looking: With the plan's spaces.
        seed: Of random choices.
        notes: Is told the result, or why there is none.
    """
    if "copies" not in plan.others:
        return None
    if sets.train is None:
        notes.append(
            "Copies are not looked for, since it is not known what the model was trained on: say "
            "so with --train."
        )
        return None
    held = real.take(torch.nonzero(~overlap(real, sets.train)).flatten())
    try:
        finder = CopyFinder(
            sets.train.images,
            held=held.images if len(held) else None,
            space=looking.spaces[plan.main],
            seen=looking.at(sets.train, plan.main).features,
            device=looking.device or best_device(),
            seed=seed,
        )
        found = finder(sets.drawn.images)
    except DataError as error:
        notes.append(f"Copies cannot be told: {error}")
        return None
    notes.append(found.sentence())
    return found
