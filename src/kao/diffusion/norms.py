"""Norms: the penalty of a residual in the network's output, element by element."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from kao.errors import ConfigError

Norm = Callable[[Tensor], Tensor]
"""Penalty of a residual, element by element."""


def l2(residual: Tensor) -> Tensor:
    """r^2."""
    return residual.square()


def l1(residual: Tensor) -> Tensor:
    """|r|."""
    return residual.abs()


@dataclass(frozen=True)
class Huber:
    """r^2 / 2 up to delta, then the tangent line delta (|r| - delta / 2) (Huber 1964).

    Attributes:
        delta: Where the parabola ends, in units of the network's output, above 0.

    Raises:
        ConfigError: delta is not a positive number.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a delta that leaves no parabola."""
        if not 0 < self.delta < math.inf:
            raise ConfigError(
                f"norm.delta = {self.delta}, but it must be a positive number: 1 is customary."
            )

    def __call__(self, residual: Tensor) -> Tensor:
        """The penalty of each element."""
        near = residual.abs().clamp(max=self.delta)
        return near * (residual.abs() - near / 2)


@dataclass(frozen=True)
class Mixed:
    """share |r| + (1 - share) r^2.

    Attributes:
        share: How much of the penalty is L1, in [0, 1].

    Raises:
        ConfigError: share is outside [0, 1].
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if not 0 <= self.share <= 1:
            raise ConfigError(
                f"norm.share = {self.share}, but the share of L1 lies between 0 and 1: "
                f"0 is all L2, 1 is all L1."
            )

    def __call__(self, residual: Tensor) -> Tensor:
        """The penalty of each element."""
        return self.share * l1(residual) + (1 - self.share) * l2(residual)


NORMS: dict[str, Norm | type[Huber] | type[Mixed]] = {
    "l2": l2,
    "l1": l1,
    "huber": Huber,
    "mixed": Mixed,
}
"""A function has no options; a class is instantiated with them."""
