"""The sheets of copies and of typical samples."""

import numpy as np
import pytest
import torch

from kao.metrics import CopyFinder, Sight, ranking
from kao.reports.copies import copies_sheet, typical_sheet


def pictures(count, *, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator).byte()


def shown(sheet, colour):
    """Pixels of a colour."""
    return int((np.asarray(sheet) == colour.numpy()).all(-1).sum())


@pytest.mark.parametrize("size", [8, 16, 128])
def test_a_copy_is_drawn_beside_what_it_was_copied_from(size):
    train = pictures(30, size=size)
    samples = torch.cat([pictures(3, size=size, seed=1), train[4:5]])
    sheet = copies_sheet(CopyFinder(train)(samples), samples, train)
    tile = max(1, round(96 / size)) ** 2
    assert shown(sheet, train[4, :, 2, 3]) >= 2 * tile
    assert shown(sheet, samples[0, :, 2, 3]) < tile


def test_a_mirrored_training_picture_is_drawn_as_it_was_compared():
    train = pictures(30)
    samples = train[4:5].flip(-1)
    sheet = np.asarray(copies_sheet(CopyFinder(train)(samples), samples, train))
    left = sheet[:, 18 : 18 + 96]
    assert any(
        np.array_equal(left[y : y + 96], sheet[y : y + 96, 18 + 98 : 18 + 98 + 96])
        and len(np.unique(left[y : y + 96])) > 100
        for y in range(len(sheet) - 96)
    )


def test_where_none_is_flagged_the_nearest_are_shown():
    train, samples = pictures(30), pictures(6, seed=1)
    found = CopyFinder(train)(samples)
    assert not len(found.flagged)
    sheet = copies_sheet(found, samples, train)
    assert all(shown(sheet, sample[:, 2, 3]) for sample in samples)


def test_of_many_copies_the_first_are_shown():
    train = pictures(30)
    small, large = (
        copies_sheet(CopyFinder(train)(train), train, train, most=most) for most in (4, 24)
    )
    assert small.height < large.height


@pytest.mark.parametrize("count", [1, 2, 30])
def test_the_most_and_the_least_typical_are_drawn(count):
    samples = pictures(count)
    features = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    real = Sight("a-space", torch.randn(40, 4, generator=torch.Generator().manual_seed(2)))
    found = ranking(real=real, drawn=Sight("a-space", features))
    sheet = typical_sheet(samples, found, count=3)
    ends = [found.order[0], found.order[-1]]
    assert all(shown(sheet, samples[i, :, 2, 3]) for i in ends)
    if count == 30:
        assert not shown(sheet, samples[found.order[15], :, 2, 3])
