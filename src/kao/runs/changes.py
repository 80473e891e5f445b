"""Which keys of a configuration may change when a run goes on, and which need a branch."""

from collections.abc import Container
from pathlib import Path

from kao.config import Request, RunConfig, Table, dump, leaves
from kao.errors import ConfigError
from kao.runs.ask import Ask
from kao.runs.run import Run
from kao.runs.timetable import INTERVALS
from kao.tracking import read_events

CHANGEABLE = (
    "length",
    "hooks.",
    "evaluation.",
    "sampling.",
    "tracking.",
    "data.source",
    "data.keep",
    "ema.offload",
    "loss.perceptual.network",
    "optimizer.rate",
    "training.precision",
    "training.micro_batch",
    "training.gradient_checkpointing",
    "training.compile",
    "training.channels_last",
    "training.tf32",
    "training.parallel",
    "training.retries",
)
"""Keys that may change when a run goes on, tables with a dot at the end.

Most touch only how fast something is computed, or what is written.  Pictures may have moved: their
fingerprint, not their place, decides.  So may the file of the perceptual network, which is known
by its path alone.  Rate and precision are the ways out of a loss that is no longer finite.  The
interval `ema.snapshots` may change, too, but not whether there are any.
"""

PICTURES = (
    "data.size",
    "data.crop",
    "data.classes",
    "data.fingerprint",
    "data.held_out",
    "conditions.classes",
    "conditions.names",
    "conditions.counts",
)
"""Keys that say which pictures are learned and of which classes, and which are held out: a branch
keeps them, too."""

FILLED = (
    "finetune.base",
    "finetune.sha256",
    "finetune.schedule",
    "finetune.target",
    "finetune.new",
)
"""Keys that say what a run began with and what that was made for: facts, which a branch keeps and
nobody sets."""

_RESOLVED = ("training.precision", "data.held_out")
"""Keys whose "auto" became a value when the run began, which stays."""

_SNAPSHOTS = "ema.snapshots"
_NAMED = 4
"""Most keys that a message spells out."""


def changed_keys(there: RunConfig, now: RunConfig) -> list[str]:
    """The dotted keys in which two configurations differ."""
    before, after = leaves(dump(there)), leaves(dump(now))
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def taken_up(ask: Ask) -> tuple[RunConfig, list[str]]:
    """The stored configuration with the changes that are allowed, and a note on each.

    What was typed is a wish.  What the recipe says is none, since the run has its own copy: a
    recipe that was edited since, as by a newer version of kao, changes no run.  Another recipe
    than the one that the run began with is a wish, too.

    Args:
        ask: Names a run that exists.

    Raises:
        ConfigError: A key is asked for that may not change; those that may are named, too.
    """
    stored = Run.open(ask.run).config
    typed, whole = (_request(ask, recipe) for recipe in (None, ask.recipe))
    config, asked = typed.over(dump(stored)), whole.over(dump(stored))
    named = leaves(typed.table)
    another = recipe_of(ask.run) not in (None, ask.recipe)
    refuse_changes(stored, asked if another else config, f"{ask.run}", typed=named)
    apart = [key for key in changed_keys(config, asked) if not key.startswith(CHANGEABLE)]
    notes = _notes(stored, config)
    if apart:
        more = f" and {len(apart) - _NAMED} more" if len(apart) > _NAMED else ""
        notes.append(
            f"The recipe {ask.recipe} says otherwise now in {', '.join(apart[:_NAMED])}{more}; "
            f"{ask.run} keeps its own."
        )
    return _refitted(ask, stored, config), notes


def branched(ask: Ask) -> tuple[RunConfig, list[str]]:
    """The stored configuration with all that is asked for over it, and a note on each change.

    Args:
        ask: Names a run that exists, and a branch.

    Raises:
        ConfigError: Other pictures are asked for, or another beginning than it had.
    """
    stored = Run.open(ask.run).config
    config = _request(ask, ask.recipe).over(dump(stored))
    changed = changed_keys(stored, config)
    rewritten = [key for key in changed if key.startswith(FILLED)]
    if rewritten:
        raise ConfigError(
            f"A branch of {ask.run} began with what that began with: "
            f"{_spelled(stored, config, rewritten)}. Leave that as it is, or begin a new run "
            f"with kao finetune."
        )
    refused = [key for key in changed if key in PICTURES]
    if refused:
        raise ConfigError(
            f"A branch of {ask.run} learns the same pictures at the same size: "
            f"{_spelled(stored, config, refused)}. Leave that as it is, or begin a new run without "
            f"--branch."
        )
    return _refitted(ask, stored, config), _notes(stored, config)


def refuse_changes(
    there: RunConfig, now: RunConfig, place: str, *, typed: Container[str] = ()
) -> None:
    """Raise a ConfigError that names the keys that differ, of those that may not.

    Args:
        there: As the run has it.
        now: As it is asked for.
        place: Where `there` is from, for the message.
        typed: Keys that the user named; those of them that may change are told apart.
    """
    keys = changed_keys(there, now)
    refused = [key for key in keys if not _may_change(key, there, now)]
    if not refused:
        return
    if refused == [_SNAPSHOTS] and there.ema.snapshots == 0:
        raise ConfigError(
            f"{place} tracks no averages to take snapshots of, so ema.snapshots = "
            f"{now.ema.snapshots!r} comes too late: leave it out, add --branch NEW_RUN to go on "
            f"with snapshots in a run of its own, or begin anew with another --run."
        )
    fine = [key for key in keys if key not in refused and key in typed]
    may = f" ({', '.join(fine)} may change)" if fine else ""
    raise ConfigError(
        f"{place} belongs to another configuration: {_spelled(there, now, refused)}. Give the same "
        f"settings to go on with it{may}, add --branch NEW_RUN to go on from its weights in a run "
        f"of its own, or begin anew with another --run."
    )


def _may_change(key: str, there: RunConfig, now: RunConfig) -> bool:
    if key == _SNAPSHOTS:  # which decides, too, whether there are averages for them
        return there.ema.snapshots != 0 and now.ema.snapshots != 0
    return key.startswith(CHANGEABLE)


def _spelled(there: RunConfig, now: RunConfig, keys: list[str]) -> str:
    before, after = leaves(dump(there)), leaves(dump(now))
    told = [
        f"{key} = {before.get(key, 'not set')!r} there and {after.get(key, 'not set')!r} now"
        for key in keys[:_NAMED]
    ]
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f"{'; '.join(told)}{more}"


def _notes(there: RunConfig, now: RunConfig) -> list[str]:
    before, after = leaves(dump(there)), leaves(dump(now))
    return [
        f"{key} was {before.get(key)!r} and is {after.get(key)!r} now."
        for key in changed_keys(there, now)
        if key in after
    ]


def _request(ask: Ask, recipe: str | None) -> Request:
    """What is asked for; an "auto" that the stored value came of asks for no change."""
    return Request(_without_auto(ask.request(recipe).table, (*_RESOLVED, *once_open(ask))))


def _without_auto(table: Table, keys: Container[str], path: str = "") -> Table:
    """The table without the "auto" of those keys, which are dotted."""
    kept: Table = {}
    for name, value in table.items():
        key = f"{path}{name}"
        if isinstance(value, dict):
            kept[name] = _without_auto(value, keys, f"{key}.")
        elif value != "auto" or key not in keys:
            kept[name] = value
    return kept


def recipe_of(run: Path) -> str | None:
    """The recipe that was named when a run began; None where none was, or nobody knows."""
    told = [e.get("recipe") for e in read_events(run) if e["event"] == "start"]
    return told[-1] if told else None


def once_open(ask: Ask) -> list[str]:
    """The intervals that were "auto" when a run began, and that nobody has typed since.

    Args:
        ask: Names the run, which need not exist; each start of it tells.
    """
    told = [e["auto"] for e in read_events(ask.run) if e["event"] == "start" and "auto" in e]
    typed = leaves(ask.request(None).table)
    opened = told[-1] if told else []
    return [key for key in opened if key in INTERVALS and typed.get(key, "auto") == "auto"]


def _refitted(ask: Ask, there: RunConfig, now: RunConfig) -> RunConfig:
    """`now`, with the intervals open that were so when the run began, if its length changes."""
    if there.length == now.length:
        return now
    opened: Table = {}
    for key in once_open(ask):
        section, _, name = key.partition(".")
        opened.setdefault(section, {})[name] = "auto"
    return Request(opened).over(dump(now))
