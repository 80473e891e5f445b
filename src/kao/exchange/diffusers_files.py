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
from kao.exchange.weight_files import read_variant

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

_LICENCE = re.compile(r"^license:\s*[\"']?([\w.-]+)", re.MULTILINE)


def network_of(source: Source) -> tuple[Path, dict[str, Any]] | None:
    """The folder of the network and its configuration; None where there is none.

    Raises:
        CheckpointError: The configuration is no JSON object.
    """
    for name in _FOLDERS:
        table = source.table(f"{name}/{CONFIG}")
        if table is not None and "_class_name" in table:
            return source.path / name, table
    return None


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
        source: Its `weights` names a variant, such as "fp16"; "auto" takes the plain ones.

    Raises:
        CheckpointError: They are missing or damaged.
    """
    return in_float32(read_variant(folder, source.weights))


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
