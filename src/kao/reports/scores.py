"""The scores that a run took while it trained, what they add up to, and what they promise."""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError

from kao.evaluation.course import measure_of
from kao.evaluation.verdict import judge
from kao.files import tensors_of
from kao.metrics.scores import Z95
from kao.reports.charts import Line, Mark, line_chart, short
from kao.reports.parts import escape, section
from kao.reports.record import Event, Point, RunRecord

_CHANNELS = (("red", "band-5"), ("green", "band-3"), ("blue", "band-0"))


def scores_section(record: RunRecord) -> str:
    """The verdict in words, and charts of score, copies and colours; "" without scores."""
    events = record.of("evaluation")
    if not events:
        return ""
    marks = [Mark(float(session.start["images"]), "resumed") for session in record.sessions[1:]]
    charts = "".join(
        (
            _score_chart(record, "Score over pictures seen", _identity(events), "pictures", marks),
            _score_chart(record, "Score over time", _minutes(events), "minutes", ()),
            line_chart(
                "Copies of training pictures, %",
                [
                    Line("", _percent(record, "copies/low"), "faint"),
                    Line("", _percent(record, "copies/high"), "faint"),
                    Line("copies", _percent(record, "copies/value")),
                ],
                marks=marks,
                note="Of the drawn pictures; about 1 % of new pictures are taken for copies. "
                "Faint: 95 % interval.",
            ),
            line_chart(
                "Colours, grey levels off",
                [
                    Line(name, record.curve(f"drift/{name}/value", kind="evaluation"), style)
                    for name, style in _CHANNELS
                ],
                marks=marks,
                note="Mean of each channel, drawn less real, of 255.",
            ),
        )
    )
    return section("Scores", f'{_words(record, events)}<div class="charts">{charts}</div>')


def _words(record: RunRecord, events: Sequence[Event]) -> str:
    """The verdict, what was measured, and which weights drew best."""
    end = record.sessions[-1].end if record.sessions else None
    finished = end is not None and end.get("reason") == "finished"
    told = [str(judge(record.kept, finished=finished))]
    last = events[-1]
    measure, pictures = last.get("measure"), last.get("pictures")
    if isinstance(measure, str) and isinstance(pictures, int):
        told.append(
            f"The score is the {measure}, of {pictures:,} pictures from the averaged weights, "
            f"always from the same noise: lower is better."
        )
    best = _kept_best(record.path)
    value, images = best.get("score"), best.get("images")
    if isinstance(value, int | float) and isinstance(images, int):
        other = measure_of(best) != measure_of(last)
        told.append(
            f"The best, {short(value)}, was taken at {images:,} pictures"
            f"{' in another way' if other else ''}: --weights best-score draws with the weights of "
            f"that moment."
        )
    searched, of = last.get("searched"), last.get("of")
    if isinstance(searched, int) and isinstance(of, int) and searched < of:
        told.append(
            f"Copies were looked for among {searched:,} of the {of:,} training pictures, "
            + (
                "too few to tell their rate."
                if "copies" not in last
                else "so copies of the others are not counted."
            )
        )
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in told)


def _kept_best(run: Path) -> Event:
    """What the file of the best weights says of them; nothing where it is missing or damaged.

    The log may tell of better ones, in a future that the run went back from.
    """
    path = run / "averages" / "best-score.safetensors"
    try:
        with tensors_of(path) as file:
            facts = json.loads(file.metadata()["facts"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _identity(events: Sequence[Event]) -> dict[float, float]:
    return {float(event["images"]): float(event["images"]) for event in events}


def _minutes(events: Sequence[Event]) -> dict[float, float]:
    """From images to the minutes of training that they took."""
    return {
        float(event["images"]): float(event["minutes"])
        for event in events
        if isinstance(event.get("minutes"), int | float)
    }


def _score_chart(
    record: RunRecord,
    title: str,
    places: dict[float, float],
    unit: str,
    marks: Sequence[Mark],
) -> str:
    """A chart of the score with its band and the floor, at other places than images seen."""

    def curve(path: str) -> list[Point]:
        points = record.curve(path, kind="evaluation")
        return [(places[x], y) for x, y in points if x in places]

    values, errors = curve("score/value"), dict(curve("score/own_error"))
    return line_chart(
        title,
        [
            Line("", _off(values, errors, -Z95), "faint"),
            Line("", _off(values, errors, Z95), "faint"),
            Line("real pictures", curve("floor/value"), "second"),
            Line("score", values),
        ],
        # Scores fall by factors; near real pictures some are below 0, though, and all are shown.
        logarithmic=all(value > 0 for _, value in values),
        marks=marks,
        note="Faint: 95 % interval of what other noise would give. The real pictures are as many "
        "of the training set: no score is truly better than theirs.",
        unit=unit,
    )


def _off(values: Sequence[Point], errors: dict[float, float], times: float) -> list[Point]:
    return [(x, y + times * errors[x]) for x, y in values if x in errors]


def _percent(record: RunRecord, path: str) -> list[Point]:
    return [(x, 100 * y) for x, y in record.curve(path, kind="evaluation")]
