"""`kao report`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kao.checkpoints import Checkpoint
    from kao.runs import Run


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
) -> None:
    """Write RUN/report.html: one page with everything, to open without a network.

    Example: kao report runs/mine

    Strips and the animation of `kao show` are drawn first where they are missing, or show an
    earlier state of the model.
    """
    from kao.checkpoints import Checkpoint
    from kao.cli.console import say
    from kao.errors import KaoError
    from kao.reports import write_report
    from kao.runs import Run

    opened = Run.open(run)
    checkpoint, _ = Checkpoint.latest(opened.path, training=False)
    if checkpoint is not None:
        try:
            _bring_up_to_date(opened, checkpoint)
        except KaoError as error:
            say(f"Left out all figures: {error}")
    say(str(write_report(opened.path)))


def _bring_up_to_date(run: "Run", checkpoint: "Checkpoint") -> None:
    """Draw the figures that are missing or older than the checkpoint; say which cannot be."""
    from kao.cli.console import say
    from kao.cli.show import BY_THE_MODEL, FILES, drawings
    from kao.errors import KaoError
    from kao.runs.run import PICTURES

    folder = run.path / PICTURES
    written = (checkpoint.path / "card.json").stat().st_mtime_ns
    for kind, draw in drawings(run, folder, n=6, seed=0).items():
        file = folder / FILES[kind]
        if file.exists() and (kind not in BY_THE_MODEL or file.stat().st_mtime_ns >= written):
            continue
        try:
            draw()
        except KaoError as error:
            say(f"Left out {kind}: {error}")
