"""The charts of a run: what it learned, what it cost, and what happened on the way."""

from collections.abc import Iterator, Sequence

from kao.reports.charts import Line, Mark, line_chart, smoothed
from kao.reports.parts import section
from kao.reports.record import BANDS, Point, RunRecord

_MEMORY = (
    ("cpu_rss", "main memory, resident", "main"),
    ("reserved", "GPU, reserved", "aside"),
    ("allocated_peak", "GPU, allocated at most", "band-1"),
    ("allocated", "GPU, allocated between steps", "second"),
)
"""Of the log's "memory": key, name, style."""

_BANDS_NOTE = (
    "Bands of log-snr, the logarithm of signal power over noise power: "
    "below \N{MINUS SIGN}4 a picture is all but noise, above 4 all but clean."
)


def loss_section(record: RunRecord) -> str:
    """The training loss, with what happened on the way, and by noise level."""
    raw, marks = record.curve("loss"), _marks(record)
    bands = [
        Line(band_name(band), smoothed(record.curve(f"bands/{band}")), f"band-{i}")
        for i, band in enumerate(BANDS)
    ]
    charts = line_chart(
        "All noise levels",
        [Line("", raw, "faint"), Line("smoothed", smoothed(raw))],
        logarithmic=True,
        marks=marks,
        note=" ".join(_told(marks)),
    ) + line_chart(
        "By noise level", bands, logarithmic=True, marks=_resumptions(record), note=_BANDS_NOTE
    )
    return section("Loss", _charts(charts, whole=True))


def _told(marks: Sequence[Mark]) -> Iterator[str]:
    """What the signs in the chart of the loss mean, those that it has."""
    count = {kind: sum(mark.kind == kind for mark in marks) for kind in {m.kind for m in marks}}
    yield "Against pictures seen; faint as measured, strong smoothed."
    if "resumed" in count:
        yield "Dashed: training was resumed here."
    if "checkpoint" in count:
        yield "Ticks below: checkpoints."
    if spikes := count.get("spike"):
        yield f"\N{BLACK DOWN-POINTING SMALL TRIANGLE} {_counted(spikes, 'spike')} of the loss."
    if skipped := count.get("skipped"):
        yield f"\N{MULTIPLICATION SIGN} {_counted(skipped, 'step')} skipped: not finite."


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}{'s' if count > 1 else ''}"


def held_out_section(record: RunRecord) -> str:
    """The loss on pictures that are never trained on, beside the same of training pictures."""
    marks = _resumptions(record)

    def curve(path: str) -> list[Point]:
        return record.curve(path, kind="held_out")

    overall = line_chart(
        "All noise levels alike",
        [
            Line("held-out, raw weights", curve("raw/held/loss"), "aside"),
            Line("training pictures", curve("train/loss"), "second"),
            Line("held-out pictures", curve("held/loss")),
        ],
        logarithmic=True,
        marks=marks,
        note="The same pictures, times and noise at every point and in every run, without "
        "augmentation; averaged weights where not said otherwise.",
    )
    gap = line_chart(
        "Gap, % of training",
        [
            Line("", _gap(record, "loss", errors=1), "faint"),
            Line("", _gap(record, "loss", errors=-1), "faint"),
            Line("gap", _gap(record, "loss")),
        ],
        marks=marks,
        note="How far the held-out loss lies above that of training pictures: 0 where nothing is "
        "learned by heart. Faint: one standard error to either side.",
    )
    gaps = line_chart(
        "Gap by noise level, % of training",
        [
            Line(band_name(band), _gap(record, f"bands/{band}"), f"band-{i}")
            for i, band in enumerate(BANDS)
        ],
        marks=marks,
    )
    bands = "".join(
        line_chart(
            f"Log-snr {band_name(band)}",
            [
                Line("training", curve(f"train/bands/{band}"), "second"),
                Line("held-out", curve(f"held/bands/{band}"), f"band-{i}"),
            ],
            logarithmic=True,
            marks=marks,
        )
        for i, band in enumerate(BANDS)
    )
    return section("Held-out pictures", _charts(overall, whole=True) + _charts(gap + gaps + bands))


def _gap(record: RunRecord, path: str, *, errors: int = 0) -> list[Point]:
    """How far held-out losses lie above training ones, in percent, so many errors added."""
    gap, train, error = (
        dict(record.curve(name, kind="held_out"))
        for name in (f"gap/{path}", f"train/{path}", "gap/error")
    )
    return [
        (x, 100 * (y + errors * error.get(x, 0.0)) / train[x])
        for x, y in gap.items()
        if train.get(x, 0.0) > 0
    ]


def training_section(record: RunRecord) -> str:
    """What training cost, and how the optimiser fared."""
    marks = _resumptions(record)
    rates = record.curve("images_per_second")
    norms, waits = record.curve("gradient_norm"), record.curve("data_wait")
    times = [(images, 1000 / rate) for images, rate in rates if rate > 0]
    memory = [
        Line(name, [(x, size / 1e9) for x, size in record.curve(f"memory/{key}")], style)
        for key, name, style in _MEMORY
    ]
    averages = [
        Line(name, record.curve(f"ema_distance/{name}"), f"band-{i % len(BANDS)}")
        for i, name in enumerate(record.keys("ema_distance"))
    ]
    charts = (
        line_chart("Learning rate", [Line("now", record.curve("learning_rate"))], marks=marks)
        + _with_raw("Gradient norm, before clipping", norms, logarithmic=True)
        + line_chart(
            "Distance of the averages, share of the weights",
            averages,
            logarithmic=True,
            marks=marks,
        )
        + line_chart(
            "Loss scale of fp16", [Line("now", record.curve("loss_scale"))], logarithmic=True
        )
        + _with_raw("Images per second", rates)
        + _with_raw("Time per image, ms", times)
        + _with_raw("Waiting for data, % of the time", [(x, 100 * y) for x, y in waits])
        + line_chart("Memory, GB", memory, marks=marks)
    )
    return section("Training", _charts(charts))


def _with_raw(title: str, points: Sequence[Point], *, logarithmic: bool = False) -> str:
    """A chart of one noisy figure: faint as measured, strong smoothed."""
    lines = [Line("", points, "faint"), Line("now", smoothed(points))]
    return line_chart(title, lines, logarithmic=logarithmic)


def band_name(band: str) -> str:
    """A band for a reader: "-4..-2" with words and true minus signs."""
    return (
        band.replace("..", " to ")
        .replace("-", "\N{MINUS SIGN}")
        .replace("<", "< ")
        .replace(">", "> ")
    )


def _charts(charts: str, *, whole: bool = False) -> str:
    return f'<div class="charts{" whole" if whole else ""}">{charts}</div>' if charts else ""


def _resumptions(record: RunRecord) -> list[Mark]:
    return [Mark(float(session.start["images"]), "resumed") for session in record.sessions[1:]]


def _marks(record: RunRecord) -> list[Mark]:
    """All that happened, the rarest last, where it is drawn on top."""
    marks = _resumptions(record)
    for kind in ("checkpoint", "spike", "skipped"):
        marks += [Mark(float(event["images"]), kind) for event in record.of(kind)]
    return marks
