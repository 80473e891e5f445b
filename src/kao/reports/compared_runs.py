"""Several runs side by side: their curves over images and over minutes, and how they differ."""

import bisect
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kao.config import leaves
from kao.evaluation.course import measure_of
from kao.metrics.scores import Z95
from kao.reports.charts import Line, line_chart, smoothed
from kao.reports.parts import columns, escape, section
from kao.reports.record import Point, RunRecord, mapping

_COLOURS = ("band-1", "band-5", "band-3", "band-4", "band-2", "band-0")
"""Of the page's style, those first that are told apart best."""

_UNITS = ("pictures", "minutes")

_SHOWN = 48
"""Characters of a value; a fingerprint is longer."""

Curve = Callable[[RunRecord], Sequence[Point]]

_Measure = tuple[str, str]


def style_of(place: int) -> str:
    """CSS class of the thing compared at a place, 0, 1, ...; dashed where colours run out."""
    colour = _COLOURS[place % len(_COLOURS)]
    return colour if place < len(_COLOURS) else f"{colour} dashed"


def curves_section(records: Sequence[tuple[str, RunRecord | None]]) -> str:
    """Losses and scores while training, over images and over minutes.

    Args:
        records: Names and runs, in the order of the comparison; None for what is no run.
    """
    runs = [(name, style_of(i), run) for i, (name, run) in enumerate(records) if run is not None]
    charts = _charts("Training loss", runs, lambda run: smoothed(run.curve("loss")), note=_SMOOTHED)
    charts += _charts(
        "Held-out loss",
        runs,
        lambda run: run.curve("held/loss", kind="held_out"),
        reach=lambda run: run.curve("held/error", kind="held_out"),
        note="On pictures that are never trained on; faint: its 95 % interval.",
    )
    measures = list(dict.fromkeys(m for _, _, run in runs for m in _measures(run)))
    for measure in measures:
        words, digest = measure
        # The same words, but other guidance, precision or pictures: no common chart.
        alike = sum(words == other for other, _ in measures) > 1
        charts += _charts(
            f"Score: {words}{f' ({digest})' if alike else ''}",
            runs,
            _scores(measure, "value"),
            reach=_scores(measure, "own_error"),
            note="Of pictures drawn while training; faint: its 95 % interval."
            + (_UNLIKE if alike else ""),
        )
    body = f'<div class="charts">{charts}</div>' if charts else ""
    return section("While training", body)


_UNLIKE = (
    "  Scores of the same name in other charts were taken in another way (guidance, threshold, "
    "precision, number of pictures or other real ones), and do not compare."
)

_SMOOTHED = (
    "Smoothed.  Losses of runs that differ in target, loss or schedule are different quantities "
    "and say nothing of which run is better."
)


def _charts(
    title: str,
    runs: Sequence[tuple[str, str, RunRecord]],
    curve: Curve,
    *,
    note: str,
    reach: Curve | None = None,
) -> str:
    """One chart over images and one over minutes, of the same values.

    Args:
        title: Of both.
        runs: Name, style and record of each.
        curve: The values of a run, by images.
        note: Under both titles.
        reach: Their standard errors, for a faint line to either side.
    """
    charts = ""
    for unit in _UNITS:
        lines = []
        for name, style, run in runs:
            points = curve(run)
            errors = dict(reach(run)) if reach else {}
            for side in (-Z95, Z95) if errors else ():
                band = [(x, y + side * errors[x]) for x, y in points if x in errors]
                lines.append(Line("", _placed(band, run, unit), f"faint {style}"))
            lines.append(Line(name, _placed(points, run, unit), style))
        charts += line_chart(
            f"{title}, over {unit}",
            lines,
            logarithmic=all(y > 0 for line in lines for _, y in line.points),
            note=note,
            unit=unit,
        )
    return charts


def _placed(points: Sequence[Point], run: RunRecord, unit: str) -> Sequence[Point]:
    """The points, against images or against minutes of training, hooks included."""
    return points if unit == _UNITS[0] else over_minutes(points, run)


def over_minutes(points: Sequence[Point], run: RunRecord) -> list[Point]:
    """Points with the minutes at which a run had seen so many images.

    Between two lines of the log time is taken to pass evenly.

    Args:
        points: (images, value).
        run: Its "train" events tell the time.

    Returns:
        (minutes, value); none where the run tells no time.  What lies past the last line that
        does so is left out.
    """
    clock = [(0.0, 0.0), *run.curve("seconds")]
    seen = [images for images, _ in clock]
    placed = []
    for images, value in points:
        after = bisect.bisect_left(seen, images)
        if after == len(clock):
            break
        (x0, s0), (x1, s1) = clock[max(0, after - 1)], clock[after]
        share = (images - x0) / (x1 - x0) if x1 > x0 else 1.0
        placed.append(((s0 + share * (s1 - s0)) / 60, value))
    return placed


def _measures(run: RunRecord) -> list[_Measure]:
    """By what its pictures were scored while it trained: in words, and its digest."""
    return [_measure(event) for event in run.of("evaluation") if "measure" in event]


def _measure(event: Mapping[str, Any]) -> _Measure:
    words, digest = measure_of(event)
    return str(words), digest if isinstance(digest, str) else "of before"


def _scores(measure: _Measure, figure: str) -> Curve:
    """One figure of a run's scores by one measure."""

    def curve(run: RunRecord) -> list[Point]:
        return [
            (float(event["images"]), float(value))
            for event in run.of("evaluation")
            if _measure(event) == measure
            and isinstance(value := mapping(event, "score").get(figure), int | float)
        ]

    return curve


def configuration_section(configurations: Mapping[str, str]) -> str:
    """The keys in which runs differ, one a row; "" for fewer than two runs.

    Args:
        configurations: By the runs' names, the text of run.toml.
    """
    if len(configurations) < 2:
        return ""
    rows = differing_keys(configurations)
    if not rows:
        return section("Configuration", "<p>The runs were started with the same one.</p>")
    cells = [[escape(value) for value in row] for row in rows]
    return section("How they were made differently", columns(["", *configurations], cells))


def differing_keys(configurations: Mapping[str, str]) -> list[list[str]]:
    """Keys whose values differ: each with its value in every configuration.

    Args:
        configurations: By name, TOML; what cannot be read has no keys.
    """
    tables = [_leaves(text) for text in configurations.values()]
    keys = dict.fromkeys(key for table in tables for key in table)
    return [
        [key, *(_value(table.get(key)) for table in tables)]
        for key in keys
        if any(table.get(key) != tables[0].get(key) for table in tables)
    ]


def _leaves(text: str) -> dict[str, Any]:
    try:
        return leaves(tomllib.loads(text))
    except ValueError:
        return {}


def _value(value: Any) -> str:
    if value is None:
        return "\N{EM DASH}"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 4]}\N{HORIZONTAL ELLIPSIS}"
