"""What `kao evaluate` found of a run: its newest scores, their protocol, and the pictures of it."""

from pathlib import Path

from kao.evaluation.numbers import interval, number
from kao.evaluation.results import Evaluation, Measured
from kao.reports.inline import figure_of_file
from kao.reports.parts import columns, escape, section
from kao.reports.record import RunRecord

FOLDER = "evaluations"

_CAPTIONS = {
    "copies": "Samples beside the training pictures nearest to them.",
    "typical": "The samples that look most and least like real pictures.",
}


def evaluation_section(record: RunRecord) -> str:
    """The newest evaluation of a run; "" where there is none that can be read."""
    newest = _newest(record.path / FOLDER)
    if newest is None:
        return ""
    path, evaluation = newest
    rows = [_row(measured) for measured in evaluation.scores]
    rows += [_row(evaluation.copies)] if evaluation.copies else []
    body = columns(["", "value", "95 % interval", "real pictures", "n"], rows)
    for name, scores in evaluation.per_class.items():
        table = columns(["", "value", "95 % interval", "", "n"], [_row(m) for m in scores])
        body += f"<details><summary>Class {escape(name)}</summary>{table}</details>"
    notes = "".join(f"<li>{escape(note)}</li>" for note in evaluation.notes)
    card = "\n".join(map(escape, evaluation.card.lines()))
    sheets = "".join(
        figure_of_file(path.with_name(f"{path.stem}-{kind}.png"), caption)
        for kind, caption in _CAPTIONS.items()
    )
    return section(
        "Evaluation",
        body
        + (f"<ul>{notes}</ul>" if notes else "")
        + f"<details><summary>Protocol</summary><pre>{card}</pre></details>"
        + (f'<div class="figures">{sheets}</div>' if sheets else ""),
    )


def _newest(folder: Path) -> tuple[Path, Evaluation] | None:
    """The evaluation that was written last, among those that can be read."""
    written: list[tuple[float, Path, Evaluation]] = []
    for path in sorted(folder.glob("*.json")):
        try:
            evaluation = Evaluation.from_json(path.read_text(encoding="utf-8"))
            written.append((path.stat().st_mtime, path, evaluation))
        # Of another version, or damaged: the page is worth more without it.
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return max(written, key=lambda one: one[0])[1:] if written else None


def _row(measured: Measured) -> list[str]:
    score, floor = measured.score, measured.floor
    real = f"{number(floor.value, floor.error)}<small>{interval(floor)}</small>" if floor else ""
    return [
        escape(score.name),
        number(score.value, score.error),
        interval(score),
        real,
        f"{score.samples:,}",
    ]
