"""`kao tune-sampler`."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from kao.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    from kao.config import SamplingConfig
    from kao.runs.budgets import Candidate, Ledger
    from kao.runs.tuning import Bench

_T = TypeVar("_T")

CHART = "samplers.png"


def tune_sampler(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    n: Annotated[int, typer.Option("--n", "-n", min=3, help="Pictures a way to draw.")] = 256,
    steps: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Numbers of steps; default: 5,10,20,50.")
    ] = None,
    samplers: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Samplers; default: a sensible few.")
    ] = None,
    grids: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Grids; default: uniform, karras, log_snr, learned."),
    ] = None,
    etas: Annotated[
        str | None,
        typer.Option(metavar="X,...", help="Values, 0..1, of samplers' eta; default: their own."),
    ] = None,
    real: Annotated[
        str | None,
        typer.Option(metavar="FACES", help="Compare with these; default: the run's own pictures."),
    ] = None,
    reals: Annotated[int, typer.Option(min=3, help="Real pictures to compare with.")] = 2000,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so many minutes, keeping what is measured.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise and of the choice.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 64,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything measured as JSON.")
    ] = False,
) -> None:
    """Measure samplers, grids and steps; keep the best for each number of network calls.

    Example: kao tune-sampler runs/mine --minutes 10

    Writes RUN/samplers.toml, which `kao sample --budget N` reads, and RUN/pictures/samplers.png.
    All ways draw from the same noise and are scored by the kernel distance of wavelet features
    to the same real pictures.  Ctrl-C keeps what is measured; the same command goes on.
    """
    import json

    from kao.cli.console import say
    from kao.cli.sample import load_denoiser
    from kao.cli.streams import put
    from kao.config import dump
    from kao.config.sampling import described
    from kao.metrics import KernelDistance, Wavelets
    from kao.runs import Run
    from kao.runs.budgets import MEASURED, Ledger, front, save_budgets, to_json
    from kao.runs.run import PICTURES
    from kao.runs.tuning import Bench, latest, real_pictures
    from kao.runs.ways import settings
    from kao.visualisation import save_picture

    if minutes is not None and not 0 < minutes < math.inf:
        raise ConfigError(f"--minutes = {minutes:g}; expected a number above 0.")
    opened = Run.open(run)
    ways, notes = settings(
        opened,
        samplers=_words(samplers, _name, "samplers", "names such as ddim,heun"),
        grids=_words(grids, _name, "grids", "names such as uniform,karras"),
        steps=_words(steps, _at_least_one, "steps", "whole numbers from 1 up, such as 5,10,20"),
        etas=_words(etas, float, "etas", "numbers such as 0,0.5"),
    )
    for note in notes:
        say(note)
    checkpoint, _ = opened.checkpoint()
    pictures = real_pictures(opened.config, n=reals, seed=seed, source=real)
    bench = Bench(
        opened,
        load_denoiser(opened),
        pictures,
        features=Wavelets(),
        distance=KernelDistance,
        measure="kernel distance",
        seed=seed,
        batch=batch,
        checkpoint=checkpoint.images,
    )
    ledger = Ledger(opened.path / MEASURED, bench.conditions)
    say(f"{len(ways)} ways to draw, up to {n} pictures each, against {len(pictures.images)} real.")
    _measure(bench, ledger, ways, n=n, minutes=minutes)
    # What earlier commands measured under the same conditions counts too.
    measured = latest(sorted(ledger.known().values(), key=lambda c: c.n))
    best = front(measured)
    file = save_budgets(opened, bench.conditions, best)
    chart = save_picture(_chart(measured, best), opened.path / PICTURES / CHART)
    if as_json:
        put(json.dumps(to_json(bench.conditions, measured), indent=2, allow_nan=False))
    else:
        put(f"{'calls':>5}  {'distance':>18}  {'seconds':>8}  way to draw")
        for c in best:
            figures = f"{c.score:.4f} ± {c.error:.4f}"
            put(f"{c.calls:>5}  {figures:>18}  {c.seconds:8.3g}  {described(dump(c.sampling))}")
    say(str(file))
    say(str(chart))
    say(f"Draw with: kao sample {opened.path} --budget {best[-1].calls}")


def _measure(
    bench: "Bench",
    ledger: "Ledger",
    ways: "Sequence[SamplingConfig]",
    *,
    n: int,
    minutes: float | None,
) -> None:
    """Measure until done, out of time or interrupted; each measurement is in the ledger."""
    import time

    from kao.cli.console import say
    from kao.config import dump
    from kao.config.sampling import described
    from kao.runs.tuning import tune

    known, start = ledger.known(), time.monotonic()
    met = 0
    try:
        for candidate in tune(bench, ways, n=n, known=known):
            met += 1
            if (candidate.sampling, candidate.n) in known:
                continue
            ledger.add(candidate)
            way = described(dump(candidate.sampling))
            say(
                f"{way}: {candidate.score:.4f} ± {candidate.error:.4f} "
                f"({candidate.n} pictures, {candidate.calls} calls and {candidate.seconds:.3g} "
                f"seconds each)"
            )
            if minutes is not None and time.monotonic() - start > 60 * minutes:
                say("Out of time: keeping what is measured; the same command goes on.")
                return
    except KeyboardInterrupt:
        if not met:
            raise
        say("Stopped: keeping what is measured; the same command goes on.")


def _chart(measured: "Sequence[Candidate]", best: "Sequence[Candidate]") -> "Image":
    from kao.config import dump
    from kao.config.sampling import described
    from kao.reports.front import Mark, front_plot

    marks = [
        Mark(
            family=dump(c.sampling)["sampler"]["kind"],
            label=described(dump(c.sampling)),
            seconds=c.seconds,
            score=c.score,
            error=c.error,
            chosen=c in best,
        )
        for c in measured
    ]
    return front_plot(marks, title="Ways to draw: nearer to the real pictures, or faster")


def _words(text: str | None, read: Callable[[str], _T], option: str, expected: str) -> list[_T]:
    """The values of an option that takes several, separated by commas.

    Raises:
        ConfigError: One cannot be read.
    """
    if text is None:
        return []
    try:
        return [read(word.strip()) for word in text.split(",")]
    except ValueError:
        raise ConfigError(f'--{option} = "{text}"; expected {expected}.') from None


def _at_least_one(word: str) -> int:
    if (number := int(word)) < 1:
        raise ValueError
    return number


def _name(word: str) -> str:
    if not word:
        raise ValueError
    return word
