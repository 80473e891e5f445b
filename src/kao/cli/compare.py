"""`kao compare`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kao.errors import ConfigError, KaoError

if TYPE_CHECKING:
    from torch import Tensor

    from kao.evaluation import Evaluation, Protocol
    from kao.evaluation.comparison import Comparison, Difference, Row
    from kao.runs.comparing import Side

_USUAL = "small-data"

_MOST_SHOWN = 32


def compare(
    things: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|FOLDER|NPZ",
            help="Run directories, folders or NPZ files of drawn pictures.",
        ),
    ],
    real: Annotated[
        str | None,
        typer.Option(
            metavar="FACES|FILE.npz",
            help="Score all of them here and now against these real pictures; default: the scores "
            "that kao evaluate kept in the runs.",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="small-data (with --real the default), ddpm-50k, ddim-table, clean-fid; without "
            "--real, only scores by it are compared.",
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", "-n", min=3, help="Pictures of each, with --real; default: the protocol's."
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Feature space, with --real: faces, wavelets, inception, dinov2, clip; may be "
            "given again; default: the protocol's.",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPACE=PATH",
            help="Where a feature network is, with --real: inception=PATH; may be given again.",
        ),
    ] = None,
    n_grid: Annotated[
        int,
        typer.Option(min=0, max=_MOST_SHOWN, help="Pictures of each on the page, side by side."),
    ] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise and of every choice.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 64,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = Path("compare.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Compare runs and sets of pictures: which differences are real, and how they look.

    Example: kao compare runs/small runs/large

    Example: kao compare runs/mine their-samples/ --real my-faces/

    Prints the scores with their intervals and says of each difference whether it is real or
    within the noise.  Writes one page with the scores, pictures from the same noise side by side,
    the runs' curves over images and over minutes, and the keys in which they differ.  What was
    measured by protocols that differ is shown and not ranked.
    """
    import json

    from kao.cli.console import say
    from kao.cli.outputs import Output, check_outputs
    from kao.cli.streams import put
    from kao.evaluation import protocol_of
    from kao.evaluation.comparison import compare as set_side_by_side
    from kao.evaluation.planning import asked_protocol
    from kao.reports.comparison import Shown, write_comparison
    from kao.reports.record import RunRecord
    from kao.runs.comparing import kept_evaluations, open_sides

    check_outputs(Output("--out", out, "the page", ".html"))
    if protocol is not None:
        protocol_of(protocol)
    networks = _networks(weights or [])
    sides = open_sides(things)
    pictures: dict[str, Tensor]
    evaluations: dict[str, Evaluation]
    if real is not None:
        asked = asked_protocol(protocol or _USUAL, n=n, features=features or [])
        evaluations, pictures = _scored(
            sides, real, asked, networks=networks, n_grid=n_grid, seed=seed, batch=batch
        )
    elif given := [
        option
        for option, value in {"--n": n, "--features": features, "--weights": weights}.items()
        if value is not None
    ]:
        raise ConfigError(
            f"{given[0]} says how pictures are scored, and without --real none are: give --real, "
            f"or leave {given[0]} out."
        )
    else:
        evaluations = kept_evaluations(sides, protocol=protocol)
        pictures = _drawn(sides, n_grid, seed=seed, batch=batch)
    comparison = set_side_by_side(evaluations)
    shown = [
        Shown(
            side.name,
            RunRecord.read(side.run.path) if side.run else None,
            pictures.get(side.name),
        )
        for side in sides
    ]
    if as_json:
        put(json.dumps(comparison.to_dict(), indent=2, allow_nan=False))
    else:
        put("\n".join(lines(comparison)))
    say(str(write_comparison(out, comparison, shown, pictures=_which_pictures(sides, seed))))


def _networks(words: Sequence[str]) -> dict[str, Path]:
    """Where feature networks are.

    Raises:
        ConfigError: A word does not say of which.
    """
    for word in words:
        if "=" not in word:
            raise ConfigError(
                f'--weights = "{word}"; expected SPACE=PATH for a feature network, such as '
                f"inception=PATH."
            )
    pairs = (word.partition("=") for word in words)
    return {name: Path(path) for name, _, path in pairs}


def _scored(
    sides: "Sequence[Side]",
    real: str,
    asked: "Protocol",
    *,
    networks: Mapping[str, Path],
    n_grid: int,
    seed: int,
    batch: int,
) -> "tuple[dict[str, Evaluation], dict[str, Tensor]]":
    """Score everything now; of the drawn pictures, some to show."""
    from kao.cli.console import Bars, bar, say
    from kao.evaluation import Looking
    from kao.evaluation.opening import open_spaces
    from kao.machine import device
    from kao.processes import ALONE
    from kao.runs.comparing import score_sides

    with bar() as progress:
        bars = Bars(progress)
        spaces = open_spaces(
            asked,
            weights=networks,
            tell=say,
            progress=lambda done, total: bars.show("downloading weights", done, total),
        )
        scored = score_sides(
            sides,
            real=real,
            protocol=asked,
            looking=Looking(spaces, device(), batch, ALONE, bars.show),
            seed=seed,
            batch=batch,
            tell=say,
        )
    pictures = {}
    for side in sides if n_grid else ():
        drawn = scored[side.name].pictures
        # A run's first pictures are of the same noise as those of any other run.
        some = drawn.images[:n_grid] if side.run else drawn.some(n_grid, seed=seed).images
        pictures[side.name] = some
    return {name: one.evaluation for name, one in scored.items()}, pictures


def _drawn(sides: "Sequence[Side]", count: int, *, seed: int, batch: int) -> "dict[str, Tensor]":
    """Pictures that the runs draw from the same noise; of one that cannot, none, which is told."""
    from kao.cli.console import say
    from kao.runs.comparing import some_drawn

    pictures = {}
    for side in sides if count else ():
        if side.run is None:
            continue
        try:
            pictures[side.name] = some_drawn(side.run, count, seed=seed, batch=batch)
        except KaoError as error:
            say(f"Left out the pictures of {side.name}: {error}")
    return pictures


def _which_pictures(sides: "Sequence[Side]", seed: int) -> str:
    """A sentence on the pictures that the page shows."""
    runs, noise = sum(side.run is not None for side in sides), f"pictures 0, 1, ... of seed {seed}"
    if runs == len(sides):
        return f"Each row is drawn from the same noise: {noise}."
    chosen = "Those of folders and files are chosen at random"
    if runs > 1:
        return f"{chosen}; in each row those of runs are drawn from the same noise: {noise}."
    return f"{chosen}."


# Words


def lines(comparison: "Comparison") -> Iterator[str]:
    """A comparison for people: scores, differences, and what to know of them."""
    yield from _scores(comparison.rows, comparison.names)
    for label, rows in comparison.per_class.items():
        yield from ("", f"class {label}")
        yield from _scores(rows, comparison.names)
    if comparison.obstacles:
        yield from ("", "Not ranked, since they were measured by protocols that differ:")
        yield from (f"* {sentence}" for sentence in comparison.obstacles)
    differences = [
        [row.name, *_difference(difference)]
        for row in comparison.rows
        for difference in row.differences
    ]
    if differences:
        yield from ("", "differences, with 95 % intervals that hold for all pairs of a score")
        yield from _aligned(differences)
    if comparison.notes:
        yield from ("", *(f"* {note}" for note in comparison.notes))


def _scores(rows: "Sequence[Row]", names: Sequence[str]) -> Iterator[str]:
    """A line a score: its value and interval in each set, and what that says."""
    from kao.evaluation.numbers import number
    from kao.metrics import Score

    def told(score: Score) -> str:
        value, low, high = (number(x, score.error) for x in (score.value, score.low, score.high))
        return f"{value} ({low} to {high})"

    table = [["score", *names, "real pictures", ""]]
    for row in rows:
        floors = [m.floor for m in row.measured.values() if m.floor is not None]
        table.append(
            [
                row.name,
                *(told(row.measured[x].score) if x in row.measured else "-" for x in names),
                number(floors[0].value, floors[0].error) if floors else "-",
                row.verdict(),
            ]
        )
    return _aligned(table)


def _difference(difference: "Difference") -> list[str]:
    value, low, high = difference.figures
    winner = f": {difference.winner} is better" if difference.winner else ""
    return [
        f"{difference.first} - {difference.second}",
        f"{value} ({low} to {high})",
        f"{difference.finding}{winner}",
    ]


def _aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
