"""`kao train`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kao.errors import ConfigError

if TYPE_CHECKING:
    from kao.runs import Ask, Session


_PARTS = 1000  # of a progress bar


Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FACES [RECIPE] [key=value ...]",
        help="Pictures (folder, zip file, hf:NAME or toy), a recipe, and changes to it.",
        show_default=False,
    ),
]
Minutes = Annotated[float | None, typer.Option(help="Train so many minutes.")]
Images = Annotated[str | None, typer.Option(help="Train on so many images: 50000, 100k, 1M.")]
Steps = Annotated[int | None, typer.Option(help="Train so many steps.")]
Stop = Annotated[
    str | None,
    typer.Option(
        metavar="never|auto", help="auto: end the run where it grows no better; saves, exits 0."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the configuration and its cost; do nothing.")
]
"""What `kao train` and `kao finetune` have in common."""


def train(
    words: Words = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run directory; default: runs/<name of FACES>."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of the pictures, pixels.")] = None,
    minutes: Minutes = None,
    images: Images = None,
    steps: Steps = None,
    branch: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Begin a new run there with what --run has learned; change any key."
        ),
    ] = None,
    stop: Stop = None,
    dry_run: DryRun = False,
) -> None:
    """Train a model on pictures; the same command again goes on where it stopped.

    Example: kao train my-faces/ faces-32 --run runs/mine --minutes 10 network.width=64

    Without a recipe the one for this machine is taken and fitted to the pictures.  Ctrl-C
    finishes the step, saves and exits 0.  SIGTERM, SIGUSR1 and SIGHUP do the same and exit 75
    (start me again).  A second signal ends at once.
    """
    from kao.runs import Ask

    source, recipe, overrides = split_words(words or [])
    flags: dict[str, Any] = {}
    if size is not None:
        flags["data"] = {"size": size}
    if stop is not None:
        flags["evaluation"] = {"stop": stop}
    if (length := chosen_length(minutes, images, steps)) is not None:
        flags["length"] = length
    path = run or Path("runs") / default_name(source or "run")
    ask = Ask(
        run=path, source=source, recipe=recipe, overrides=overrides, flags=flags, branch=branch
    )
    start(ask, dry_run=dry_run)


def start(ask: "Ask", *, dry_run: bool) -> None:
    """Train, or print what would be trained.

    Raises:
        KaoError: As `train_loop`.
        typer.Exit: As `train_loop`.
    """
    from kao.machine import device

    if dry_run:
        _dry_run(ask)
        return
    train_loop(ask, device())


def split_words(words: list[str]) -> tuple[str | None, str | None, list[str]]:
    """FACES, RECIPE and the overrides among the words of a command line.

    Raises:
        ConfigError: There are more words without "=" than two, or the first is a recipe's name.
    """
    from kao.config.recipes import recipe_names

    plain, overrides = places_and_overrides(words)
    if len(plain) > 2:
        raise ConfigError(
            f'"{plain[2]}" is one word too many: expected FACES, then perhaps a recipe, then '
            f"key=value pairs."
        )
    source, recipe = (*plain, None, None)[:2]
    if source in recipe_names() and not os.path.exists(source):
        raise ConfigError(
            f'"{source}" is a recipe, and pictures come first: kao train FACES {source} (with toy '
            f"for FACES, faces are drawn)."
        )
    return source, recipe, overrides


def places_and_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """What names a place or a recipe among the words of a command line, and the key=value pairs.

    A path may have "=" in it.  What is there is a path, and what begins with a key, or with
    nearly one, is a pair; else it is a path that comes first, or looks like one, and is missing.
    """
    from dataclasses import fields

    from kao.config import RunConfig
    from kao.errors import near_miss

    keys = [field.name for field in fields(RunConfig)]
    plain: list[str] = []
    overrides: list[str] = []
    for word in words:
        key, equals, _ = word.partition("=")
        # Not Path.exists, which raises where a long list of classes is no name of a file.
        place = not equals or os.path.exists(word)
        if not place and not near_miss(key.partition(".")[0], keys):
            place = not plain or "/" in word or word.endswith(".toml")
        (plain if place else overrides).append(word)
    return plain, overrides


def default_name(source: str) -> str:
    """A run's name from its pictures': "../data/anime64.zip" -> "anime64".

    A split's name says little, so it is named after its parent too: "AFHQ/train" -> "AFHQ-train".
    """
    path = Path(source.replace(":", "-")).resolve()
    split = path.name in ("train", "val", "test")
    return (f"{path.parent.stem}-{path.name}" if split else path.stem) or "run"


def chosen_length(minutes: float | None, images: str | None, steps: int | None) -> str | None:
    """The length that one of three flags sets; None where none is given.

    Raises:
        ConfigError: More than one is given.
    """
    given = {
        "minutes": None if minutes is None else f"{minutes:g} minutes",
        "images": None if images is None else f"{images} images",
        "steps": None if steps is None else f"{steps} steps",
    }
    set_ = [name for name, text in given.items() if text is not None]
    if len(set_) > 1:
        raise ConfigError(f"--{set_[0]} and --{set_[1]} both set the length: give one of them.")
    return given[set_[0]] if set_ else None


def _dry_run(ask: "Ask") -> None:
    from kao.cli.streams import put
    from kao.machine import device
    from kao.runs.cost import estimate
    from kao.runs.planning import foreseen, waiting

    config, notes = foreseen(ask, device())
    lines = [config.to_toml(), *(f"# {line}" for line in (*notes, *estimate(config)))]
    if keys := waiting(ask, config):
        lines.append(
            f"# chosen for the time when the run starts and has measured it: {', '.join(keys)}"
        )
    put("\n".join(lines))


def train_loop(ask: "Ask", device: Any) -> "Session":
    """Open the run, train it behind a bar, say how it went.

    Raises:
        KaoError: The run cannot start, or cannot go on; what was saved stays.
        typer.Exit: SIGTERM, SIGUSR1 or SIGHUP stopped it; what it has learned is saved.
        SystemExit: One of these stopped it before it had begun.
    """
    from kao.cli.console import UNFINISHED, stopping_gently
    from kao.processes import leave
    from kao.runs import open_session

    with stopping_gently() as stop:
        try:
            session = open_session(ask, device)
        except SystemExit:
            leave(waiting=False)  # a signal, of which the other processes may know nothing
            raise
        stop.trainer = session.trainer
        reason = _train(session)
        # The signal may have come to one of several.
        evicted = session.trainer.processes.any(stop.evicted)
    if evicted and reason == "interrupted":
        raise typer.Exit(UNFINISHED)
    return session


def _train(session: "Session") -> str:
    """Train an open run and say how it went; returns how it ended: see `finish`."""
    from kao.cli.console import say
    from kao.runs import ending, finish

    for note in (*session.notes, *session.plan):
        say(note)
    trainer = session.trainer
    if session.resumed is not None and trainer.done >= 1:
        say(f"{session.run.path} is finished; a greater length goes on with it.")
    elif session.resumed is not None:
        say(
            f"Going on with {session.run.path} at {session.resumed:,} images "
            f"({100 * trainer.done:.0f} % of {session.config.length})."
        )
    else:
        for line in session.prepared.audit.lines():
            say(f"  {line}")
        say(
            f"Training {session.run.path} for {session.config.length} on {trainer.device} in "
            f"{session.config.training.precision}."
        )
    try:
        with ending(session):
            _loop_behind_bar(session)
        reason = finish(session)
    finally:
        _say_notices(session)
    progress = trainer.progress
    say(
        f"{reason.capitalize()} at {progress.images:,} images after "
        f"{progress.seconds / 60:.1f} minutes. Draw with: kao sample {session.run.path}"
    )
    return reason


def _say_notices(session: "Session") -> None:
    from kao.cli.console import say

    for line in (*session.news.take(), *session.notices.take()):
        say(line)


def _loop_behind_bar(session: "Session") -> None:
    import time

    from kao.cli.console import bar, console, say
    from kao.machine import memory

    trainer = session.trainer
    loss, shown, spoken = None, 0.0, time.perf_counter()
    started, first = time.perf_counter(), trainer.progress.images
    waited = 0.0
    with bar() as progress:
        task = progress.add_task(
            "training", total=_PARTS, completed=round(_PARTS * trainer.done), figures=""
        )
        for step in trainer.steps():
            _say_notices(session)
            if not step.skipped:
                loss = step.loss if loss is None else 0.98 * loss + 0.02 * step.loss
            waited += step.waited
            now = time.perf_counter()
            if now - shown < 0.5 or loss is None:
                continue
            shown = now
            seconds = now - started
            held = memory(trainer.device)
            figures = (
                f"loss {loss:.4f}  "
                f"{(trainer.progress.images - first) / seconds:.0f} images/s  "
                f"data {100 * waited / seconds:.1f} %  "
                f"{held.get('reserved', held['cpu_rss']) / 2**30:.1f} GB"
            )
            progress.update(task, completed=_PARTS * trainer.done, figures=figures)
            # Where no bar is drawn, a line now and then says that it is alive.
            if not console.is_terminal and now - spoken > 30:
                spoken = now
                say(f"{100 * trainer.done:.0f} %  {trainer.progress.images:,} images  {figures}")
