"""Samples ranked by how typical they are."""

import pytest
import torch

from kao.errors import DataError
from kao.metrics import Sight, pairs, ranking


def points(n, width=8, seed=0, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(n, width, generator=generator)


def seen(features):
    return Sight("a-space", features)


def by_hand(real, sample):
    """The largest ratio of a radius to a distance, among the half with the smaller radii."""
    radii = [sorted((r - o).norm().item() for o in real)[3] for r in real]  # itself is the first
    middle = sorted(radii)[(len(radii) - 1) // 2]
    kept = [(r, radius) for r, radius in zip(real, radii, strict=True) if radius <= middle]
    return max(radius / (sample - r).norm().item() for r, radius in kept)


def test_realism_is_that_of_a_computation_by_hand():
    real, samples = points(30).double(), points(5, seed=1).double()
    found = ranking(real=seen(real.float()), drawn=seen(samples.float()))
    expected = [by_hand(real, sample) for sample in samples]
    assert found.values.tolist() == pytest.approx(expected, rel=1e-4)


def test_the_further_from_real_pictures_the_less_typical():
    real = points(300)
    direction = points(1, seed=2)[0]
    samples = torch.stack([s * direction for s in (0.0, 2.0, 4.0, 8.0)])
    found = ranking(real=seen(real), drawn=seen(samples))
    assert found.order.tolist() == [0, 1, 2, 3]
    assert found.values[0] > 1 > found.values[2]


def test_the_sentence_tells_the_range():
    real, samples = points(30), points(3, seed=1)
    found = ranking(real=seen(real), drawn=seen(samples))
    low, middle, high = sorted(found.values.tolist())
    assert found.sentence() == (
        f"Realism of 3 samples: {low:.2f} to {high:.2f}, half of them above {middle:.2f}."
    )


def test_a_copy_is_as_typical_as_can_be_and_not_refused():
    real = points(100)
    found = ranking(real=seen(real), drawn=seen(torch.cat([points(1, shift=9.0), real[:1]])))
    assert found.order.tolist() == [1, 0]
    assert not found.values.isnan().any()


def test_pictures_that_are_there_many_times_do_not_break_the_ranking():
    real = torch.cat([points(1).expand(10, -1), points(10, seed=1)])
    found = ranking(
        real=seen(real), drawn=seen(torch.cat([real[:1], points(1, seed=3, shift=5.0)]))
    )
    assert not found.values.isnan().any()
    assert found.order.tolist() == [0, 1]


def test_of_many_real_pictures_some_take_part_whatever_their_order():
    real, samples = points(200), points(3, seed=1)
    a, b = (ranking(real=seen(real), drawn=seen(samples), most=50, seed=s) for s in (0, 1))
    whole, all_of_them = (ranking(real=seen(real), drawn=seen(samples), most=n) for n in (200, 900))
    assert torch.equal(whole.values, all_of_them.values)
    assert not torch.equal(a.values, b.values)


def test_it_does_not_matter_how_many_distances_are_held_at_a_time(monkeypatch):
    real, samples = points(60), points(25, seed=1)
    at_once = ranking(real=seen(real), drawn=seen(samples))
    monkeypatch.setattr(pairs, "_PAIRS", 150)
    in_blocks = ranking(real=seen(real), drawn=seen(samples))
    assert torch.equal(in_blocks.order, at_once.order)
    assert in_blocks.values.tolist() == pytest.approx(at_once.values.tolist())


def test_a_far_centre_costs_no_digits():
    real, samples = points(60), points(5, seed=1)
    near = ranking(real=seen(real), drawn=seen(samples)).values
    far = ranking(real=seen(real + 1024), drawn=seen(samples + 1024)).values
    assert far.tolist() == pytest.approx(near.tolist(), rel=1e-3)


def test_few_pictures_and_other_spaces_are_refused():
    with pytest.raises(DataError, match="7 real pictures are too few"):
        ranking(real=seen(points(7)), drawn=seen(points(5)))
    with pytest.raises(DataError, match="through one space"):
        ranking(real=seen(points(10)), drawn=Sight("another", points(5)))
