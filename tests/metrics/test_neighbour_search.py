"""The search for the training pictures nearest to samples."""

import pytest
import torch

from kao.errors import DataError
from kao.metrics.neighbours import (
    VIEWS,
    coarse,
    compare,
    nearest,
    nearest_shifted,
    pixels,
    usual_distance,
    without_twins,
)


def pictures(count, *, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator).byte()


def by_hand(picture, other, view):
    """Root mean square difference, and of the mirrored picture."""
    pair = (picture[None], picture[None].flip(-1))
    return [float((view(p) - view(other[None])).double().square().mean().sqrt()) for p in pair]


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_neighbours_are_those_of_a_search_by_hand(view, chunk):
    samples, others = pictures(3, seed=1), pictures(20)
    found = nearest(samples, others, view, k=4, chunk=chunk)
    for i, sample in enumerate(samples):
        pairs = [by_hand(sample, other, view) for other in others]
        order = sorted(range(len(others)), key=lambda j: min(pairs[j]))[:4]
        assert found.index[i].tolist() == order
        assert found.distance[i].tolist() == pytest.approx([min(pairs[j]) for j in order])
        assert found.mirrored[i].tolist() == [pairs[j][1] < pairs[j][0] for j in order]


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_copy_and_a_mirrored_copy_are_found_at_no_distance(view):
    others = pictures(50)
    samples = torch.stack([others[17], others[31].flip(-1)])
    found = nearest(samples, others, view, k=1, chunk=16)
    assert found.index.flatten().tolist() == [17, 31]
    assert found.distance.flatten().tolist() == [0, 0]
    assert found.mirrored.flatten().tolist() == [False, True]


def test_a_copy_among_near_copies_is_told_from_them():
    # One value in 768 differs by one grey level: 0.04, lost in the squares of bright pictures.
    bright = torch.full((1, 3, 16, 16), 250, dtype=torch.uint8)
    near = bright.clone()
    near[0, 0, 3, 5] += 1
    found = nearest(bright, torch.cat([near, bright]), pixels, k=2)
    assert found.index.tolist() == [[1, 0]]
    assert found.distance[0].tolist() == pytest.approx([0, 768**-0.5])


def test_a_picture_is_not_its_own_neighbour():
    others = pictures(12)
    found = nearest(others, others, pixels, k=11, own=torch.arange(12), chunk=5)
    assert all(i not in row for i, row in enumerate(found.index.tolist()))
    assert found.distance.isfinite().all()


def test_neighbours_come_in_order_and_as_many_as_there_are():
    found = nearest(pictures(2, seed=3), pictures(4), pixels, k=9)
    assert found.index.shape == (2, 4)
    assert (found.distance.diff(dim=1) >= 0).all()


def test_the_coarse_view_does_not_see_fine_noise():
    smooth = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
    noise = torch.tensor([-40, 40]).repeat(16)
    checked = (smooth + (noise[:, None] * noise / 40)).byte()
    assert (pixels(checked) - pixels(smooth)).square().mean().sqrt() == pytest.approx(40)
    assert (coarse(checked) - coarse(smooth)).abs().max() < 1e-3


def test_twins_of_a_nearer_neighbour_are_passed_over():
    first, second, third = pictures(3)
    others = torch.stack([first, first.flip(-1), second, first, third, second.flip(-1)])
    found = nearest(pictures(1, seed=9), others, pixels, k=6)
    kept = without_twins(found, others, k=3)
    picture_of = [0, 0, 2, 0, 4, 2]
    assert sorted(picture_of[index] for index in kept.index[0].tolist()) == [0, 2, 4]
    assert (kept.distance.diff(dim=1) >= 0).all()


def test_where_all_are_twins_the_row_is_filled_with_them():
    others = pictures(1).expand(4, -1, -1, -1)
    kept = without_twins(nearest(pictures(1, seed=9), others, pixels, k=4), others, k=3)
    assert kept.index.shape == (1, 3)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_what_is_usual_is_the_median_to_the_nearest_other(view):
    real = pictures(9)
    rows = [
        min(min(by_hand(a, b, view)) for j, b in enumerate(real) if j != i)
        for i, a in enumerate(real)
    ]
    usual = usual_distance(real, view)
    assert usual.distance == pytest.approx(sorted(rows)[4])
    assert (usual.asked, usual.twins) == (9, 0)


def test_a_set_with_every_picture_mirrored_seems_no_closer_than_it_is():
    real = pictures(9)
    doubled = torch.cat([real, real.flip(-1)])
    alone, usual = usual_distance(real, pixels), usual_distance(doubled, pixels)
    assert usual.twins == 1
    assert usual.distance == pytest.approx(alone.distance)


def test_of_many_pictures_some_are_asked():
    assert usual_distance(pictures(40), pixels, most=5).asked == 5


def test_the_sentence_tells_copies_from_new_pictures():
    real = pictures(30)
    copied, new = compare(real[:5], real, k=2), compare(pictures(5, seed=1), real, k=2)
    assert "training pictures: 0.0 by pixels and 0.0 by 8 x 8 means for 5 samples" in (
        copied.sentence()
    )
    assert "0.0 by pixels" not in new.sentence()
    assert "the nearest of 30 training pictures" in new.sentence()
    assert "for 30 real pictures." in new.sentence()
    twice = compare(real[:5], torch.cat([real, real]), k=2)
    assert "100% of them occur again, mirrored or not" in twice.sentence()


def test_one_training_picture_is_refused():
    with pytest.raises(DataError, match="train on two pictures or more"):
        compare(pictures(1), pictures(1), k=1)


def moved(picture, right, down):
    """What a camera sees that was turned a little: new pixels come in at two edges."""
    fresh = pictures(1, size=picture.shape[-1], seed=77)[0]
    wide = torch.cat([fresh, picture, fresh], dim=-1)
    tall = torch.cat([wide.flip(-2), wide, wide.flip(-2)], dim=-2)
    side = picture.shape[-1]
    return tall[:, side - down : 2 * side - down, side - right : 2 * side - right]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("right", "down"), [(0, 0), (1, 0), (0, -2), (2, 2), (-2, 1)])
def test_a_copy_that_was_shifted_is_found_at_no_distance(right, down, mirrored):
    others = pictures(20, size=32)
    sample = moved(others[7], right, down)
    sample = (sample.flip(-1) if mirrored else sample)[None]
    found = nearest_shifted(sample, others, k=3)
    assert (found.index[0, 0], found.distance[0, 0]) == (7, 0)
    assert found.mirrored[0, 0] == mirrored
    assert found.distance[0, 1] > 50


def test_small_pictures_are_shifted_by_one_pixel_only():
    others = pictures(20, size=16)
    near, far = (nearest_shifted(moved(others[7], by, 0)[None], others, k=1) for by in (1, 2))
    assert near.distance.item() == 0
    assert far.distance.item() > 50


def test_shifts_are_searched_among_those_that_are_near_by_means():
    others = pictures(40, size=32)
    sample = pictures(1, size=32, seed=5)
    few = nearest_shifted(sample, others, k=4, candidates=4)
    assert set(few.index[0].tolist()) == set(nearest(sample, others, coarse, k=4).index[0].tolist())
    every = nearest_shifted(sample, others, k=40, candidates=40)
    assert every.index.shape == (1, 40)
    assert (every.distance.diff(dim=1) >= 0).all()
    assert every.distance[0, 0] <= few.distance[0, 0]


def test_a_shifted_search_passes_over_the_picture_itself():
    others = pictures(12, size=32)
    found = nearest_shifted(others, others, k=11, own=torch.arange(12))
    assert all(i not in row for i, row in enumerate(found.index.tolist()))


def test_what_is_known_of_the_others_is_not_computed_again():
    samples, others = pictures(3, seed=1), pictures(20)
    asked = []

    def view(images):
        asked.append(len(images))
        return pixels(images)

    found = nearest(samples, others, view, k=4, seen=pixels(others), chunk=7)
    assert torch.equal(found.index, nearest(samples, others, pixels, k=4).index)
    assert asked == [3, 3]


def test_twins_among_pictures_that_are_nearly_white_are_told_apart():
    # Squares of 127 a value: a product that cancels must still tell 2 grey levels from 3.
    base = pictures(1, size=32) // 64 + 250
    others = torch.cat([base, base - 1, base - 4])
    kept = without_twins(nearest(base, others, pixels, k=3), others, k=2)
    assert kept.index[0].tolist() == [0, 2]
