"""What is compared: runs and drawn pictures, their scores, and some of what they draw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kao.errors import CheckpointError, ConfigError
from kao.evaluation import (
    Evaluation,
    Looking,
    PictureSet,
    Protocol,
    open_pictures,
)
from kao.evaluation.comparison import matching
from kao.files import at_home
from kao.runs.evaluating import (
    Subject,
    load_evaluations,
    open_real,
    refuse_smaller,
    subject_of_run,
    subject_of_set,
)
from kao.runs.run import CONFIG, Run, draw


@dataclass(frozen=True)
class Side:
    """One of the things compared.

    Attributes:
        name: What it is called: the last part of its path, or all of it where two share that.
        spec: As it was typed.
        run: The run; None for pictures that lie somewhere.
    """

    name: str
    spec: str
    run: Run | None


def open_sides(specs: Sequence[str]) -> list[Side]:
    """What a person named.

    Args:
        specs: Run directories, folders and files.

    Raises:
        ConfigError: They are fewer than two, one is named twice, or runs draw at several sizes.
        CheckpointError: One is not there.
    """
    if len(specs) < 2:
        raise ConfigError(
            f"{' '.join(specs) or 'Nothing'} alone cannot be compared: name two or more run "
            f"directories, folders or NPZ files of pictures."
        )
    places = [at_home(spec) for spec in specs]
    for i, place in enumerate(places):
        if not place.exists():
            raise CheckpointError(
                f"There is no {place}: name run directories, folders or NPZ files of pictures."
            )
        if place.resolve() in [other.resolve() for other in places[:i]]:
            raise ConfigError(f"{place} is named twice: name it once, and something else.")
    ends = [place.resolve().name for place in places]
    sides = [
        Side(
            end if ends.count(end) == 1 else spec,
            spec,
            Run.open(place) if (place / CONFIG).is_file() else None,
        )
        for spec, place, end in zip(specs, places, ends, strict=True)
    ]
    _refuse_sizes({side.name: side.run.config.data.size for side in sides if side.run})
    return sides


def kept_evaluations(
    sides: Sequence[Side], *, protocol: str | None = None
) -> dict[str, Evaluation]:
    """The scores that runs keep: of protocols that agree where there are such, newest first.

    Args:
        sides: Runs, all of them.
        protocol: Name of the one that the scores must be by, whatever was changed of it.

    Returns:
        By the names of the sides.

    Raises:
        ConfigError: One is no run, or keeps no such scores.
        CheckpointError: An evaluation cannot be read.
    """
    candidates = []
    for side in sides:
        if side.run is None:
            raise ConfigError(
                f"{side.spec} is no run directory, so no scores of it are kept: give real pictures "
                f"with --real, against which all are scored."
            )
        newest_first = reversed(load_evaluations(side.run.path))
        kept = [e for e in newest_first if protocol in (None, e.card.protocol.partition("+")[0])]
        if not kept:
            by = f" by {protocol}" if protocol else ""
            raise ConfigError(
                f"{side.spec} keeps no scores{by} yet: run `kao evaluate {side.spec}`, or give "
                f"real pictures with --real, against which all are scored."
            )
        candidates.append(kept)
    return dict(zip((side.name for side in sides), matching(candidates), strict=True))


@dataclass(frozen=True)
class Scored:
    """One of the things compared, scored.

    Attributes:
        pictures: Its drawn pictures.
        evaluation: Their scores.
    """

    pictures: PictureSet
    evaluation: Evaluation


def score_sides(
    sides: Sequence[Side],
    *,
    real: str,
    protocol: Protocol,
    looking: Looking,
    seed: int = 0,
    batch: int = 64,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Scored]:
    """Score all of them by one protocol: as many pictures of each, against the same real ones.

    Args:
        sides: What is compared.
        real: Real pictures, or a reference file.
        protocol: What is measured, and how.
        looking: With the spaces of the protocol; its `progress` is told of the drawing too.
        seed: Of the noise and of every choice.
        batch: Pictures that a model draws at a time.
        tell: Called with a sentence where fewer are scored than the protocol asks for.

    Returns:
        By the names of the sides.

    Raises:
        ConfigError: Sizes differ, or a run cannot draw as the protocol wants it.
        CheckpointError: A run has no whole checkpoint.
        DataError: Pictures are missing or too few.
        OutputError: Pictures cannot be prepared.
    """
    sets = {side.name: open_pictures(side.spec) for side in sides if side.run is None}
    sizes = {s.name: s.run.config.data.size if s.run else sets[s.name].size for s in sides}
    _refuse_sizes(sizes)
    asked = _of_one_number(protocol, sets)
    if asked.n < protocol.n:
        tell(f"{asked.n:,} pictures of each are scored, since one of them has no more.")
    lying: dict[str, Subject] = {}
    if sets:
        seen = open_real(real, size=sizes[sides[0].name])
        for name, pictures in sets.items():
            refuse_smaller(seen, pictures)
            lying[name] = subject_of_set(pictures, real=seen, name=real)
    scored: dict[str, Scored] = {}
    for side in sides:
        subject = (
            subject_of_run(side.run, asked, real=real, seed=seed, batch=batch)
            if side.run
            else lying[side.name]
        )
        pictures = subject.drawn(looking.processes, _progress(looking, f"drawing {side.name}"))
        found = subject.examine(pictures, protocol=asked, looking=looking, seed=seed)
        evaluation = found.evaluation
        if same := [name for name, one in scored.items() if _same(one.pictures, pictures)]:
            note = f"The {len(pictures):,} pictures of {side.name} are those of {same[0]}."
            evaluation = replace(evaluation, notes=(*evaluation.notes, note))
        scored[side.name] = Scored(pictures, evaluation)
    return scored


def _same(one: PictureSet, other: PictureSet) -> bool:
    """Whether two sets hold the same pictures, under whatever names."""
    return one.fingerprint == other.fingerprint


def some_drawn(run: Run, count: int, *, seed: int = 0, batch: int = 64) -> Tensor:
    """Pictures 0, 1, ... of a seed, as the run draws; of its size, all runs draw the same noise.

    Args:
        run: The run.
        count: How many, 1 or more.
        seed: Of the noise.
        batch: Pictures at a time.

    Returns:
        uint8, (count, 3, S, S).

    Raises:
        CheckpointError: There is no whole checkpoint.
        ConfigError: As `Run.drawing`.
    """
    config, denoiser = run.drawing(), run.denoiser()
    return torch.cat(list(draw(denoiser, config, indices=range(count), seed=seed, batch=batch)))


def _progress(looking: Looking, what: str) -> Callable[[int, int], None]:
    return lambda done, total: looking.progress(what, done, total)


def _of_one_number(asked: Protocol, sets: Mapping[str, PictureSet]) -> Protocol:
    """The protocol with as many pictures as every set has: the bias of a score depends on it."""
    most = min([asked.n, *map(len, sets.values())])
    uneven = asked.all_of_folders and any(len(pictures) != most for pictures in sets.values())
    return asked.changed(n=most) if uneven or most != asked.n else asked


def _refuse_sizes(sizes: Mapping[str, int]) -> None:
    """Raise a ConfigError where pictures are of several sizes."""
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise ConfigError(
            f"Pictures of several sizes cannot be compared, and {told} pixels a side: compare "
            f"those of one size."
        )
