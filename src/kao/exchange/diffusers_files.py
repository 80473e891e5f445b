"""The parts of a folder that diffusers wrote: a network, a scheduler, and what is told of them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from kao.errors import CheckpointError, ConfigError
from kao.exchange.chains import BETA_SCHEDULES
from kao.exchange.facts import one_of, whole
from kao.exchange.formats import Facts
from kao.exchange.located import Source, in_float32
from kao.exchange.schedulers import TARGET_NAMES, Told, read_scheduler
from kao.exchange.weight_files import read_variant, variants
from kao.exchange.wrapped import averaged, neighbours, prefixes, unwrapped

CONFIG = "config.json"
SCHEDULER = "scheduler_config.json"
INDEX = "model_index.json"

SCHEDULER_FACTS = {
    "beta_schedule": 'of the chain, as diffusers calls it; assumed to be "linear"',
    "prediction_type": 'what the network says, as diffusers calls it; assumed to be "epsilon"',
    "num_train_timesteps": "steps of the chain; assumed to be 1000",
}
"""What can be said of a network that lies without its scheduler."""

_FOLDERS = ("unet", "transformer", ".")
"""Where the network of a pipeline lies; in old ones, and alone, beside everything else."""

_ANCHORS = ("conv_in.weight", "pos_embed.proj.weight")
"""Tensors one of which every network has."""

_OF_AVERAGES = (
    *("decay", "min_decay", "inv_gamma", "power", "use_ema_warmup"),
    *("optimization_step", "update_after_step"),
)
"""What diffusers writes into the configuration of an average, and no network has."""

_LICENCE = re.compile(r"^license:\s*[\"']?([\w.-]+)", re.MULTILINE)


def network_of(source: Source) -> tuple[Path, dict[str, Any]] | None:
    """The folder of the network and its configuration; None where there is none.

    Raises:
        CheckpointError: The configuration is no JSON object.
    """
    found = _networks_of(source)
    if source.weights in found:
        name = source.weights
    else:
        name = next(iter([*filter(averaged, found), *found]), "")
    return (source.path / name, found[name]) if found else None


def _networks_of(source: Source) -> dict[str, dict[str, Any]]:
    """Configurations of a network and its averages, by the folders that they lie in.

    Raises:
        CheckpointError: A configuration is no JSON object.
    """
    folders = sorted(f.name for f in source.path.iterdir()) if source.path.is_dir() else []
    found: dict[str, dict[str, Any]] = {}
    for name in (*_FOLDERS, *filter(averaged, folders)):
        table = source.table(f"{name}/{CONFIG}") or {}
        kind = table.get("_class_name")
        first = next(iter(found.values()), None)
        if kind and (first is None or (name not in _FOLDERS and kind == first["_class_name"])):
            found[name] = {key: v for key, v in table.items() if key not in _OF_AVERAGES}
    return found


def class_name(source: Source) -> str | None:
    """What diffusers calls the network of a folder; None where there is none.

    Raises:
        CheckpointError: Its configuration is no JSON object.
    """
    found = network_of(source)
    return None if found is None else str(found[1]["_class_name"])


def state_of(folder: Path, source: Source) -> dict[str, Tensor]:
    """The weights of a network, floats of any precision in float32.

    Args:
        folder: From `network_of`.
        source: Its `weights` names a folder, such as "unet" where there is "unet_ema", too, or a
            variant, such as "fp16"; "auto" takes averaged ones where there are some.  What lies
            beside those that are taken is noted.

    Raises:
        CheckpointError: They are missing or damaged.
    """
    folders = _networks_of(source)
    tensors = read_variant(folder, "auto" if source.weights in folders else source.weights)
    if source.weights == "auto":
        which = "averaged weights" if averaged(folder.name) else "weights"
        beside = [name for name in folders if source.path / name != folder] + variants(folder)
        if beside:
            ways = " or ".join(f"--weights {name}" for name in beside)
            source.notes.append(f"The {which} in {folder.name} were taken: {ways} takes others.")
        if folder == source.path:  # the network's own folder was named
            source.notes.extend(neighbours(folder))
    anchor = next((name for name in _ANCHORS if prefixes(tensors, name)), None)
    if anchor is not None:
        found = unwrapped(tensors, anchor, origin=source.origin)
        source.notes.extend(found.notes)
        tensors = found.state
    return in_float32(tensors)


def scheduler_of(source: Source, facts: Facts) -> Told:
    """What the scheduler of a folder tells; what diffusers assumes where there is none.

    Args:
        source: The folder.
        facts: Of `SCHEDULER_FACTS`, for a network without a scheduler.

    Raises:
        ConfigError: It cannot be expressed here; or a fact is of another kind, or is given though
            the scheduler tells it.
        CheckpointError: Its configuration is no JSON object.
    """
    said = {name: value for name, value in facts.items() if name in SCHEDULER_FACTS}
    table = source.table(f"scheduler/{SCHEDULER}") or source.table(SCHEDULER)
    if table is None:
        one_of(said, "beta_schedule", {name: name for name in BETA_SCHEDULES})
        one_of(said, "prediction_type", TARGET_NAMES)
        whole(said, "num_train_timesteps", least=2)
        told = read_scheduler(said)
        assumed = [name for name in SCHEDULER_FACTS if name not in said]
        note = (
            f"There is no {SCHEDULER} with it: {', '.join(assumed)} are those of DDPM, which is "
            f"assumed; name them as key=value where they are others."
        )
        return Told(
            schedule=told.schedule,
            target=told.target,
            learned_variance=None,
            sampling=told.sampling,
            notes=(note,) if assumed else (),
        )
    if said:
        name = next(iter(said))
        raise ConfigError(
            f"{name} = {said[name]!r} cannot be said of {source.origin}, whose {SCHEDULER} tells "
            f"it: leave it out."
        )
    return read_scheduler(table)


def class_names(source: Source, count: int) -> tuple[str, ...]:
    """Names of the classes, in the order of their numbers: as a pipeline tells them, or numbers.

    Args:
        source: The folder.
        count: Of the classes.

    Raises:
        CheckpointError: model_index.json is no JSON object, or its id2label is none.
    """
    index: Mapping[str, Any] = source.table(INDEX) or {}
    told = index.get("id2label") or {}
    if not isinstance(told, Mapping):
        raise CheckpointError(
            f"id2label in {INDEX} of {source.origin} is damaged or foreign: expected a name for "
            f"each number of a class."
        )
    # Several numbers may have one name, and a class is asked for by its name.
    names = tuple(str(told.get(str(i), i)) for i in range(count))
    return tuple(
        name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names)
    )


def licence_of(source: Source) -> str | None:
    """The licence that a README.md names at its top; None where it does not."""
    file = source.path / "README.md"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    found = _LICENCE.search(head)
    return found[1] if found else None
