"""The page of a run: report.html, one file that needs no network, no server and no model."""

import re
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kao.data.audit import Audit
from kao.files import write_text
from kao.reports.charts import short
from kao.reports.curves import held_out_section, loss_section, training_section
from kao.reports.evaluations import evaluation_section
from kao.reports.inline import Inline, figure, figure_of_file, lighter, read_picture
from kao.reports.parts import escape, section, table
from kao.reports.record import Event, Grid, RunRecord, Session, mapping
from kao.reports.scores import scores_section
from kao.reports.shell import day, document
from kao.reports.techniques import techniques
from kao.visualisation import spread

_TIMELINE_GRIDS = 12
_TIMELINE_BYTES = 1_200_000

_CAPTIONS = {
    "forward": "Forward: pictures of the training set as noise is added.",
    "reverse": "Reverse: from noise to a picture, and what the model predicts on the way.",
    "process": "Process: pictures from their first noise to the end.",
    "denoising": "Denoising, as a film.",
    "schedule": "Schedule: how much of a picture is signal and how much is noise, by time.",
    "times": "Training times: where the run learned to look.",
    "trajectory": "Trajectory: how the path bends, and when the picture is decided.",
    "neighbours": "Neighbours: samples beside the training pictures nearest to them.",
    "samplers": "Samplers: quality against network calls, as kao tune-sampler found it.",
    "edit": "Edits of pictures.",
}


def write_report(run: Path) -> Path:
    """Write `run`/report.html from the files of a run directory, and return its path.

    What a run has not got, because it is young, was killed or drew no figures, is left out.

    Args:
        run: A run directory, finished or not.

    Raises:
        CheckpointError: `run` is no run directory.
        OutputError: The page cannot be written.
    """
    path = run / "report.html"
    write_text(path, page(RunRecord.read(run)))
    return path


def page(record: RunRecord) -> str:
    """The page as HTML, with style, script and pictures inside."""
    sections = (
        _newest_grid(record),
        loss_section(record),
        scores_section(record),
        evaluation_section(record),
        held_out_section(record),
        _grids_over_time(record),
        _figures(record),
        training_section(record),
        _techniques(record),
        _data(record),
        _machine(record),
        _configuration(record),
        _sessions(record),
    )
    return document(record.name, _header(record), sections)


# The head of the page


def _header(record: RunRecord) -> str:
    figures = [("pictures seen", f"{record.images:,}")]
    if seconds := record.seconds:
        figures.append(_duration(seconds))
    if rates := [rate for _, rate in record.curve("images_per_second")]:
        figures.append(("images/s while training", f"{statistics.median(rates):.3g}"))
    if isinstance(parameters := _start(record).get("parameters"), int):
        figures.append(("parameters", short(parameters)))
    summary = "".join(f"<span><b>{value}</b> {name}</span>" for name, value in figures)
    return (
        f'<header><p class="eyebrow">{escape(_state(record))}</p>'
        f'<h1>{escape(record.name)}</h1><p class="summary">{summary}</p></header>'
    )


def _duration(seconds: float) -> tuple[str, str]:
    if seconds < 60:
        return "seconds", f"{seconds:.0f}"
    if seconds < 2 * 3600:
        return "minutes", f"{seconds / 60:.3g}"
    return "hours", f"{seconds / 3600:.1f}"


def _state(record: RunRecord) -> str:
    if not record.sessions:
        return "Not started"
    session = record.sessions[-1]
    if session.end is None:
        return f"Started on {_time(session.start)}; no end recorded"
    return f"{str(session.end.get('reason', 'ended')).capitalize()} on {_time(session.end)}"


# Pictures


def _newest_grid(record: RunRecord) -> str:
    if not record.grids:
        return ""
    grid = record.grids[-1]
    weights = "averaged" if grid.path.stem.endswith("ema") else "raw"
    caption = f"Drawn by the {weights} weights after {grid.images:,} pictures."
    if grid.classes:
        caption += f" Its columns show in turn: {', '.join(grid.classes)}."
    return section("", figure_of_file(grid.path, caption, enlarged=True))


def _grids_over_time(record: RunRecord) -> str:
    title, count = "Samples over time", len(record.grids)
    if count < 2:
        return ""
    frames = _affordable(record.grids)
    if not frames:
        return section(title, f"<p>The {count:,} grids do not fit here: see samples.</p>")
    pictures = "".join(figure(image, f"{grid.images:,} pictures seen") for grid, image in frames)
    note = f"{len(frames)} of {count:,} grids; the others are in samples."
    return section(
        title,
        f'<div class="timeline"><div class="times">{pictures}</div><div class="scrubber">'
        '<input type="range" min="0" step="1" aria-label="Pictures seen"><output></output>'
        "</div></div>" + (f'<p class="quiet">{note}</p>' if len(frames) < count else ""),
    )


def _affordable(grids: Sequence[Grid]) -> "list[tuple[Grid, Inline]]":
    """As many grids, evenly spaced and the newest among them, as a page can carry."""
    spaced = [grids[i] for i in spread(len(grids), _TIMELINE_GRIDS)]
    frames = [(grid, lighter(image)) for grid in spaced if (image := read_picture(grid.path))]
    for most in range(len(frames), 1, -1):
        chosen = [frames[i] for i in spread(len(frames), most)]
        if sum(len(image.data) for _, image in chosen) <= _TIMELINE_BYTES:
            return chosen
    return []


def _figures(record: RunRecord) -> str:
    folder = record.path / "pictures"
    paths = [*folder.glob("*.png"), *folder.glob("*.gif")]
    order = list(_CAPTIONS)

    def kind(path: Path) -> str:
        return path.stem.split("-")[0].split("_")[0]

    paths.sort(
        key=lambda path: (
            order.index(kind(path)) if kind(path) in order else len(order),
            path.name,
        )
    )
    pictures = "".join(
        figure_of_file(path, _CAPTIONS.get(kind(path)) or re.sub("[-_]", " ", path.stem))
        for path in paths
    )
    return section("How it draws", f'<div class="figures">{pictures}</div>' if pictures else "")


# Facts


def _techniques(record: RunRecord) -> str:
    starts = [session.start for session in record.sessions]
    pieces = next((step.get("micro_batch") for step in record.of("train")[-1:]), None)
    rows = techniques(record.configuration, starts, micro_batch=pieces)
    return section("How it was trained", table(rows))


def _data(record: RunRecord) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in _audit(record.path / "audit.json"))
    caption = "Some of the pictures, drawn by lot; a red frame marks one that occurs twice."
    contact = figure_of_file(record.path / "contact.png", caption)
    return section("Data", (f"<ul>{lines}</ul>" if lines else "") + contact)


def _audit(path: Path) -> Sequence[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ()
    try:
        return Audit.from_json(text).lines()
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return ()  # of another version, or damaged: the page is worth more without it


def _machine(record: RunRecord) -> str:
    start = _start(record)
    machine, versions = mapping(start, "machine"), mapping(start, "versions")
    rows = [
        ("System", machine.get("system")),
        ("Processor", _counted(machine.get("cpu"), machine.get("cores"), "cores")),
        ("Memory", _counted(machine.get("memory_gb"), None, "", unit="GB")),
        ("GPU", machine.get("gpu")),
        ("Parameters", _grouped(start.get("parameters"))),
        ("Operations a picture", _operations(start.get("flops"))),
        *versions.items(),
    ]
    return section("Machine and versions", table(rows))


def _counted(value: Any, count: Any, name: str, *, unit: str = "") -> str | None:
    if value is None:
        return None
    return f"{value} {unit}".strip() + (f", {count} {name}" if count else "")


def _grouped(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def _operations(flops: Any) -> str | None:
    return f"{short(flops)}FLOP, forward" if isinstance(flops, int | float) else None


def _configuration(record: RunRecord) -> str:
    if not record.configuration:
        return ""
    text = "\n".join(map(escape, record.configuration.strip().split("\n")))
    return section(
        "Configuration", f"<details><summary>run.toml</summary><pre>{text}</pre></details>"
    )


def _sessions(record: RunRecord) -> str:
    rows = [(_time(session.start), _stretch(session)) for session in record.sessions]
    return section("Sessions", table(rows))


def _stretch(session: Session) -> str:
    first = session.start["images"]
    begin = f"Resumed at {first:,} pictures" if first or session.start.get("resumed") else "Started"
    if session.end is None:
        return f"{begin}; last heard of at {session.last:,}, no end recorded"
    reason = str(session.end.get("reason", "ended"))
    return f"{begin}; {reason} at {session.last:,}"


def _start(record: RunRecord) -> Event:
    return record.sessions[-1].start if record.sessions else {}


def _time(event: Event) -> str:
    text = str(event.get("time", ""))
    try:
        return day(datetime.fromisoformat(text).astimezone(UTC))
    except ValueError:
        return text or "an unknown day"
