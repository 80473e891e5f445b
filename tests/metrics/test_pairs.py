"""All pairs of two sets, in blocks."""

import pytest
import torch

from kao.metrics import pairs
from kao.metrics.pairs import row_blocks, squared_distances


def points(n, seed):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)).double()


def test_squared_distances_are_those_of_differences():
    x, y = points(7, 0), points(4, 1)
    expected = (x[:, None] - y).square().sum(2)
    assert torch.allclose(squared_distances(x, y), expected)


def test_no_squared_distance_is_negative():
    x = 1e3 + points(200, 0).float()
    assert squared_distances(x, x).min() >= 0


@pytest.mark.parametrize(("columns", "sizes"), [(3, [4, 4, 2]), (5, [2] * 5), (99, [1] * 10)])
def test_a_block_holds_no_more_numbers_than_it_may(columns, sizes, monkeypatch):
    monkeypatch.setattr(pairs, "_PAIRS", 14)
    blocks = list(row_blocks(10, columns))
    assert [len(block) for block in blocks] == sizes
    assert torch.cat(blocks).tolist() == list(range(10))
