"""What a format of other people's weights is: how it is recognised, and how it is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kao.exchange.located import Source
from kao.exchange.model import Model

Facts = Mapping[str, Any]
"""What a user says of a model that its files leave open, by name; values as TOML has them."""


@dataclass(frozen=True)
class Format:
    """One way in which weights are published.

    Attributes:
        says: What it is, as the middle of a sentence: "a pipeline folder of diffusers".
        recognises: Whether a source is of this format, by its files and names alone.
        read: The model of a source that was recognised, with the facts that the user gave; raises
            a ConfigError that names what cannot be expressed here, and a CheckpointError for
            weights that are missing or damaged.
        facts: What a user may say of it, each with what it means and what is assumed.
        several: Whether it may hold several sets of weights, which are asked for by a name.
    """

    says: str
    recognises: Callable[[Source], bool]
    read: Callable[[Source, Facts], Model]
    facts: Mapping[str, str] = field(default_factory=dict)
    several: bool = False
