"""What a run leaves open until it starts, filled in from machine, pictures and clock."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from kao.config import Request, RunConfig, Table, dump, leaves
from kao.config.run import CHANNELS
from kao.data.prepared import PreparedSet
from kao.data.split import check_split
from kao.machine import best_precision, free_memory
from kao.networks import EDM2Config, UNetConfig
from kao.networks.cost import flops
from kao.processes import ALONE, Processes
from kao.runs.cost import step_bytes
from kao.runs.precision import trusted
from kao.runs.probe import probe
from kao.runs.scaling import WIDEST, Given, Open, scaled, shared
from kao.runs.timetable import open_intervals, timetable, with_intervals
from kao.training import Length

SMALL_SET = 5_000
"""Pictures below which a recipe that nobody named adds dropout: each is seen dozens of times."""

_ATTENDED = 16
"""Largest feature map, in pixels, that gets attention by itself: its cost grows with size^4."""

_FINE = 64
"""Largest size at which a GPU works on 2x2 pixels, as the finer network pays there."""

_ROOM = 0.5
"""Share of the free memory that a step of a chosen network may take; pictures, what kernels work
in, and other programs have the rest."""


@dataclass(frozen=True)
class Resolved:
    """A configuration in which nothing is left open.

    Attributes:
        config: As it goes into run.toml.
        notes: What was chosen and planned, for the user.
        reserve: Seconds that a call of each hook is expected to take, by the names of
            `timetable.COUNTS`; empty for a run in images, which looks at no clock.
    """

    config: RunConfig
    notes: list[str]
    reserve: Mapping[str, float]


SIBLINGS = {"dit": "dit-32", "edm2": "edm2-32", "linear_unet": "linear-32"}
"""By network.kind: the recipe for whoever asks for that and names none.

Each is `faces-32` with another network, and what that wants beside it.
"""


def default_recipe(device: torch.device, asked: Table) -> str:
    """The recipe for whoever names none: by the kind of network, the size, or the machine.

    Args:
        device: Where it will train.
        asked: What the user did set.
    """
    typed = leaves(asked)
    kind = typed.get("network.kind", typed.get("network"))
    if kind in SIBLINGS:
        return SIBLINGS[kind]
    size = typed.get("data.size", 64 if device.type == "cuda" else 32)
    return "faces-64" if isinstance(size, int) and size >= 48 else "faces-32"


def fitted(config: RunConfig, asked: Table, device: torch.device) -> RunConfig:
    """Fit the network of a recipe that nobody named to size and machine.

    A GPU has the operations to work on a finer picture, so its stem folds 2x2 pixels up to a size
    of 64; attention goes where this size has its small maps.  Kinds without either stay.

    Args:
        config: Of the default recipe, at any size.
        asked: What the user did set, which stays.
        device: Where it will train.
    """
    network = config.network
    if not isinstance(network, UNetConfig | EDM2Config):
        return config
    typed = leaves(asked)
    if "network.stem" not in typed and device.type == "cuda" and config.data.size <= _FINE:
        network = replace(network, stem=2)
    if "network.attention" not in typed:
        maps = tuple(size for size in network.sizes(config.data.size)[-2:] if size <= _ATTENDED)
        network = replace(network, attention=maps)
    return replace(config, network=network)


def regularised(config: RunConfig, asked: Table, pictures: int) -> RunConfig:
    """Add dropout to a recipe that nobody named where pictures are few.

    Args:
        config: Of the default recipe.
        asked: What the user did set, which stays.
        pictures: How many there are.
    """
    if pictures >= SMALL_SET or "network.dropout" in leaves(asked):
        return config
    return Request({"network": {"dropout": 0.1}}).over(dump(config))


def sized(config: RunConfig, asked: Table, device: torch.device) -> RunConfig:
    """Choose width, batch and rate of a recipe that nobody named for a length in images.

    Args:
        config: Of the default recipe.
        asked: What the user did set, which stays.
        device: Where it will train.

    Returns:
        The configuration; as it was for a length in minutes, which needs a probe of the speed.
    """
    length = Length.parse(config.length, batch=config.training.batch)
    if not length.images:
        return config
    open_ = Open.of(config, asked)
    room = free_memory(device)
    return _chosen(config, open_, images=length.images, given="images", room=room)


def with_precision(config: RunConfig, device: torch.device) -> RunConfig:
    """Replace precision "auto" by what the hardware does best."""
    if config.training.precision != "auto":
        return config
    training = replace(config.training, precision=best_precision(device))
    return replace(config, training=training)


def resolve(
    config: RunConfig,
    prepared: PreparedSet,
    device: torch.device,
    *,
    asked: Table | None = None,
    processes: Processes = ALONE,
) -> Resolved:
    """Replace every "auto" by a value, so that run.toml says what was run.

    It is probed once, for some seconds, unless nothing depends on it: what is chosen for minutes
    does, and so does what the user is told of a network that was chosen for images.

    Args:
        config: Checked.
        prepared: The pictures.
        device: Where it will train.
        asked: What the user did set, where no recipe was named: the rest is chosen for the
            budget.  None where one was: it stays as it is.
        processes: Among which the run is shared.
    """
    held_out = check_split(prepared.groups, config.data.held_out)
    data = replace(config.data, fingerprint=prepared.fingerprint, held_out=held_out)
    left_open = config.training.precision == "auto"
    config = replace(with_precision(config, device), data=data)
    config, tested = trusted(config, prepared, device, chosen=left_open, processes=processes)
    length = Length.parse(config.length, batch=config.training.batch)
    open_ = Open.of(config, asked) if asked is not None else None
    if open_ is None or not open_.keys:
        if length.images:
            return Resolved(with_intervals(config, length.images), tested, {})
        if not open_intervals(config):
            return Resolved(config, tested, {})

    world, tried = processes.world, config
    if open_ is not None and open_.batch:
        batch = shared(config.training.batch, world)
        tried = replace(config, training=replace(config.training, batch=batch))
    room = free_memory(device) // processes.local_world
    costs = probe(tried, prepared, device, processes=processes)
    # Measured in every process, decided in one: choices must not differ.
    costs, room = processes.broadcast((costs, room))
    chosen = config
    if open_ is not None:
        images, given = length.expected_images(1 / costs.image), _given(length)
        chosen = _chosen(config, open_, images=images, given=given, room=room, world=world)
        costs = costs.times(_operations(chosen) / _operations(config))
    resolved, plan = timetable(chosen, costs)
    notes = [*tested, *_choices(config, chosen), *plan.lines()]
    return Resolved(resolved, notes, {} if length.images else dict(plan.costs.hooks))


def _given(length: Length) -> Given:
    return "images" if length.images else "time"


def _chosen(
    config: RunConfig, open_: Open, *, images: int, given: Given, room: int, world: int = 1
) -> RunConfig:
    """What `scaled` chooses, with a network that leaves room in memory.

    Args:
        config: Of the default recipe, whose own width is taken to fit.
        open_: What may be chosen.
        images: That the run would see with `config` as it is.
        given: What the length is given in.
        room: Bytes that are free for each process.
        world: Processes that share the batch.
    """
    widest = WIDEST
    while True:
        chosen = scaled(config, open_, images=images, given=given, widest=widest, world=world)
        width = _width(chosen)
        narrowest = width <= _width(config) or width > widest
        if narrowest or step_bytes(chosen, world=world) <= _ROOM * room:
            return chosen
        widest = width - 1


def _width(config: RunConfig) -> int:
    return config.network.width if isinstance(config.network, UNetConfig) else 0


def _operations(config: RunConfig) -> int:
    shape = (CHANNELS, config.data.size, config.data.size)
    return flops(config.build_denoiser("meta").network, shape)


def _choices(before: RunConfig, after: RunConfig) -> list[str]:
    """One sentence on what was chosen for the budget; none where nothing was."""
    old, new = leaves(dump(before)), leaves(dump(after))
    told = [f"{key} = {value}" for key, value in new.items() if old.get(key) != value]
    if not told:
        return []
    return [f"Chosen for {after.length} on this machine: {', '.join(told)}."]
