"""All pairs of two sets, some million at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

_PAIRS = 2**22  # numbers that are held at a time


def row_blocks(rows: int, columns: int) -> Iterator[Tensor]:
    """Row numbers, int64, in blocks that make a table of some million numbers each.

    Args:
        rows: Of the table; in order, each once.
        columns: Of the table, at least 1.
    """
    yield from torch.split(torch.arange(rows), max(1, _PAIRS // columns))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x - y|^2 = |x|^2 - 2 x.y + |y|^2 of all pairs, by one matrix product.

    It cancels where x and y are nearly equal or both far from zero: take a common centre off both
    first, and take distances that must be exact from differences.

    Args:
        x: (M, D).
        y: (N, D), of the same dtype.

    Returns:
        (M, N), 0 or more.
    """
    squares = x.square().sum(1)[:, None] + y.square().sum(1)
    return squares.addmm_(x, y.T, alpha=-2).clamp_(min=0)
