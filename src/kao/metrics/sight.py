"""A set of pictures as one feature space sees it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from kao.errors import DataError
from kao.metrics.checks import count_broken, refuse_broken
from kao.metrics.gaussians import ROWS, Gaussian, Moments
from kao.seeds import mixed_seed

Found = TypeVar("Found")

_DIRECTION, _SHUFFLE = 1, 2  # purposes of seeds


@dataclass(frozen=True, eq=False)
class Sight:
    """A set of pictures as one feature space sees it.

    What metrics need of it alone (moments, an order, its own pairs) is computed once.

    Attributes:
        space: Name of the feature space, "inception-f58cb9b6" for instance.
        features: (N, D), float32, on the CPU.
        probabilities: Of classes, (N, C), rows that sum to 1; None where the space has none.

    Raises:
        DataError: There is no picture, shapes do not fit, or a feature is not finite.
    """

    space: str
    features: Tensor
    probabilities: Tensor | None = None
    _found: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or not self.features.numel():
            raise DataError(
                f"Features of {self.space} are of shape {tuple(self.features.shape)}; expected "
                f"(N, D), a row for each of one or more pictures: give what the space returned."
            )
        if self.probabilities is not None and (
            self.probabilities.ndim != 2 or len(self.probabilities) != len(self.features)
        ):
            raise DataError(
                f"Probabilities of {self.space} are of shape {tuple(self.probabilities.shape)}; "
                f"expected {len(self.features)} rows, one a picture: give those of these pictures."
            )
        refuse_broken(count_broken(self.features), len(self.features), f" of {self.space}")

    def __len__(self) -> int:
        return len(self.features)

    @property
    def width(self) -> int:
        """Numbers a picture becomes, D."""
        return self.features.shape[1]

    def rows(self, indices: Tensor) -> "Sight":
        """Some of the pictures.

        Args:
            indices: (K,), int64; or bool, (N,).
        """
        probabilities = None if self.probabilities is None else self.probabilities[indices]
        return Sight(self.space, self.features[indices], probabilities)

    def once(self, what: str, find: Callable[[], Found]) -> Found:
        """Something of this set alone, found when it is first asked for and then kept.

        The floor, the classes and several drawn sets are held against one real set.

        Args:
            what: Its name; two things must not share one.
            find: Finds it.
        """
        if what not in self._found:
            self._found[what] = find()
        found: Found = self._found[what]
        return found

    @cached_property
    def gaussian(self) -> Gaussian:
        """Mean and covariance; see `Moments.gaussian`."""
        gathered = Moments()
        gathered.update(self.features)
        return gathered.gaussian()

    @cached_property
    def order(self) -> Tensor:
        """A shuffled order that depends on the features and not on the order they came in.

        What is split into parts is split along it: files sorted by kind would otherwise give
        parts of one kind each, and a folder listed in another order another score.

        Returns:
            (N,), int64: row numbers.
        """
        direction = torch.randn(
            self.width,
            generator=torch.Generator().manual_seed(mixed_seed(0, _DIRECTION)),
            dtype=torch.float64,
        )
        projected = torch.cat(
            [rows.double() @ direction for rows in torch.split(self.features, ROWS)]
        )
        shuffle = torch.randperm(
            len(self), generator=torch.Generator().manual_seed(mixed_seed(0, _SHUFFLE))
        )
        return projected.argsort(stable=True)[shuffle]
