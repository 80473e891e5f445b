"""Which keys of a configuration may change when a run goes on, and which need a branch."""

from collections.abc import Container
from dataclasses import replace

from kao.config import Request, RunConfig, Table, dump, leaves
from kao.errors import ConfigError
from kao.runs.ask import Ask
from kao.runs.run import Run
from kao.tracking import read_events

CHANGEABLE = (
    "length",
    "hooks.",
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
by its path alone.  Rate and precision are the ways out of a loss that is no longer finite.
"""

PICTURES = ("data.size", "data.crop", "data.classes", "data.fingerprint", "data.held_out")
"""Keys that say which pictures are learned, and which are held out: a branch keeps them, too."""

_INTERVALS = ("hooks.log", "hooks.samples", "hooks.checkpoints", "hooks.held_out")
_NAMED = 4
"""Most keys that a message spells out."""


def changed_keys(there: RunConfig, now: RunConfig) -> list[str]:
    """The dotted keys in which two configurations differ."""
    before, after = leaves(dump(there)), leaves(dump(now))
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def taken_up(ask: Ask) -> tuple[RunConfig, list[str]]:
    """The stored configuration with the changes that are allowed, and a note on each.

    Args:
        ask: Names a run that exists.

    Raises:
        ConfigError: A key is asked for that may not change; those that may are named, too.
    """
    stored = Run.open(ask.run).config
    # "auto" was resolved when the run started; asking for it again asks for no change.
    typed = Request(_without_auto(ask.request(None).table))
    asked = Request(_without_auto(ask.request(ask.recipe).table)).over(dump(stored))
    refuse_changes(stored, asked, f"{ask.run}", typed=leaves(typed.table))
    # Of what may change, a recipe's own values are no wish: only what was typed is.
    config = typed.over(dump(stored))
    return _refitted(ask, stored, config), _notes(stored, config)


def branched(ask: Ask) -> tuple[RunConfig, list[str]]:
    """The stored configuration with all that is asked for over it, and a note on each change.

    Args:
        ask: Names a run that exists, and a branch.

    Raises:
        ConfigError: Other pictures are asked for.
    """
    stored = Run.open(ask.run).config
    config = Request(_without_auto(ask.request(ask.recipe).table)).over(dump(stored))
    refused = [key for key in changed_keys(stored, config) if key in PICTURES]
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
    refused = [key for key in keys if not key.startswith(CHANGEABLE)]
    if not refused:
        return
    fine = [key for key in keys if key.startswith(CHANGEABLE) and key in typed]
    may = f" ({', '.join(fine)} may change)" if fine else ""
    raise ConfigError(
        f"{place} belongs to another configuration: {_spelled(there, now, refused)}. Give the same "
        f"settings to go on with it{may}, add --branch NEW_RUN to go on from its weights in a run "
        f"of its own, or begin anew with another --run."
    )


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


def _without_auto(table: Table) -> Table:
    return {
        key: _without_auto(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value != "auto"
    }


def open_intervals(config: RunConfig) -> list[str]:
    """The intervals that a configuration leaves to the length of the run."""
    values = leaves(dump(config))
    return [key for key in _INTERVALS if values[key] == "auto"]


def once_open(ask: Ask) -> list[str]:
    """The intervals that were "auto" when a run began, and that nobody has typed since.

    Args:
        ask: Names the run, which need not exist; each start of it tells.
    """
    told = [e["auto"] for e in read_events(ask.run) if e["event"] == "start" and "auto" in e]
    typed = leaves(_without_auto(ask.request(None).table))
    return [key for key in (told[-1] if told else []) if key in _INTERVALS and key not in typed]


def _refitted(ask: Ask, there: RunConfig, now: RunConfig) -> RunConfig:
    """`now`, with the intervals open that were so when the run began, if its length changes."""
    if there.length == now.length:
        return now
    opened: Table = {key.removeprefix("hooks."): "auto" for key in once_open(ask)}
    return replace(now, hooks=replace(now.hooks, **opened))
