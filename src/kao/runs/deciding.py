"""What a run will be: its pictures, and its configuration with nothing left open."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kao.config import RunConfig
from kao.data.prepare import prepare
from kao.data.prepared import PreparedSet
from kao.data.sources import open_source
from kao.errors import ConfigError
from kao.processes import Processes
from kao.runs.ask import Ask
from kao.runs.beginning import begun
from kao.runs.classes import with_classes, with_classes_of
from kao.runs.directory import refuse_foreign
from kao.runs.planning import configure
from kao.runs.provenance import Provenance
from kao.runs.run import check_drawing
from kao.runs.sizing import regularised, resolve
from kao.runs.small_data import expected_of_few, stopped_for_few, trained_on
from kao.runs.timetable import open_intervals


@dataclass(frozen=True)
class Decided:
    """What a run will be.

    Attributes:
        ask: What is asked for.
        config: Resolved.
        prepared: The pictures.
        opened: The intervals that were "auto" until now.
        reserve: Seconds that a call of each hook is expected to take; see `Resolved`.
        notes: What the user should be told.
        plan: What was chosen and measured; see `Resolved`.
        weights: That the denoiser begins with; None: those that the seed draws.
        provenance: Of those, or of the run that this one is a branch of.
    """

    ask: Ask
    config: RunConfig
    prepared: PreparedSet
    opened: list[str]
    reserve: Mapping[str, float]
    notes: list[str]
    plan: list[str]
    weights: Mapping[str, Tensor] | None
    provenance: Provenance


def decide(ask: Ask, device: torch.device, processes: Processes) -> Decided:
    """What a run will be; nothing is written into its directory.

    Args:
        ask: What is asked for.
        device: Where it will train.
        processes: That prepare the pictures and will train.

    Raises:
        KaoError: It cannot be; the message says what to change.
    """
    config, exists, notes, ask, base = configure(ask, device)
    if processes.main:
        refuse_foreign(ask.home)
    prepared = _prepared(config, processes, exists=exists)
    if exists and prepared.fingerprint != config.data.fingerprint:
        raise ConfigError(
            f"{ask.run} belongs to another configuration: the pictures of {config.data.source} "
            f"have changed since it began. Bring them back to go on with it, or give another --run."
        )
    named = with_classes_of(config, prepared)
    if exists and named != config:
        raise ConfigError(
            f"{ask.run} belongs to another configuration: the classes of {config.data.source} have "
            f"changed since it began. Bring them back to go on with it, or give another --run."
        )
    config = named
    check_drawing(config)  # which the names of the classes may forbid
    if not exists:
        notes = [*notes, *expected_of_few(trained_on(config, len(prepared)))]
    free = not exists and ask.recipe is None and base is None
    asked = ask.request(None).table if free else None
    if asked is not None:
        config = regularised(config, asked, len(prepared))
    weights: Mapping[str, Tensor] | None = None
    plan: list[str] = []
    if base is not None:
        trained = trained_on(config, len(prepared))
        config, weights, plan = begun(config, base, ask, trained=trained)
    opened = open_intervals(config)
    reserve: Mapping[str, float] = {}  # a run that is taken up has its own saved
    if opened or not exists:
        resolved = resolve(config, prepared, device, asked=asked, processes=processes)
        config, reserve = resolved.config, resolved.reserve
        plan = [*plan, *resolved.notes]
    if base is not None:
        asked_for = ask.request(ask.recipe).table
        config, told = stopped_for_few(config, asked_for, trained_on(config, len(prepared)))
        plan += told
    provenance = Provenance.of_run(ask.run) if base is None else base.provenance
    return Decided(ask, config, prepared, opened, reserve, list(notes), plan, weights, provenance)


def _prepared(config: RunConfig, processes: Processes, *, exists: bool) -> PreparedSet:
    """The pictures.

    The first process prepares them, then the first of each machine, which finds them prepared if
    the cache is shared; the others find them in any case.
    """
    data = config.data
    source = open_source(data.source, size=data.size, classes=data.classes)
    if not exists:
        with_classes(config, source.classes)  # refuses sets without, before they are prepared
    return processes.by_turns(lambda: prepare(source, size=data.size, crop=data.crop))
