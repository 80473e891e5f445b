"""The folder of a model that is given away: weights, pictures drawn with them, and its page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kao import __version__
from kao.config import dump
from kao.config.sampling import described
from kao.errors import ConfigError
from kao.evaluation import Evaluation
from kao.evaluation.numbers import interval, number
from kao.evaluation.results import Measured
from kao.exchange.card import GRID, CopyCheck, Facts, Figure, Measurement, model_card
from kao.exchange.diffusers_folder import fill, pipeline
from kao.exchange.own import FILE, write_own
from kao.exchange.trained import Trained
from kao.files import encoded, new_folder
from kao.machine import device
from kao.metrics.scores import Score
from kao.networks.cost import parameters
from kao.runs.evaluating import load_evaluations
from kao.runs.exporting import last_name, public, public_base, public_source
from kao.runs.importing import imported_from
from kao.runs.provenance import Provenance
from kao.runs.run import CONFIG, Run, draw
from kao.tracking import read_events
from kao.visualisation import grid, save_picture

Event = Mapping[str, Any]
"""One line of metrics.jsonl."""

PICTURES = 36
"""In the grid."""


@dataclass(frozen=True)
class Said:
    """What only the user knows of a model.

    Attributes:
        name: Of the model on the hub.
        data_licence: Of the training pictures, in words; "": not stated.
        licence: Of the weights, an identifier of the hub; "": not stated.
    """

    name: str
    data_licence: str = ""
    licence: str = ""


def write_model(
    run: Run, trained: Trained, path: Path, *, said: Said, pictures: int = PICTURES
) -> Facts:
    """Write the folder of a model, whole or not at all.

    Args:
        run: The run.
        trained: Its network, from `exporting.trained`.
        path: The folder; what has that name is replaced.
        said: What the user says of it.
        pictures: Drawn for the grid.

    Returns:
        What its page says.

    Raises:
        CheckpointError: An evaluation of the run cannot be read.
        OutputError: The folder cannot be written.
    """
    with new_folder(path) as folder:
        write_own(trained, folder / FILE)
        try:
            fill(folder, pipeline(trained))
            diffusers: bool | str = True
        except ConfigError as error:
            diffusers = f"{str(error).partition(': ')[0]}."
        config = public(run.config, base=public_base(run))
        (folder / CONFIG).write_bytes(encoded(config.to_toml()))
        _draw(trained, folder / GRID, pictures=pictures)
        facts = facts_of(run, trained, said=said, diffusers=diffusers)
        (folder / "README.md").write_bytes(encoded(model_card(facts)))
    return facts


def facts_of(run: Run, trained: Trained, *, said: Said, diffusers: bool | str) -> Facts:
    """What the page of a model says, from the files of its run.

    Args:
        run: The run.
        trained: Its network.
        said: What the user says of it.
        diffusers: Whether diffusers can load the folder; else why not, in words.

    Raises:
        CheckpointError: An evaluation of the run cannot be read.
    """
    events = [event for event in read_events(run.path) if isinstance(event.get("images"), int)]
    config = public(run.config, base=public_base(run))
    start: Event = next((e for e in reversed(events) if e["event"] == "start"), {})
    sections = dump(trained.config)
    evaluations = evaluations_of(run, trained)
    origin, provenance = imported_from(run.path), Provenance.of_run(run.path)
    return Facts(
        name=said.name,
        size=trained.size,
        parameters=parameters(trained.network),
        network=sections["network"]["kind"],
        schedule=sections["schedule"]["kind"],
        target=sections["target"]["kind"],
        weights=trained.kind,
        images=trained.images,
        minutes=_minutes(events),
        recipe=last_name(str(start.get("recipe") or "")),
        machine=_machine(start),
        data=config.data.source or "pictures that were not named",
        pictures=start.get("pictures"),
        data_licence=said.data_licence,
        licence=said.licence,
        imported=_published(origin, provenance),
        base=config.finetune.base,
        hub=provenance.hub,
        origin_licence=provenance.licence,
        classes=config.conditions.names,
        measurements=[
            *(_measurement(each, run.config.data.source) for each in evaluations),
            *_course(events),
        ],
        copies=_copies(evaluations, run.config.data.source),
        kao=__version__,
        diffusers=diffusers,
        sampling=described(sections["sampling"]),
    )


def copied(run: Run, trained: Trained) -> str:
    """What an evaluation of these weights says of copies, where they are more than chance; or "".

    Raises:
        CheckpointError: An evaluation of the run cannot be read.
    """
    found = _copies(evaluations_of(run, trained), run.config.data.source)
    return found.sentence if found is not None and found.copied else ""


def evaluations_of(run: Run, trained: Trained) -> list[Evaluation]:
    """The evaluations of the very weights that are given away.

    Raises:
        CheckpointError: An evaluation of the run cannot be read.
    """
    return [
        evaluation
        for evaluation in load_evaluations(run.path)
        if evaluation.card.images == trained.images and evaluation.card.ema in (None, trained.kind)
    ]


def _published(origin: str | None, provenance: Provenance) -> str:
    """What an imported model is, as others know it; "" of one that was trained here."""
    if origin is None or provenance.hub:
        return origin or ""
    return last_name(origin)


def _draw(trained: Trained, file: Path, *, pictures: int) -> None:
    """Write a grid of what the model draws; never of pictures that it has seen."""
    denoiser = trained.denoiser.to(device())
    drawn = draw(denoiser, trained.config, indices=range(pictures), seed=0, batch=16)
    save_picture(grid(torch.cat(list(drawn))), file)
    trained.denoiser.to("cpu")


def _measurement(evaluation: Evaluation, source: str) -> Measurement:
    """The figures of an evaluation, without the folders of this machine.

    Args:
        evaluation: Of these weights.
        source: Where the training pictures are, which its notes may name.
    """
    figures = [_figure(measured) for measured in evaluation.scores]
    if evaluation.copies is not None:
        figures.append(_figure(evaluation.copies))
    card = evaluation.card
    shown = replace(card, subject=last_name(card.subject), reference=public_source(card.reference))
    return Measurement(
        title=f"`kao evaluate`, protocol {card.protocol}, {card.n:,} drawn pictures:",
        figures=figures,
        protocol=shown.lines(),
        notes=[_without_folders(note, source, card.reference) for note in evaluation.notes],
    )


def _without_folders(text: str, *sources: str) -> str:
    for source in sources:
        text = text.replace(source, public_source(source))
    return text


def _figure(measured: Measured) -> Figure:
    score, floor = measured.score, measured.floor
    return Figure(
        name=score.name,
        value=number(score.value, score.error),
        interval=interval(score),
        real=number(floor.value, floor.error) if floor else "",
        pictures=score.samples,
    )


def _course(events: Sequence[Event]) -> list[Measurement]:
    """The last score that was taken while training, if any was."""
    scores = [event for event in events if event["event"] == "evaluation"]
    if not scores:
        return []
    last = scores[-1]
    named = {str(last.get("measure", "score")): last.get("score"), "copies": last.get("copies")}
    figures = [
        _told(name, table, int(last.get("pictures", 0)))
        for name, table in named.items()
        if isinstance(table, dict)
    ]
    title = f"While training, after {last['images']:,} images, of the averaged weights:"
    return [Measurement(title=title, figures=figures)]


def _told(name: str, table: Mapping[str, float], pictures: int) -> Figure:
    """A figure as metrics.jsonl has it."""
    value, error = table["value"], table["error"]
    score = Score(name, value, error, pictures, interval=(table["low"], table["high"]))
    return _figure(Measured(score))


def _copies(evaluations: Sequence[Evaluation], source: str) -> CopyCheck | None:
    """What evaluations found of copies; the worst, where several looked for them.

    Args:
        evaluations: Of these weights.
        source: Where the training pictures are, which is not told.
    """
    found = [
        (evaluation.copied, evaluation.copies.score.value, evaluation)
        for evaluation in evaluations
        if evaluation.copies is not None
    ]
    if not found:
        return None
    is_copied, share, worst = max(found, key=lambda one: one[:2])
    told = [note for note in worst.notes if "are copies" in note]
    sentence = told[0] if told else f"{share:.1%} of the drawn pictures are copies."
    return CopyCheck(sentence=_without_folders(sentence, source), copied=is_copied)


def _minutes(events: Sequence[Event]) -> float | None:
    seconds = [
        float(event["seconds"])
        for event in events
        if event["event"] in ("train", "end") and isinstance(event.get("seconds"), int | float)
    ]
    return max(seconds) / 60 if seconds else None


def _machine(start: Event) -> str:
    machine = start.get("machine")
    if not isinstance(machine, dict):
        return ""
    return str(machine.get("gpu") or f"{machine.get('cpu')}, {machine.get('cores')} cores")
