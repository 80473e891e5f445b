"""`kao demo`."""

from pathlib import Path
from typing import Annotated

import typer

_SCORED = 200
"""Pictures that are scored: enough to tell toy faces from noise."""


def demo(
    run: Annotated[
        Path, typer.Option(metavar="DIR", help="The run directory; a finished one is shown again.")
    ] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option(help="Train so many minutes.")] = 3.0,
) -> None:
    """See everything once, without data: toy faces, train, draw, score, report, in five minutes.

    Example: kao demo --minutes 1
    """
    import time

    from kao.cli.console import say
    from kao.cli.evaluate import evaluate
    from kao.cli.report import report
    from kao.cli.sample import sample
    from kao.cli.show import show
    from kao.cli.train import train_loop
    from kao.machine import device
    from kao.runs import Ask

    started = time.perf_counter()

    def done(what: str) -> None:
        nonlocal started
        now = time.perf_counter()
        say(f"  {what} took {now - started:.0f} s")
        started = now

    say("1. Toy faces are drawn, then a model learns them.")
    flags = {"length": f"{minutes:g} minutes"}
    session = train_loop(Ask(run=run, recipe="toy-32", flags=flags), device())
    if session.trainer.done < 1:
        say("The same command goes on with it.")
        return
    done("drawing and training")
    say("2. It draws 64 pictures nobody drew before.")
    grid = run / "demo.png"
    sample(run, n=64, grid=grid)
    done("drawing")
    say("3. How good are they?  Scores beside those of other toy faces (the floor).")
    evaluate(str(run), n=_SCORED)
    done("scoring")
    say("4. What happens inside, and a report.")
    show(str(run))
    report(run)
    done("the report")
    say(f"Look at {grid} and open {run / 'report.html'} in a browser.")
