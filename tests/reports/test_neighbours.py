"""The sheet of training pictures nearest to samples."""

import numpy as np
import pytest
import torch

from kao.metrics.neighbours import compare
from kao.reports.neighbours import neighbours_sheet


def pictures(count, *, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator).byte()


@pytest.mark.parametrize("size", [8, 16, 128])
@pytest.mark.parametrize("count", [1, 3])
def test_the_sheet_shows_the_sample_and_its_copy(size, count):
    real = pictures(6, size=size)
    sheet = np.asarray(neighbours_sheet(compare(real[:count], real, k=3)))
    assert sheet.shape[1] > 400
    colour = real[0, :, 0, 0].numpy()
    first = (sheet == colour).all(-1)
    # The corner pixel of sample 0 is drawn three times: large, and as a neighbour in two rows.
    assert first.sum() >= 2 * round(96 / size) ** 2 + (2 * round(96 / size)) ** 2
