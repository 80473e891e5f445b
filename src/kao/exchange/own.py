"""Our own form of a network that is given away: one file of weights that says what they are."""

from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from kao.config import load_config
from kao.errors import CheckpointError
from kao.exchange.formats import Facts, Format
from kao.exchange.located import Source
from kao.exchange.model import Model
from kao.exchange.steps import label_formula, named
from kao.exchange.trained import Trained
from kao.files import new_file, tensors_of, writing

FILE = "kao.safetensors"
"""Its name in a folder that holds other forms of the same network, too."""

_VERSION = "1"
_MARK, _CONFIG = "kao", "config"


def write_own(trained: Trained, path: Path) -> tuple[str, ...]:
    """Write a network as one .safetensors file; its metadata has the whole configuration.

    Args:
        trained: The network.
        path: The file; folders on the way are made.

    Returns:
        Nothing to tell.

    Raises:
        OutputError: It cannot be written.
    """
    schedule, target = named(trained, "schedule"), named(trained, "target")
    metadata = {
        "format": "pt",
        _MARK: _VERSION,
        _CONFIG: trained.config.to_toml(),
        "name": trained.name,
        "weights": trained.kind,
        "images": str(trained.images),
        "size": str(trained.size),
        "schedule": str(schedule["kind"]),
        "target": str(target["kind"]),
        "label": label_formula(trained),
    }
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as beside:
        beside.write_bytes(safetensors.torch.save(dict(trained.weights), metadata=metadata))
    return ()


def _recognises(source: Source) -> bool:
    file = _file(source)
    return file is not None and _MARK in _metadata(file)


def _read(source: Source, facts: Facts) -> Model:
    """The network that `write_own` wrote.

    Raises:
        CheckpointError: The file is damaged, or of a later version of kao.
    """
    file = _file(source)
    metadata = _metadata(file) if file is not None else {}
    if file is None or metadata.get(_MARK) != _VERSION or _CONFIG not in metadata:
        raise CheckpointError(
            f"{source.origin} is of version {metadata.get(_MARK, 'unknown')} of kao's file of "
            f"weights, and this kao reads {_VERSION}: install a later kao."
        )
    config = load_config(metadata[_CONFIG], f"the configuration in {source.origin}")
    try:
        with tensors_of(file) as opened:
            weights = {name: opened.get_tensor(name) for name in opened.keys()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}).") from error
    return Model(
        network=config.network,
        channels=3,
        size=config.data.size,
        classes=config.conditions.names,
        schedule=config.schedule,
        target=config.target,
        learned_variance=config.loss.bound > 0,
        weights=weights,
        origin=source.origin,
        sampling=config.sampling,
        own=config,
    )


def _file(source: Source) -> Path | None:
    """The file that a source would be; None where there is none."""
    file = source.path / FILE if source.path.is_dir() else source.path
    return file if file.is_file() and file.suffix == ".safetensors" else None


def _metadata(file: Path) -> dict[str, Any]:
    """What a file of weights says of itself; empty where it cannot be read."""
    try:
        with tensors_of(file) as opened:
            return dict(opened.metadata() or {})
    except (OSError, SafetensorError):
        return {}


FORMAT = Format(
    says="a file that `kao export --to safetensors` wrote",
    recognises=_recognises,
    read=_read,
)
"""What we give away ourselves."""
