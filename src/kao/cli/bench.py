"""`kao bench`."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from kao.cli.train import places_and_overrides
from kao.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from kao.config import RunConfig, Table
    from kao.runs.speed import Outcome

_TOYS = "toy:512"
"""Pictures of a recipe that names none."""

_HEAD = f"{'technique':<23} {'images/s':>22} {'times the best before':>25} {'memory':>8} "
_HEAD += f"{'loss':>15} {'peak':>5}  verdict"


def bench(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|RECIPE [key=value ...]",
            help="A run directory, or a recipe; and changes to it.",
            show_default=False,
        ),
    ],
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps a round; default: as fit --seconds.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="To measure each technique for, about.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1, help="In turns with the best so far.")] = 5,
    everything: Annotated[
        bool, typer.Option("--all", help="Try also what is known to lose on this device.")
    ] = False,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The recipe that is recommended.")
    ] = Path("recommended.toml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the ladder as JSON.")] = False,
) -> None:
    """Measure what makes training faster on this machine, and recommend it as a recipe.

    Example: kao bench faces-32 --out fast.toml && kao train my-faces/ fast.toml

    Each technique is put on top of those that were taken before, and takes rounds in turns with
    the best so far.  It is taken if it is faster in every round, by 3 % in the middle one, and
    the mean loss of the same steps stays within 1 % of the plain loop's.
    """
    import json

    from kao.cli.console import say
    from kao.cli.outputs import Output, check_outputs
    from kao.cli.streams import put
    from kao.data.prepare import prepare
    from kao.data.sources import open_source
    from kao.files import write_text
    from kao.machine import describe, device, keep_freed_memory
    from kao.runs.classes import with_classes_of
    from kao.runs.speed import Effort, climb

    if not 0 < seconds < math.inf:
        raise ConfigError(f"--seconds = {seconds:g}; expected a number above 0.")
    check_outputs(Output("--out", out, "the recommendation", ".toml"))
    subject = _subject(words, out)
    data = subject.config.data
    source = open_source(data.source, size=data.size, classes=data.classes)
    prepared = prepare(source, size=data.size, crop=data.crop)
    config = with_classes_of(subject.config, prepared)
    effort = Effort(rounds=rounds, steps=steps or 0, seconds=seconds)
    machine, on = describe(), device()
    if on.type == "cpu":
        keep_freed_memory()
    say(f"{subject.name} on {machine['gpu'] or machine['cpu']}, {machine['cores']} cores.")
    outcomes: list[Outcome] = []
    if not as_json:
        put(_HEAD)
    for outcome in climb(config, prepared, on, effort=effort, everything=everything):
        outcomes.append(outcome)
        if not as_json:
            put(_row(outcome))
    taken = [outcome for outcome in outcomes if outcome.taken]
    if as_json:
        put(
            json.dumps(
                {"machine": machine, "rungs": [_told(o) for o in outcomes]},
                indent=2,
                allow_nan=False,
            )
        )
    if not taken:
        raise ConfigError(f"Nothing ran here: {outcomes[0].verdict}")
    write_text(out, _recommendation(subject, taken, on))
    say(f"{out}: train with it by kao train FACES {out}")


class Subject(NamedTuple):
    """What is measured.

    Attributes:
        name: Of the run or the recipe.
        config: Checked, with pictures named.
        base: What the recommended recipe says beside the techniques.
    """

    name: str
    config: "RunConfig"
    base: "Table"


def _subject(words: list[str], out: Path) -> Subject:
    """The run or the recipe that the words name.

    Raises:
        ConfigError: They name none, or more than one, or a key does not fit.
        CheckpointError: The run cannot be read.
    """
    from kao.config import Request, RunConfig, dump
    from kao.runs import Run

    plain, overrides = places_and_overrides(words)
    if len(plain) != 1:
        raise ConfigError(
            f"kao bench takes one run directory or one recipe beside key=value pairs, and got "
            f"{f'{len(plain)}: ' + ', '.join(plain) if plain else 'none'}: try kao bench faces-32."
        )
    name = plain[0]
    changes = Request.of(None, overrides)
    if Path(name).is_dir():
        config = changes.over(dump(Run.open(name).config))
        base = dump(config)
        # A recipe is for any pictures, and intervals follow from a run's length.
        del base["hooks"]
        for key in ("source", "fingerprint", "held_out"):
            del base["data"][key]
        for key in ("names", "counts"):
            del base["conditions"][key]
    else:
        config = Request.of(name, overrides).over(dump(RunConfig()))
        # A file that is extended is looked for beside the one that extends it.
        parent = os.path.relpath(name, out.parent) if name.endswith(".toml") else name
        base = {"extends": parent, **changes.table}
    if config.data.source in ("", "toy"):
        config = Request({"data": {"source": _TOYS}}).over(dump(config))
    config.check()
    return Subject(name, config, base)


def _row(outcome: "Outcome") -> str:
    """One line of the table."""
    name, m = outcome.rung.name, outcome.measured
    if m is None:
        return f"{name:<23} {'':>79}  {outcome.verdict}"
    speed = f"{_round(m.speed.median)} ({_round(m.speed.low)}..{_round(m.speed.high)})"
    gain = f"x{m.gain.median:.2f} ({m.gain.low:.2f}..{m.gain.high:.2f})"
    space = "?" if m.memory is None else f"{m.memory / 2**20:,.0f} MB"
    share = "" if m.share is None else f"{m.share:.0%}"
    loss = f"{m.loss:.4f} {m.drift:+.2%}"
    return f"{name:<23} {speed:>22} {gain:>25} {space:>8} {loss:>15} {share:>5}  {outcome.verdict}"


def _round(speed: float) -> str:
    return f"{speed:.3g}" if speed < 1000 else f"{speed:.0f}"


def _told(outcome: "Outcome") -> dict[str, Any]:
    """One rung as JSON."""
    from dataclasses import asdict

    measured = None
    if outcome.measured is not None:
        measured = asdict(outcome.measured)
        measured |= {key: measured[key]._asdict() for key in ("speed", "gain")}
        # JSON has no word for what is no number.
        measured |= {k: None for k in ("loss", "drift") if not math.isfinite(measured[k])}
    return {
        "technique": outcome.rung.name,
        "changes": outcome.rung.changes,
        "effect": outcome.rung.effect,
        "measured": measured,
        "taken": outcome.taken,
        "verdict": outcome.verdict,
    }


def _recommendation(subject: Subject, taken: "list[Outcome]", on: "torch.device") -> str:
    """The recipe, as TOML."""
    import tomli_w

    from kao.config.tree import merge
    from kao.files import readable
    from kao.machine import describe, versions
    from kao.runs.ladder import settled

    machine = describe()
    told = (
        f"# Measured by kao bench {readable(subject.name)} on {machine['gpu'] or machine['cpu']}, "
        f"{machine['cores']} cores, torch {versions()['torch']}:\n"
        f"# {' + '.join(outcome.rung.name for outcome in taken)}.\n"
    )
    return told + tomli_w.dumps(merge(subject.base, settled(taken[-1].config, on)))
