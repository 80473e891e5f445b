"""The page of a comparison: scores, what is real of their differences, pictures, curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from kao.config.sampling import described
from kao.evaluation.card import Card
from kao.evaluation.comparison import Comparison, Difference, Row
from kao.evaluation.numbers import interval, number
from kao.files import write_text, writing
from kao.metrics.scores import Score
from kao.reports.compared_runs import configuration_section, curves_section, style_of
from kao.reports.inline import encoded, figure
from kao.reports.parts import columns, escape, section
from kao.reports.record import RunRecord
from kao.reports.shell import document
from kao.visualisation import grid

_ROWS = 8  # of pictures in a block; blocks stand side by side
_PICTURE = 96  # pixels that a picture is wide at least, in whole multiples of its own

_DIRECTIONS = {
    "lower": "lower is better",
    "higher": "higher is better",
    "neither": "best near that of real pictures",
}


@dataclass(frozen=True)
class Shown:
    """One of the things compared, as the page shows it.

    Attributes:
        name: As the comparison has it.
        record: Of a run; None for a folder or a file.
        pictures: uint8, (N, 3, S, S), some that it drew; None: none are shown.
    """

    name: str
    record: RunRecord | None = None
    pictures: Tensor | None = None


def write_comparison(
    path: Path, comparison: Comparison, subjects: Sequence[Shown], *, pictures: str
) -> Path:
    """Write the page of a comparison, which needs no network, no server and no model.

    Args:
        path: The HTML file; folders on the way are made.
        comparison: What is told.
        subjects: What was compared, in the comparison's order.
        pictures: A sentence that says which pictures of theirs are shown.

    Returns:
        `path`.

    Raises:
        OutputError: It cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, comparison_page(comparison, subjects, pictures=pictures))
    return path


def comparison_page(comparison: Comparison, subjects: Sequence[Shown], *, pictures: str) -> str:
    """The same as HTML."""
    styles = {name: style_of(i) for i, name in enumerate(comparison.names)}
    runs = {s.name: s.record.configuration for s in subjects if s.record is not None}
    sections = (
        _obstacles(comparison),
        _scores(comparison, styles),
        _pictures(subjects, pictures),
        _differences(comparison),
        curves_section([(subject.name, subject.record) for subject in subjects]),
        configuration_section(runs),
        _cards(comparison),
        _notes(comparison),
    )
    return document(" and ".join(comparison.names), _header(comparison, styles), sections)


def _header(comparison: Comparison, styles: dict[str, str]) -> str:
    cards = [evaluation.card for evaluation in comparison.evaluations.values()]
    facts = [
        (f"{len(comparison.names)}", "compared"),
        *_agreed({(f"{card.n:,}", "pictures each") for card in cards}),
        *_agreed({(_counted(card.reals), f"real pictures of {card.reference}") for card in cards}),
    ]
    summary = "".join(f"<span><b>{value}</b> {escape(what)}</span>" for value, what in facts)
    names = " ".join(_named(name, styles[name]) for name in comparison.names)
    return (
        f'<header><p class="eyebrow">Comparison</p><h1 class="names">{names}</h1>'
        f'<p class="summary">{summary}</p></header>'
    )


def _agreed(facts: set[tuple[str, str]]) -> list[tuple[str, str]]:
    return list(facts) if len(facts) == 1 else []


def _named(name: str, style: str) -> str:
    return f'<span class="key"><i class="swatch {style}"></i>{escape(name)}</span>'


# Scores


def _obstacles(comparison: Comparison) -> str:
    if not comparison.obstacles:
        return ""
    lines = "".join(f"<li>{escape(sentence)}</li>" for sentence in comparison.obstacles)
    why = (
        "They were measured by protocols that differ, so their scores stand side by side and say "
        "nothing of which is better."
    )
    return section("Not ranked", f"<p>{why}</p><ul>{lines}</ul>")


def _scores(comparison: Comparison, styles: dict[str, str]) -> str:
    body = _score_table(comparison.rows, comparison.names, styles)
    for label, rows in comparison.per_class.items():
        body += (
            f"<details><summary>Class {escape(label)}</summary>"
            f"{_score_table(rows, comparison.names, styles)}</details>"
        )
    note = (
        '<p class="quiet">With 95 % intervals, which hold the choice of the real pictures too. '
        "The upright line is what real pictures score.</p>"
    )
    return section("Scores", note + body)


def _score_table(rows: Sequence[Row], names: Sequence[str], styles: dict[str, str]) -> str:
    floors = any(measured.floor for row in rows for measured in row.measured.values())
    head = ["", *names, *(["real pictures"] if floors else []), ""]
    cells = []
    for row in rows:
        line = [f"{escape(row.name)}<small>{_DIRECTIONS[row.better]}</small>"]
        line += [_score_cell(row, name, styles[name]) for name in names]
        line += [_floor_cell(row)] if floors else []
        cells.append([*line, _verdict(row)])
    return columns(head, cells)


def _score_cell(row: Row, name: str, style: str) -> str:
    if name not in row.measured:
        return "\N{EM DASH}"
    score = row.measured[name].score
    value = number(score.value, score.error)
    told = f"<b>{value}</b>" if name in row.leaders else value
    return f"{told}<small>{interval(score)}</small>{_whisker(row, score, style)}"


def _floor_cell(row: Row) -> str:
    floors = [m.floor for m in row.measured.values() if m.floor is not None]
    told = dict.fromkeys(number(floor.value, floor.error) for floor in floors)
    return ", ".join(told) or "\N{EM DASH}"


def _verdict(row: Row) -> str:
    real = any(difference.real for difference in row.differences)
    words = escape(row.verdict())
    return f'<span class="verdict{"" if real else " quiet"}">{words}</span>'


def _whisker(row: Row, score: Score, style: str) -> str:
    """An interval on the axis that all intervals of a row share, with the floor as an upright."""
    scores = [measured.score for measured in row.measured.values()]
    floors = [m.floor.value for m in row.measured.values() if m.floor is not None]
    ends = [*(s.low for s in scores), *(s.high for s in scores), *floors]
    return _bar(score.low, score.value, score.high, min(ends), max(ends), floors[:1], style)


def _bar(
    low: float,
    value: float,
    high: float,
    left: float,
    right: float,
    uprights: Sequence[float],
    style: str,
) -> str:
    """An interval as a line with a dot, on an axis from `left` to `right`; the page is its ink."""

    def place(x: float) -> float:
        return 100 * (x - left) / (right - left) if right > left else 50.0

    lines = "".join(f'<i class="upright" style="left:{place(x):.1f}%"></i>' for x in uprights)
    return (
        f'<span class="whisker {style}" aria-hidden="true">{lines}'
        f'<i class="reach" style="left:{place(low):.1f}%;width:{place(high) - place(low):.1f}%">'
        f'</i><i class="dot" style="left:{place(value):.1f}%"></i></span>'
    )


def _differences(comparison: Comparison) -> str:
    rows = [
        [escape(row.name), *_difference_cells(row, difference)]
        for row in comparison.rows
        for difference in row.differences
    ]
    if not rows:
        return ""
    pairs = max(len(row.differences) for row in comparison.rows)
    together = f", which for all {pairs} pairs of a score hold together" if pairs > 1 else ""
    note = (
        f'<p class="quiet">All were held against the same real pictures, so a difference is surer '
        f"than the scores themselves.  With 95 % intervals{together}; where one leaves zero, the "
        f"upright line, out, the difference is real.</p>"
    )
    return section("Differences", note + columns(["", "", "difference", "", ""], rows))


def _difference_cells(row: Row, difference: Difference) -> list[str]:
    value, low, high = difference.figures
    most = max(max(abs(d.low), abs(d.high)) for d in row.differences)
    bar = _bar(
        difference.low,
        difference.value,
        difference.high,
        -most,
        most,
        [0.0],
        "main" if difference.real else "aside",
    )
    finding = f"<strong>{difference.finding}</strong>" if difference.real else difference.finding
    winner = f": {escape(difference.winner)} is better" if difference.winner else ""
    return [
        f"{escape(difference.first)} \N{MINUS SIGN} {escape(difference.second)}",
        f"{value}<small>{low} to {high}</small>",
        bar,
        f"{finding}{winner}",
    ]


# Pictures


def _pictures(subjects: Sequence[Shown], sentence: str) -> str:
    """Columns of pictures side by side, in blocks of a few rows."""
    shown = [(s.name, s.pictures) for s in subjects if s.pictures is not None]
    if not shown:
        return ""
    rows = min(len(pictures) for _, pictures in shown)
    blocks = ""
    for first in range(0, rows, _ROWS):
        past = min(first + _ROWS, rows)
        figures = "".join(
            figure(encoded(grid(pictures[first:past], columns=1, scale=_scale(pictures))), name)
            for name, pictures in shown
        )
        label = f"{first} to {past - 1}" if past - first > 1 else f"{first}"
        blocks += f'<div class="block"><p class="quiet">{label}</p><div>{figures}</div></div>'
    note = f'<p class="quiet">{escape(sentence)}</p>'
    return section("Pictures", f'{note}<div class="blocks">{blocks}</div>')


def _scale(pictures: Tensor) -> int:
    return max(1, -(-_PICTURE // pictures.shape[-1]))


# Facts


def _cards(comparison: Comparison) -> str:
    cards = [evaluation.card for evaluation in comparison.evaluations.values()]
    rows = [
        [escape(label), *(escape(str(value)) for value in values)]
        for label, values in _card_rows(cards)
    ]
    return section("Protocols", columns(["", *comparison.names], rows))


def _card_rows(cards: Sequence[Card]) -> list[tuple[str, list[str]]]:
    """What the cards say, those lines left out of which none knows anything."""
    table: list[tuple[str, list[str | None]]] = [
        ("Protocol", [card.protocol for card in cards]),
        ("Pictures drawn", [_known(card.n) for card in cards]),
        ("Pixels a side", [_known(card.size) for card in cards]),
        ("Images seen", [_known(card.images) for card in cards]),
        ("Reference", [f"{_counted(card.reals)} of {card.reference}" for card in cards]),
        ("Its fingerprint", [card.reference_hash[:12] for card in cards]),
        ("Features", [", ".join(card.features) for card in cards]),
        ("Resized", [", ".join(card.resize) for card in cards]),
        (
            "Sampler",
            [_way(card) for card in cards],
        ),
        ("Weights", [card.ema for card in cards]),
        ("Precision", [card.precision for card in cards]),
        ("Seed", [_known(card.seed) for card in cards]),
        ("Measured by", [f"kao {card.kao}" for card in cards]),
    ]
    return [
        (label, ["not known" if value is None else value for value in values])
        for label, values in table
        if any(value is not None for value in values)
    ]


def _way(card: Card) -> str | None:
    return None if card.sampling is None else described(card.sampling)


def _counted(count: int | None) -> str:
    return "some" if count is None else f"{count:,}"


def _known(count: int | None) -> str | None:
    return None if count is None else f"{count:,}"


def _notes(comparison: Comparison) -> str:
    lines = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    return section("Notes", f"<ul>{lines}</ul>" if lines else "")
