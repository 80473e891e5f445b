"""How typical each sample is: which of them look most like real pictures, and which least."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kao.errors import DataError
from kao.metrics.pairs import row_blocks, squared_distances
from kao.metrics.sight import Sight
from kao.seeds import mixed_seed

K = 3
"""The neighbour whose distance is a picture's radius; as Kynkäänniemi et al. (2019)."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Samples by how typical they are.

    Attributes:
        order: Their numbers, int64, (Q,), the most typical first.
        values: The realism of each, float64, (Q,), in the order of the samples: at 1 a sample
            lies on the border of where real pictures are, above it within.  A copy of a real
            picture may have any value, inf included: typical is not new.
    """

    order: Tensor
    values: Tensor

    def sentence(self) -> str:
        """The result in words."""
        lowest, median, highest = self.values.sort().values[[0, len(self.values) // 2, -1]]
        return (
            f"Realism of {len(self.values):,} samples: {lowest:.2f} to {highest:.2f}, half of them "
            f"above {median:.2f}."
        )


def ranking(*, real: Sight, drawn: Sight, most: int = 5000, seed: int = 0) -> Ranking:
    """Rank samples by their realism, Kynkäänniemi et al. (2019, sec. 5).

    The realism of a sample is max_r radius(r) / |sample - r|, where the radius of a real picture
    r is the distance to its third nearest other one.  Only the half with the smaller radii takes
    part, as published: balls around real pictures that are rare themselves are so wide that
    anything lies in them.

    Args:
        real: Real pictures.
        drawn: Samples in the same space.
        most: Real pictures that take part, chosen at random where there are more.
        seed: Of the choice.

    Raises:
        DataError: There are fewer than eight real pictures, or the spaces differ.
    """
    if len(real) < 2 * (K + 1):
        raise DataError(
            f"{len(real)} real pictures are too few to tell what is typical; expected "
            f"{2 * (K + 1)} or more."
        )
    if (real.space, real.width) != (drawn.space, drawn.width):
        raise DataError(
            f"Samples seen by {drawn.space} ({drawn.width} numbers) cannot be held against real "
            f"pictures seen by {real.space} ({real.width}): look at both through one space."
        )
    generator = torch.Generator().manual_seed(mixed_seed(seed))
    chosen = torch.randperm(len(real), generator=generator)[:most]
    x = real.features[chosen].double()
    middle = x.mean(0)  # far from zero, squared distances lose digits
    x, samples = x - middle, drawn.features.double() - middle
    # The nearest of all is the picture itself.
    radii = _in_blocks(lambda gaps: gaps.kthvalue(K + 1, dim=1).values, x, x)
    dense = radii <= radii.median()
    values = _in_blocks(lambda gaps: _realism(gaps, radii[dense]), samples, x[dense])
    return Ranking(values.argsort(descending=True, stable=True), values)


def _in_blocks(reduced: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """A number for each x from its distances to all y, of which a block is held: (M,)."""
    blocks = row_blocks(len(x), len(y))
    return torch.cat([reduced(squared_distances(x[rows], y).sqrt()) for rows in blocks])


def _realism(distance: Tensor, radii: Tensor) -> Tensor:
    """The largest ratio: (M, N), (N,) to (M,)."""
    # A picture that is there four times has a ball of no width, and lies on its border.
    ratio = torch.where((distance == 0) & (radii == 0), 1.0, radii / distance)
    return ratio.amax(1)
