"""Opening what an evaluation looks through, and keeping what it saw of real pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from kao.errors import ConfigError
from kao.evaluation.pictures import PictureSet
from kao.evaluation.planning import Plan
from kao.evaluation.protocols import Protocol
from kao.evaluation.views import Looking
from kao.files import writing
from kao.metrics import (
    Features,
    Reference,
    check_weights,
    open_space,
    reference_of,
    save_reference,
)

KEPT = 5_000
"""Features of real pictures that a reference file keeps, for metrics that need them."""


def open_spaces(
    protocol: Protocol,
    *,
    weights: Mapping[str, Path] = MappingProxyType({}),
    tell: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[int, int], None] = lambda arrived, total: None,
) -> dict[str, Features]:
    """The feature spaces that a protocol needs, by their names, on the CPU.

    Args:
        protocol: What is measured, and how pictures are resized.
        weights: Where weights are, by the names of spaces.
        tell: Called with a sentence where weights are not the published ones.
        progress: Called during a download with bytes so far and in all.

    Raises:
        ConfigError, MissingExtraError, OutputError: As `kao.metrics.open_space`.
    """
    check_weights(weights)
    return {
        name: open_space(
            name, weights=weights, resize=protocol.resize, tell=tell, progress=progress
        )
        for name in Plan.of(protocol).spaces
    }


def keep_reference(
    file: Path, real: PictureSet | Reference, looking: Looking, *, space: str
) -> None:
    """Write the statistics of all real pictures in one space; of several processes one writes.

    Args:
        file: Ends in .npz; folders on the way are made.
        real: The real pictures.
        looking: With the space.
        space: Its name.

    Raises:
        ConfigError: They are statistics already.
        OutputError: The file cannot be written.
    """
    if isinstance(real, Reference):
        raise ConfigError("--save-reference writes what --real was read from: leave one out.")
    seen = looking.at(real, space)
    if looking.processes.main:
        resize = looking.spaces[space].resize
        made = reference_of(seen, resize=resize, fingerprint=real.fingerprint, keep=KEPT)
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        save_reference(file, made)
