"""Changes of a tensor that can be undone: one weight as two programs hold it."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Change(Protocol):
    """A change of a tensor that can be undone."""

    def to_ours(self, theirs: Tensor) -> Tensor:
        """The tensor as our network holds it."""

    def to_theirs(self, ours: Tensor) -> Tensor:
        """The tensor as theirs holds it; undoes `to_ours`."""


@dataclass(frozen=True)
class Pointwise:
    """One matrix, as a linear layer or as a convolution with a kernel of one pixel.

    Attributes:
        ours, theirs: Dimensions of the kernel here and there: 0 for a linear layer, (O, I); 1 for
            (O, I, 1); 2 for (O, I, 1, 1).
    """

    ours: int = 2
    theirs: int = 0

    def to_ours(self, theirs: Tensor) -> Tensor:
        """The matrix with as many dimensions of length 1 behind it as ours has."""
        return theirs.reshape(*theirs.shape[:2], *(1,) * self.ours)

    def to_theirs(self, ours: Tensor) -> Tensor:
        """The matrix with as many dimensions of length 1 behind it as theirs has."""
        return ours.reshape(*ours.shape[:2], *(1,) * self.theirs)


@dataclass(frozen=True)
class Permuted:
    """Entries along a dimension in another order.

    Attributes:
        order: Entry i of ours is entry order[i] of theirs.
        dim: The dimension.
    """

    order: tuple[int, ...]
    dim: int = 0

    def to_ours(self, theirs: Tensor) -> Tensor:
        """The tensor in our order."""
        return theirs.index_select(self.dim, torch.tensor(self.order))

    def to_theirs(self, ours: Tensor) -> Tensor:
        """The tensor in their order."""
        return ours.index_select(self.dim, torch.tensor(self.order).argsort())


@dataclass(frozen=True)
class Transposed:
    """Two dimensions in each other's place.

    Attributes:
        first, second: The dimensions.
    """

    first: int = -2
    second: int = -1

    def to_ours(self, theirs: Tensor) -> Tensor:
        """The tensor with its dimensions exchanged."""
        return theirs.transpose(self.first, self.second).contiguous()

    def to_theirs(self, ours: Tensor) -> Tensor:
        """The same."""
        return self.to_ours(ours)


@dataclass(frozen=True)
class Scaled:
    """All entries multiplied by a number.

    Attributes:
        factor: Ours is theirs times this; not 0.
    """

    factor: float

    def to_ours(self, theirs: Tensor) -> Tensor:
        """The tensor times the factor."""
        return theirs * self.factor

    def to_theirs(self, ours: Tensor) -> Tensor:
        """The tensor divided by the factor."""
        return ours / self.factor


@dataclass(frozen=True)
class Extended:
    """Rows of zeros behind theirs: what our table has and theirs knows nothing of.

    Attributes:
        rows: How many.
    """

    rows: int = 1

    def to_ours(self, theirs: Tensor) -> Tensor:
        """The tensor with rows of zeros behind it."""
        return torch.cat([theirs, theirs.new_zeros(self.rows, *theirs.shape[1:])])

    def to_theirs(self, ours: Tensor) -> Tensor:
        """The tensor without those rows, whatever they have become."""
        return ours[: -self.rows]


@dataclass(frozen=True)
class Reshaped:
    """The same numbers in the same order, in another shape.

    Attributes:
        ours, theirs: The shapes.
    """

    ours: tuple[int, ...]
    theirs: tuple[int, ...]

    def to_ours(self, theirs: Tensor) -> Tensor:
        """The tensor in our shape."""
        return theirs.reshape(self.ours)

    def to_theirs(self, ours: Tensor) -> Tensor:
        """The tensor in their shape."""
        return ours.reshape(self.theirs)
