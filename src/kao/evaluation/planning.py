"""Which scores are to be measured in which feature spaces."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from kao.diffusion import SAMPLERS
from kao.errors import ConfigError, near_miss
from kao.evaluation.protocols import Protocol, protocol_of
from kao.metrics import METRICS
from kao.metrics.spaces import check_space

LPIPS = "lpips"
"""The space that holds pairs of pictures alone, and what is measured in it."""

OTHERS = ("drift", "diversity", LPIPS, "copies")
"""What is measured besides `METRICS`: colours, pairs of pictures, copies of training pictures."""


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        pairs: Names of a metric and of the space to measure it in.
        others: Of `OTHERS`.
        main: The space in which pictures are told apart where a score needs no space of its own.
    """

    pairs: tuple[tuple[str, str], ...]
    others: tuple[str, ...]
    main: str

    @classmethod
    def of(cls, protocol: Protocol) -> Self:
        """What a protocol asks for.

        A metric is measured in each of the protocol's spaces that it is defined in; where it is
        defined in none of them, in the space that it is usually measured in.

        Raises:
            ConfigError: There is no such metric or space.
        """
        check_names(metrics=protocol.metrics, features=protocol.features)
        pairs = [
            (name, space)
            for name in protocol.metrics
            if name not in OTHERS
            for space in _fitting(name, protocol.features) or METRICS[name].spaces[:1]
        ]
        others = tuple(name for name in protocol.metrics if name in OTHERS)
        return cls(tuple(pairs), others, protocol.features[0])

    @property
    def measured(self) -> tuple[str, ...]:
        """The spaces of `pairs`, each once."""
        return tuple(dict.fromkeys(space for _, space in self.pairs))

    @property
    def spaces(self) -> tuple[str, ...]:
        """All feature spaces that are needed, each once."""
        needed = [*self.measured]
        needed += [self.main] if {"diversity", "copies"} & set(self.others) else []
        needed += [LPIPS] if LPIPS in self.others else []
        return tuple(dict.fromkeys(needed))


def asked_protocol(
    name: str,
    *,
    n: int | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    metrics: Sequence[str] = (),
    features: Sequence[str] = (),
) -> Protocol:
    """A protocol by its name, with what a user asks for otherwise.

    Args:
        name: Of the protocol.
        n: Pictures to draw.
        steps: Of the sampler.
        sampler: Its name.
        metrics: Names; none: the protocol's.
        features: Names of spaces; none: the protocol's.

    Raises:
        ConfigError: A name is not known, or a metric is defined in none of the spaces asked for.
    """
    check_names(metrics=metrics, features=features)
    if sampler is not None and sampler not in SAMPLERS:
        raise ConfigError(
            f'There is no sampler "{sampler}"{near_miss(sampler, SAMPLERS)}; there are: '
            f"{', '.join(SAMPLERS)}."
        )
    asked = protocol_of(name).changed(
        n=n,
        steps=steps,
        sampler=(sampler, SAMPLERS[sampler]()) if sampler else None,
        metrics=metrics,
        features=features,
    )
    if features:
        check_defined(asked.metrics, asked.features)
    return asked


def check_names(*, metrics: Sequence[str] = (), features: Sequence[str] = ()) -> None:
    """Refuse names of what is no metric and no feature space.

    Raises:
        ConfigError: There is one, or none of `features` is a space to measure in.
    """
    known = (*METRICS, *OTHERS)
    for name in metrics:
        if name not in known:
            raise ConfigError(
                f'There is no metric "{name}"{near_miss(name, known)}; there are: '
                f"{', '.join(known)}."
            )
    for name in features:
        check_space(name)
        if name == LPIPS:
            raise ConfigError(
                f'"{LPIPS}" compares two pictures and not two sets, so it is no space to measure '
                f"in: name it as a metric, --metrics {LPIPS}."
            )


def check_defined(metrics: Sequence[str], features: Sequence[str]) -> None:
    """Refuse metrics that are defined in none of the spaces that a user asked for.

    Args:
        metrics: Known ones.
        features: Known ones.

    Raises:
        ConfigError: There is one.
    """
    for name in metrics:
        if name not in OTHERS and not _fitting(name, features):
            own = METRICS[name].spaces
            raise ConfigError(
                f'"{name}" is not defined in the space {" or ".join(features)}, only in '
                f"{' and '.join(own)}: ask for --features {own[0]}, or leave --features out."
            )


def _fitting(metric: str, features: Sequence[str]) -> list[str]:
    """Those of the spaces that a metric is defined in."""
    own = METRICS[metric].spaces
    return [space for space in features if not own or space in own]
