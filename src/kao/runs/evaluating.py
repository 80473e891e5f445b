"""Scoring what a run draws: from its newest checkpoint to RUN/evaluations/."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kao.config import RunConfig, SamplingConfig
from kao.config.sampling import stepped_by
from kao.data.pictures import Crop
from kao.data.split import check_split, split
from kao.errors import CheckpointError, DataError
from kao.evaluation import (
    UNKNOWN,
    Card,
    Drawing,
    Evaluation,
    Examination,
    Looking,
    PictureSet,
    Plan,
    Protocol,
    evaluate,
    open_pictures,
    protocol_of,
)
from kao.evaluation.reading import has_statistics, of_prepared
from kao.files import at_home, write_text, writing
from kao.metrics import Reference, load_reference
from kao.processes import Processes
from kao.runs.averages import BEST, BEST_SCORE, facts_of, known_name
from kao.runs.classes import labels_of
from kao.runs.guiding import sampling_table
from kao.runs.pictures import learned_from
from kao.runs.run import Run, draw, load_worse

EVALUATIONS = "evaluations"
"""The folder of a run that evaluations are kept in."""

_CHOSEN = {BEST_SCORE: "their score while training", BEST: "their distance to real pictures"}
"""Averages that are the best of many, and by what."""


def own_pictures(config: RunConfig) -> tuple[PictureSet, PictureSet]:
    """The pictures that a run learned from, as they stand prepared.

    Args:
        config: Of the run.

    Returns:
        All of them, and those of them that it was trained on: the others were held out.

    Raises:
        DataError: They are not where they were, or are others now.
    """
    prepared = learned_from(config.data)
    everything = of_prepared(prepared, config.data.source)
    trained, _ = split(prepared.groups, check_split(prepared.groups, config.data.held_out))
    return everything, everything.take(trained)


def sampling_of(config: RunConfig, protocol: Protocol) -> SamplingConfig:
    """How a run draws for a protocol: as it is configured, but for what the protocol fixes."""
    own = config.sampling
    if protocol.sampler is not None:
        own = stepped_by(protocol.sampler, own, config.schedule.build())
    return replace(own, grid=protocol.grid or own.grid, steps=protocol.steps or own.steps)


@dataclass(frozen=True)
class Subject:
    """What is to be scored, and against what; nothing is drawn yet.

    Attributes:
        drawn: Makes or hands out the drawn pictures, told how far it is; processes that call it
            together share the work.
        real: Real pictures, or statistics of some.
        name: Of the real ones.
        train: What the model was trained on, and None where that is not known.
        drawing: How the pictures are drawn.
        kept: Whether they will come again, so that what is seen in them is worth keeping.
    """

    drawn: Callable[[Processes, Callable[[int, int], None]], PictureSet]
    real: PictureSet | Reference
    name: str
    train: PictureSet | None
    drawing: Drawing
    kept: bool

    def examine(
        self, pictures: PictureSet, *, protocol: Protocol, looking: Looking, seed: int
    ) -> Examination:
        """Score what was drawn; see `kao.evaluation.evaluate`."""
        return evaluate(
            pictures,
            self.real,
            name=self.name,
            protocol=protocol,
            looking=looking,
            drawing=self.drawing,
            train=self.train,
            seed=seed,
            kept=self.kept,
        )


def subject_of_run(
    run: Run,
    protocol: Protocol,
    *,
    real: str | None = None,
    train: str | None = None,
    weights: str = "ema",
    seed: int = 0,
    batch: int = 64,
) -> Subject:
    """What the newest checkpoint of a run draws, beside the pictures that the run learned from.

    Args:
        run: The run.
        protocol: How it draws, and how much.
        real: Other real pictures, as `kao train` takes them, or a reference file; None: its own.
        train: Other pictures to find copies of; None: those of its own that were trained on.
        weights: As of `Run.denoiser`.
        seed: Of the noise.
        batch: Pictures at a time.

    Raises:
        CheckpointError: There is no whole checkpoint, or there are no such weights.
        ConfigError: The schedule cannot be walked as the protocol wants it.
        DataError: There are no such pictures, or the run's own are not where they were.
        OutputError: Pictures cannot be prepared.
    """
    sampling = sampling_of(run.config, protocol)
    config = run.drawing(sampling)
    checkpoint, damages = run.checkpoint()
    notes = [f"{damage}: {checkpoint.path.name} was taken instead." for damage in damages]
    made = known_name(weights)
    if made in _CHOSEN:
        notes.append(
            f"The weights {made} were chosen by {_CHOSEN[made]}, so their score is somewhat lucky: "
            f"--weights ema is no choice of many."
        )
    data = config.data
    own: tuple[PictureSet, PictureSet] | None = None
    try:
        own = own_pictures(config)
    except DataError as error:
        if real is None:
            raise
        if train is None:
            notes.append(f"Copies cannot be looked for: {error}")
    shown = real or data.source
    seen = own[0] if own and real is None else open_real(shown, size=data.size, crop=data.crop)
    learned = own[1] if own else None
    if train is not None:
        learned = open_pictures(train, size=data.size, crop=data.crop)

    def drawn(processes: Processes, progress: Callable[[int, int], None]) -> PictureSet:
        denoiser = run.denoiser(checkpoint, weights=weights)
        parts: list[Tensor] = []
        for images in draw(
            denoiser,
            config,
            indices=range(protocol.n),
            seed=seed,
            batch=batch,
            processes=processes,
        ):
            parts.append(images)
            progress(sum(map(len, parts)), protocol.n)
        return PictureSet.of(
            str(run.path),
            torch.cat(parts),
            labels=labels_of(config.conditions, range(protocol.n)),
            classes=config.conditions.names,
            notes=notes,
        )

    drawing = Drawing(
        images=facts_of(run.path, made).images if made else checkpoint.images,
        sampling=sampling_table(sampling, load_worse(config, device=torch.device("cpu"))),
        ema=checkpoint.averages[0] if weights == "ema" else made or weights,
        precision="fp32",  # drawing uses no autocast
    )
    return Subject(drawn, seen, shown, learned, drawing, kept=False)


def subject_of_pictures(
    spec: str, *, real: str, train: str | None = None, size: int | None = None
) -> Subject:
    """Drawn pictures that lie somewhere.

    Args:
        spec: A folder, a ZIP file or an NPZ file; see `kao.evaluation.open_pictures`.
        real: Real pictures, or a reference file.
        train: What they were learned from; None: not known.
        size: Side in pixels that all are brought to; None: that of the drawn ones, as they are,
            to which larger real pictures are brought, and smaller ones are not.

    Raises:
        ConfigError: As `open_pictures`.
        DataError: As `open_pictures` and `refuse_smaller`.
        OutputError: Pictures cannot be prepared.
    """
    pictures = open_pictures(spec, size=size)
    seen = open_real(real, size=pictures.size)
    learned = open_pictures(train, size=pictures.size) if train else None
    if size is None:
        refuse_smaller(seen, pictures)
        refuse_smaller(learned, pictures)
    return subject_of_set(pictures, real=seen, name=real, train=learned)


def subject_of_set(
    drawn: PictureSet,
    *,
    real: PictureSet | Reference,
    name: str,
    train: PictureSet | None = None,
) -> Subject:
    """Pictures that are drawn already.

    Args:
        drawn: They.
        real: Real pictures or statistics.
        name: Of the real ones.
        train: What the drawn ones were learned from; None: not known.
    """
    return Subject(lambda processes, progress: drawn, real, name, train, UNKNOWN, kept=True)


def refuse_smaller(real: PictureSet | Reference | None, drawn: PictureSet) -> None:
    """Refuse real pictures that were enlarged to the size of drawn ones, which makes them blurred.

    Raises:
        DataError: There are such.
    """
    if isinstance(real, PictureSet) and real.enlarged:
        raise DataError(
            f"{drawn.name} holds pictures of {drawn.size} pixels and {real.name} "
            f"{real.enlarged:,} smaller ones of {len(real):,}: give `kao evaluate` --size, to "
            f"which both are brought, or larger real pictures."
        )


def open_real(spec: str, *, size: int, crop: Crop = "centre") -> PictureSet | Reference:
    """Real pictures at a size, or the statistics in a reference file.

    Args:
        spec: As of `open_pictures`, or an NPZ file with mu and sigma.
        size: Side in pixels.
        crop: How they are made square.

    Raises:
        ConfigError: As `open_pictures`.
        DataError: As `open_pictures` and `load_reference`.
        OutputError: Pictures cannot be prepared.
    """
    if has_statistics(spec):
        return load_reference(at_home(spec))
    return open_pictures(spec, size=size, crop=crop)


def evaluation_file(run: Run, card: Card, *, ending: str = ".json") -> Path:
    """Where an evaluation of a run, or a picture of it, is kept.

    000640000-small-data.json is what the protocol asks for, against the pictures of the run and
    with seed 0.  Other weights than those that the run draws with are in the name, and what else
    was asked for is by six digits of its own: only an answer to the same question takes the place
    of another.

    Args:
        run: The run.
        card: Of the evaluation.
        ending: "-copies.png" for instance.
    """
    usual = run.checkpoint()[0].averages[0]
    weights = "" if card.ema in (None, usual) else f"-{card.ema}"
    name = f"{card.images or 0:09d}-{card.protocol}{weights}"
    folder = run.path / EVALUATIONS
    if not _plain(run, card) or _question(folder / f"{name}.json") not in (None, card.question):
        name += f"-{card.question}"
    return folder / f"{name}{ending}"


def _plain(run: Run, card: Card) -> bool:
    """Whether nothing was asked for that the protocol's name does not tell."""
    protocol = protocol_of(card.protocol.partition("+")[0])
    spaces = {name.partition("-")[0] for name in card.features}
    return (
        card.seed in (None, 0)
        and card.reference == run.config.data.source
        and card.metrics in ((), protocol.metrics)
        and spaces == set(Plan.of(protocol).spaces)
    )


def _question(file: Path) -> str | None:
    """Which question a file answers; None where there is none that can be read."""
    try:
        return Evaluation.from_json(file.read_text(encoding="utf-8")).card.question
    except (OSError, ValueError, TypeError, KeyError):
        return None


def save_evaluation(run: Run, evaluation: Evaluation) -> Path:
    """Write an evaluation into a run directory, and return where it went.

    Raises:
        OutputError: It cannot be written.
    """
    file = evaluation_file(run, evaluation.card)
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, evaluation.to_json() + "\n")
    return file


def load_evaluations(run: Path) -> list[Evaluation]:
    """The evaluations that a run directory holds, fewest images first.

    Raises:
        CheckpointError: A file cannot be read.
    """
    found = []
    for file in sorted((run / EVALUATIONS).glob("*.json")):
        try:
            found.append(Evaluation.from_json(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{file} cannot be read ({error}): delete it and run `kao evaluate` again."
            ) from error
    return found
