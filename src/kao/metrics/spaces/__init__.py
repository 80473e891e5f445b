"""Feature spaces, by the names that users type."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import get_args

from kao.errors import ConfigError, near_miss
from kao.metrics.spaces.faces import Faces
from kao.metrics.spaces.features import Features
from kao.metrics.spaces.scripted import LPIPS, Inception, Resize
from kao.metrics.spaces.transformers import CLIP, DINOv2
from kao.metrics.spaces.wavelets import Wavelets
from kao.metrics.weights import INCEPTION, VGG16, Progress, Published, WeightFile, find


@dataclass(frozen=True)
class Opening:
    """How a space is to be opened.

    Attributes:
        weights: Where the user says that its weights are.
        resize: Of Inception.
        tell: Called with a sentence that a reader of the scores should know.
        progress: Called during a download.
    """

    weights: Path | None
    resize: Resize
    tell: Callable[[str], None]
    progress: Progress


def _inception(how: Opening) -> Features:
    return _read(INCEPTION, how, lambda weights: Inception(weights, resize=how.resize))


def _lpips(how: Opening) -> Features:
    return _read(VGG16, how, LPIPS)


def _read(
    published: Published, how: Opening, network: Callable[[WeightFile], Features]
) -> Features:
    """A network with the weights of a file; what is to be told of them only if they are some."""
    sentences: list[str] = []
    space = network(find(published, how.weights, tell=sentences.append, progress=how.progress))
    for sentence in sentences:
        how.tell(sentence)
    return space


SPACES: Mapping[str, Callable[[Opening], Features]] = MappingProxyType(
    {
        "wavelets": lambda how: Wavelets(),
        "faces": lambda how: Faces(),
        "inception": _inception,
        "lpips": _lpips,
        "dinov2": lambda how: DINOv2(how.weights, tell=how.tell),
        "clip": lambda how: CLIP(how.weights, tell=how.tell),
    }
)
"""What opens each feature space, by its name."""

WEIGHTED = ("inception", "lpips", "dinov2", "clip")
"""Spaces whose weights do not come with the package."""


def open_space(
    name: str,
    *,
    weights: Mapping[str, Path] = MappingProxyType({}),
    resize: Resize = "clean",
    tell: Callable[[str], None] = lambda sentence: None,
    progress: Progress = lambda arrived, total: None,
) -> Features:
    """Open a feature space, on the CPU; weights that are nowhere are downloaded.

    Args:
        name: One of SPACES.
        weights: Where weights are, by the names of spaces; those of others are passed over.
        resize: How Inception's pictures are resized; each of the others has one way.
        tell: Called with a sentence where weights are not, or not known to be, the published ones.
        progress: Called during a download with bytes so far and in all.

    Raises:
        ConfigError: There is no such space or resize, or the weights are missing or not what they
            should be.
        MissingExtraError: `transformers` is needed and is not installed.
        OutputError: A download cannot be written.
    """
    check_space(name)
    check_weights(weights)
    if resize not in get_args(Resize):
        raise ConfigError(f'unknown resize "{resize}": expected one of {get_args(Resize)}.')
    return SPACES[name](Opening(weights.get(name), resize, tell, progress))


def check_space(name: str) -> None:
    """Refuse a name that is no feature space.

    Raises:
        ConfigError: It is none.
    """
    if name not in SPACES:
        raise ConfigError(
            f'unknown feature space "{name}"{near_miss(name, SPACES)}; there are: '
            f"{', '.join(SPACES)}."
        )


def check_weights(weights: Mapping[str, Path]) -> None:
    """Refuse places of weights for spaces that take none.

    Args:
        weights: By the names of spaces.

    Raises:
        ConfigError: There is no such space, or its weights come with the package.
    """
    for name in weights:
        if name not in WEIGHTED:
            raise ConfigError(
                f'weights are given for "{name}"{near_miss(name, WEIGHTED)}; the feature spaces '
                f"that take some are: {', '.join(WEIGHTED)}."
            )
