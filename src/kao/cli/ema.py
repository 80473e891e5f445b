"""`kao ema`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kao.errors import ConfigError

if TYPE_CHECKING:
    from kao.metrics import Score
    from kao.runs import Run
    from kao.runs.averages import Facts, Reconstruction, SavedAverage
    from kao.runs.tuning import Bench

RANGE = "0.05..0.25"
"""The widths that are made if none is named."""

_SPREAD = 5
"""Widths of a range."""

_LOOSE = 0.05
"""Share of a profile left over by the fit, past which the user is told."""


def ema(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    width: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X|X..Y",
            help=f"Width, a share of the run, or a range of them; may be repeated. [{RANGE}]",
            show_default=False,
        ),
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", "-n", min=2, help=f"Widths in a range; default: {_SPREAD}.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="At so many images seen; default: the last snapshot.")
    ] = None,
    best: Annotated[
        str | None,
        typer.Option(metavar="FACES", help="Keep only the one nearest to these real pictures."),
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=3, help="Pictures drawn with each, for --best.")
    ] = 512,
    reals: Annotated[int, typer.Option(min=3, help="Real pictures, for --best.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise and of the choice.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print what is known as JSON.")] = False,
) -> None:
    """Make averages of any width from the snapshots of a run (post-hoc EMA).

    Example: kao ema runs/mine --width 0.05..0.25 --best my-faces/

    Writes RUN/averages/w0.100.safetensors for each width, to draw with by --weights w0.10; or,
    with --best, scores them and the run's own averages by the kernel distance of wavelet features,
    and writes RUN/averages/best.safetensors, to draw with by --weights best.  Snapshots are taken
    while a run trains with ema.snapshots=auto.
    """
    import json
    from dataclasses import asdict, replace

    from kao.cli.console import say
    from kao.cli.outputs import Output, check_outputs
    from kao.cli.streams import put
    from kao.runs import Run
    from kao.runs.averages import BEST, Reconstruction, SavedAverage, place, short
    from kao.runs.best import candidates

    opened = Run.open(run)
    widths = widths_of(width or [RANGE], n)
    made = Reconstruction.of(opened.path, widths, images=images)
    names = [BEST] if best is not None else [short(width) for width in widths]
    files = [place(opened.path, name) for name in names]
    check_outputs(*(Output("--width", file, "the average", ".safetensors") for file in files))
    for width_, mixture in made.mixtures.items():
        if mixture.error > _LOOSE:
            say(
                f"The snapshots miss the profile of {short(width_)} by {mixture.error:.0%}: "
                f"widths between those that were tracked, at a snapshot, are fitted best."
            )
    bench = None
    if best is not None:
        bench = _bench(opened, best, reals=reals, seed=seed, batch=batch)
    _mix(made)
    if bench is None:
        facts = []
        for average, file in zip(made.averages(), files, strict=True):
            average.save(opened.path)
            facts.append(average.facts)
            say(f"{file} (off its profile by {average.facts.fit:.1%})")
    else:
        averages = list(candidates(opened.checkpoint()[0], made.averages()))
        scores = _scores(bench, averages, pictures)
        facts = [
            replace(average.facts, score=score.value, error=score.error)
            for average, score in zip(averages, scores, strict=True)
        ]
        first = min(range(len(scores)), key=lambda i: scores[i].value)
        file = SavedAverage(facts[first], averages[first].tensors).save(opened.path, BEST)
        say(f"{file} is {facts[first].name}.")
        if not as_json:
            _table(facts, scores)
    if as_json:
        put(json.dumps([asdict(known) for known in facts], indent=2, allow_nan=False))
    say(f"Draw with: kao sample {opened.path} --weights {names[-1]}")


def widths_of(words: Sequence[str], n: int | None) -> list[float]:
    """The widths that words name, each once, narrowest first.

    Args:
        words: "0.1" or "0.05..0.25".
        n: How many in a range; None where it was left open.

    Raises:
        ConfigError: A word is neither, a width is out of range, or there is no range for `n`.
    """
    from kao.training.ema import check_width

    widths: set[float] = set()
    ranges = 0
    for word in words:
        try:
            ends = [float(end) for end in word.split("..")]
        except ValueError:
            ends = []
        if len(ends) not in (1, 2) or ends != sorted(set(ends)):
            raise ConfigError(
                f'--width = "{word}"; expected a number such as 0.1, or a range such as {RANGE}.'
            )
        for end in ends:
            check_width(end, name="--width")
        ranges += len(ends) == 2
        count = (n or _SPREAD) if len(ends) == 2 else 1
        step = (ends[-1] - ends[0]) / max(1, count - 1)
        # Rounded, so that 0.05..0.25 holds 0.15 and not 0.15000000000000002.
        widths |= {round(ends[0] + i * step, 6) for i in range(count)}
    if n is not None and not ranges:
        raise ConfigError(f"--n = {n} spreads widths over a range: give one, --width {RANGE}.")
    return sorted(widths)


def _bench(run: "Run", source: str, *, reals: int, seed: int, batch: int) -> "Bench":
    """The model and the real pictures, under which averages are compared."""
    from kao.cli.sample import load_denoiser
    from kao.metrics import KernelDistance, Wavelets
    from kao.runs.tuning import Bench, real_pictures

    return Bench(
        run,
        load_denoiser(run),
        real_pictures(run.config, n=reals, seed=seed, source=source),
        features=Wavelets(),
        distance=KernelDistance,
        measure="kernel distance",
        seed=seed,
        batch=batch,
        checkpoint=run.checkpoint()[0].images,
    )


def _mix(made: "Reconstruction") -> None:
    from kao.cli.console import bar

    with bar() as progress:
        task = progress.add_task("mixing", total=len(made.snapshots), figures="")
        for snapshot in made.steps():
            figures = f"{snapshot.images:,} images"
            progress.update(task, advance=1, figures=figures)


def _scores(bench: "Bench", averages: Sequence["SavedAverage"], pictures: int) -> list["Score"]:
    """The distances of what each average draws."""
    import torch

    from kao.cli.console import bar
    from kao.runs.best import drawn_features

    scores = []
    with bar() as progress:
        task = progress.add_task("drawing", total=len(averages) * pictures, figures="")
        for average in averages:
            features = []
            for part in drawn_features(bench, average.tensors, n=pictures):
                features.append(part)
                progress.update(task, advance=len(part), figures=average.facts.name)
            scores.append(bench.distance(torch.cat(features)))
    return scores


def _table(facts: Sequence["Facts"], scores: Sequence["Score"]) -> None:
    from kao.cli.streams import put

    put(f"{'average':<12}  {'images':>12}  {'distance':>9}  95 % interval")
    for known, score in zip(facts, scores, strict=True):
        reach = 1.96 * score.error
        interval = f"{score.value - reach:.4f} .. {score.value + reach:.4f}"
        put(f"{known.name:<12}  {known.images:>12,}  {score.value:9.4f}  {interval}")
