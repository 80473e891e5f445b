"""`kao report`."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
) -> None:
    """Write RUN/report.html: one page with everything, to open without a network.

    Example: kao report runs/mine

    Strips and the animation of `kao show` are drawn first where they are missing.
    """
    from kao.checkpoints import Checkpoint
    from kao.cli.console import say
    from kao.cli.show import FILES, drawings
    from kao.errors import DataError
    from kao.reports import write_report
    from kao.runs import Run
    from kao.runs.run import PICTURES

    opened = Run.open(run)
    folder = opened.path / PICTURES
    if Checkpoint.latest(opened.path)[0] is not None:
        for kind, draw in drawings(opened, folder, n=6, seed=0).items():
            if (folder / FILES[kind]).exists():
                continue
            try:
                draw()
            except DataError as error:
                say(f"Left out {kind}: {error}")
    say(str(write_report(opened.path)))
