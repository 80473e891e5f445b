"""`kao finetune`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kao.cli.train import (
    DryRun,
    Images,
    Minutes,
    Steps,
    Stop,
    Words,
    chosen_length,
    default_name,
    split_words,
    start,
)


def finetune(
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE",
            help="What to begin with: a run, a checkpoint, a file, a folder, or a name on the hub.",
            show_default=False,
        ),
    ],
    words: Words = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The run directory; default: runs/<name of FACES>-from-<BASE>."
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the pictures, pixels; default: the base's.")
    ] = None,
    minutes: Minutes = None,
    images: Images = None,
    steps: Steps = None,
    freeze: Annotated[
        int | None,
        typer.Option(metavar="K", help="Keep the first K blocks as they are, and all before them."),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(metavar="all|norms_attention|lora", help="What learns; default: all."),
    ] = None,
    stop: Stop = None,
    dry_run: DryRun = False,
) -> None:
    """Begin with a trained model and train it on other pictures.

    Example: kao finetune runs/people anime/ --run runs/anime --minutes 10 --freeze 4

    Network, schedule, target and loss are the base's unless something else is asked for; what is
    converted and what is new is said.  The same command again goes on where it stopped.
    """
    from kao.exchange.located import plain_name
    from kao.runs import Ask

    base = plain_name(base)
    source, recipe, overrides = split_words(words or [])
    flags: dict[str, Any] = {}
    if size is not None:
        flags["data"] = {"size": size}
    if stop is not None:
        flags["evaluation"] = {"stop": stop}
    if (length := chosen_length(minutes, images, steps)) is not None:
        flags["length"] = length
    tuned = {"freeze": freeze, "train": train}
    if told := {key: value for key, value in tuned.items() if value is not None}:
        flags["finetune"] = told
    path = run or Path("runs") / f"{default_name(source or 'run')}-from-{default_name(base)}"
    start(
        Ask(run=path, source=source, recipe=recipe, overrides=overrides, flags=flags, base=base),
        dry_run=dry_run,
    )
