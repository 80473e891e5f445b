"""Scores of a set of pictures, each with its interval, and what real pictures would score."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kao.errors import DataError
from kao.evaluation.card import UNKNOWN, Card, Drawing
from kao.evaluation.others import Sets, copies_of, other_scores
from kao.evaluation.parts import Parts
from kao.evaluation.pictures import PictureSet, overlap
from kao.evaluation.planning import Plan
from kao.evaluation.protocols import Protocol
from kao.evaluation.results import Evaluation, Measured
from kao.evaluation.views import Looking, View, scores_of, scores_per_class
from kao.metrics import Reference, Sight
from kao.metrics.copies import Copies
from kao.metrics.typicality import Ranking, ranking

FEW = 50
"""Drawn pictures below which a reader is warned."""

_EQUAL = (
    "The drawn pictures are the reference itself, so these are the scores of equal sets: a "
    "distance of 0, or below 0 by a distance without bias, which takes the two sets for "
    "independent ones."
)


@dataclass(frozen=True, eq=False)
class Examination:
    """An evaluation, and the pictures that it speaks of.

    Attributes:
        evaluation: What is kept.
        drawn: The drawn pictures that were scored.
        copies: Which of them are copies of training pictures; None: not looked for.
        ranking: From the most typical of them to the least; None where only statistics of real
            pictures are there.
    """

    evaluation: Evaluation
    drawn: PictureSet
    copies: Copies | None = None
    ranking: Ranking | None = None


def evaluate(
    drawn: PictureSet,
    real: PictureSet | Reference,
    *,
    protocol: Protocol,
    looking: Looking,
    name: str = "",
    drawing: Drawing = UNKNOWN,
    train: PictureSet | None = None,
    seed: int = 0,
    kept: bool = True,
) -> Examination:
    """Score drawn pictures against real ones.

    A metric that cannot be measured, for want of pictures mostly, is left out and told of.
    Several processes, which must then call this together, share the looking; each gets all.

    Args:
        drawn: The drawn pictures; of more than the protocol asks for, some are chosen at random.
        real: Real pictures; or statistics of some, which have no floor and serve few metrics.
        protocol: What is measured, and how.
        looking: With the spaces of `Plan.of(protocol)`.
        name: What to call statistics; pictures have a name.
        drawing: How the pictures were drawn, as far as it is known.
        train: The pictures that the model was trained on, to find copies of; None: not known.
        seed: Of every random choice.
        kept: Whether the features of drawn pictures may be kept on the disk.

    Raises:
        DataError: The two sets are of different sizes, nothing can be measured with so
            few pictures, or statistics are of another feature space.
    """
    plan, notes = Plan.of(protocol), list(drawn.notes)
    drawn = _chosen(drawn, protocol, seed, notes)
    if len(drawn) < FEW:
        notes.append(
            f"{len(drawn)} drawn pictures say little, and so few tell their own intervals badly: "
            f"score {FEW} or more, better 1,000."
        )
    if drawn.brought:
        notes.append(f"The drawn pictures are not as they were drawn, but {drawn.brought}.")
    spaces = [looking.spaces[space] for space in plan.spaces]
    card = Card(
        subject=drawn.name,
        images=drawing.images,
        n=len(drawn),
        size=drawn.size,
        reference=name,
        reference_hash="",
        reals=None,
        features=tuple(space.name for space in spaces),
        resize=tuple(space.resize for space in spaces),
        sampling=drawing.sampling,
        ema=drawing.ema,
        precision=drawing.precision,
        seed=seed,
        metrics=protocol.metrics,
        protocol=protocol.name,
    )
    ask = _Ask(drawn, plan, looking, card, kept, notes)
    if isinstance(real, Reference):
        return _to_statistics(ask, real)
    _check_sets(drawn, real)
    return _to_pictures(ask, real, Parts.of(real, protocol, n=len(drawn), seed=seed), train, seed)


@dataclass(frozen=True, eq=False)
class _Ask:
    """What is to be found out, and what is known so far."""

    drawn: PictureSet
    plan: Plan
    looking: Looking
    card: Card
    kept: bool
    notes: list[str]

    def seen(self, space: str) -> Sight:
        """The drawn pictures in a space."""
        return self.looking.at(self.drawn, space, kept=self.kept)


def _to_statistics(ask: _Ask, reference: Reference) -> Examination:
    views, plan = {}, ask.plan
    for space in plan.measured:
        opened, seen = ask.looking.spaces[space], ask.seen(space)
        reference.check(space=opened.name, width=seen.width, resize=opened.resize)
        views[space] = View(seen, reference, None, reference)
    if plan.others:
        ask.notes.append(
            f"Left out {', '.join(plan.others)}: of the real pictures only statistics are there."
        )
    if reference.gaussian.n is None:
        ask.notes.append(
            "The reference does not tell of how many pictures it is: intervals are those of the "
            "drawn pictures alone, and the bias of its own number stays in every distance."
        )
    ask.notes.append(
        "No floor: a reference file has no other real pictures that could be scored; --real with "
        "the pictures themselves has one."
    )
    scores = scores_of(plan.pairs, views, ask.notes)
    if ask.drawn.fingerprint == reference.fingerprint:
        ask.notes.append(_EQUAL)
    known = (
        reference.fingerprint
        or hashlib.sha256(reference.gaussian.mean.numpy().tobytes()).hexdigest()
    )
    card = replace(ask.card, reference_hash=known, reals=reference.gaussian.n)
    return Examination(Evaluation(card, tuple(scores), notes=tuple(ask.notes)), ask.drawn)


def _to_pictures(
    ask: _Ask, real: PictureSet, parts: Parts, train: PictureSet | None, seed: int
) -> Examination:
    plan, drawn, notes = ask.plan, ask.drawn, ask.notes
    notes += [*real.notes, *_about(real, parts, train, drawn)]
    views = {
        space: View.of(ask.seen(space), ask.looking.at(parts.pictures, space), parts)
        for space in plan.measured
    }
    scores = scores_of(plan.pairs, views, notes)
    sets = Sets(drawn, parts, train)
    scores += other_scores(plan, sets, ask.looking, seed=seed, kept=ask.kept, notes=notes)
    copies = copies_of(plan, sets, real, ask.looking, seed=seed, notes=notes)
    per_class = scores_per_class(plan.pairs, views, drawn, parts, notes)
    card = replace(
        ask.card,
        reference=real.name,
        reference_hash=parts.fingerprint,
        reals=len(parts.reference),
        brought=real.brought or None,
        train_hash=train.fingerprint if train else None,
    )
    rate = Measured(copies.rate, floor=copies.real, unbiased=True) if copies else None
    return Examination(
        Evaluation(card, tuple(scores), per_class, rate, tuple(notes)),
        drawn,
        copies,
        _ranking(views, seed),
    )


def _ranking(views: Mapping[str, View], seed: int) -> Ranking | None:
    """By realism in the first space; None where there are too few real pictures."""
    for view in views.values():
        if isinstance(view.reference, Sight):
            try:
                return ranking(real=view.reference, drawn=view.drawn, seed=seed)
            except DataError:
                return None
    return None


def _chosen(drawn: PictureSet, protocol: Protocol, seed: int, notes: list[str]) -> PictureSet:
    """As many pictures as the protocol wants, and a note where that is not what there is."""
    if protocol.all_of_folders or len(drawn) == protocol.n:
        return drawn
    if len(drawn) < protocol.n:
        notes.append(
            f"There are {len(drawn):,} drawn pictures, and the protocol asks for {protocol.n:,}: "
            f"the scores compare with those of as many only."
        )
        return drawn
    notes.append(
        f"{protocol.n:,} of {len(drawn):,} drawn pictures are scored, chosen at random; --n takes "
        f"more of them."
    )
    return drawn.some(protocol.n, seed=seed)


def _check_sets(drawn: PictureSet, real: PictureSet) -> None:
    """Refuse sets that cannot be compared.

    Raises:
        DataError: They are of different sizes.
    """
    if drawn.size != real.size:
        raise DataError(
            f"{drawn.name} holds pictures of {drawn.size} pixels and {real.name} of {real.size}: "
            f"give --size, to which both are brought."
        )


def _about(
    real: PictureSet, parts: Parts, train: PictureSet | None, drawn: PictureSet
) -> list[str]:
    """What a reader must know of the reference of drawn pictures."""
    notes, count, n = [], len(parts.reference), len(drawn)
    known = frozenset(parts.digests)
    if drawn.fingerprint == parts.fingerprint:
        notes.append(_EQUAL)
    elif same := sum(digest in known for digest in drawn.digests):
        notes.append(
            f"{same:,} of {n:,} drawn pictures are in the reference too, pixel for pixel, so "
            f"distances are lower than to other pictures of the same kind."
        )
    if count < len(real):
        notes.append(
            f"The reference is {count:,} of {len(real):,} real pictures, chosen at random."
        )
    if not len(parts.fresh):
        notes.append("There are too few real pictures for a floor.")
    elif parts.beside is not parts.reference:
        notes.append(
            f"The floor is that of {len(parts.fresh):,} real pictures against "
            f"{len(parts.beside):,} others: the reference has no pictures to spare for it."
        )
    if 0 < len(parts.fresh) != n:
        notes.append(
            f"Scores that depend on the number of pictures have no floor, since {n:,} are scored, "
            f"and there are {len(parts.fresh):,} real ones for it."
        )
    if train is not None and (seen := int(overlap(parts.pictures, train)[parts.reference].sum())):
        notes.append(
            f"{seen:,} of {count:,} reference pictures were trained on, so a model that "
            f"memorised them scores well: see the copies."
        )
    return notes
