"""Copies are flagged, and of new pictures one in a hundred."""

import pytest
import torch
from torch.nn import functional as F

from kao.data import open_source
from kao.data.pictures import fit
from kao.data.toy_faces import ToyFaces
from kao.errors import DataError
from kao.metrics import CopyFinder, Wavelets
from kao.metrics.copy_line import CHANCE
from kao.metrics.neighbours import coarse

SIZE, FEW = 32, 50
FILES = ["anime64.zip", "cats128.zip", "faces200.zip"]


def as_bytes(x):
    return x.round().clamp(0, 255).byte()


def noisy(x):
    return as_bytes(x + 12 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)))


def blurred(x):
    return as_bytes(F.avg_pool2d(F.pad(x.float(), (1, 1, 1, 1), mode="replicate"), 3, 1))


def shifted(x):
    return torch.cat([x[..., 1:], x[..., -1:]], dim=-1)


def mirrored(x):
    return x.flip(-1)


def recoloured(x):
    return as_bytes(x + torch.tensor([6.0, -4.0, 5.0]).view(3, 1, 1))


def all_of_it(x):
    return noisy(recoloured(shifted(mirrored(x))))


SPOILT = [noisy, blurred, shifted, mirrored, recoloured, all_of_it]


@pytest.fixture(scope="module")
def toy():
    """Toy faces, in no order."""
    source = ToyFaces(700, size=SIZE)
    return torch.stack([source[i].image for i in range(len(source))])


@pytest.fixture(scope="module")
def finder(toy):
    return CopyFinder(toy[:FEW])


@pytest.fixture(scope="module", params=FILES)
def real(request):
    """Real pictures in a random order, read once."""
    return {"name": request.param}


@pytest.fixture
def pictures(real, real_data):
    if "images" not in real:
        source = open_source(str(real_data(real["name"])), size=SIZE)
        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))[:2000]
        images = [fit(source[i].image, size=SIZE, crop="centre", name="") for i in order.tolist()]
        real["images"] = torch.stack(images)
    return real["images"]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_copies_of_fifty_toy_faces_are_flagged(spoil, finder, toy):
    found = finder(spoil(toy[:FEW]))
    assert found.rate.low > 0.8
    assert (found.index[found.flagged] == found.flagged).double().mean() > 0.95


def test_of_new_toy_faces_about_one_in_a_hundred_is_flagged(finder, toy):
    assert finder(toy[FEW:]).rate.value <= 3 * CHANCE
    large = CopyFinder(toy[:200], held=toy[200:400])
    assert large(toy[400:]).rate.low <= CHANCE
    assert large.real.low <= CHANCE <= large.real.high


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_copies_of_fifty_real_pictures_are_flagged(spoil, pictures):
    assert CopyFinder(pictures[:FEW])(spoil(pictures[:FEW])).rate.low > 0.8


def test_of_held_out_real_pictures_about_one_in_a_hundred_is_flagged(pictures):
    half = len(pictures) // 2
    train, held = pictures[:half], pictures[half:]
    finder = CopyFinder(train, held=held)
    assert 0.003 <= finder.real.value <= 0.03


def test_a_line_that_some_held_out_pictures_drew_holds_for_others(pictures):
    train, first, others = pictures[:600], pictures[600:900], pictures[900:]
    found = CopyFinder(train, held=first)(others)
    twins = (found.ratio < 0.5).double().mean().item()  # of training pictures: rightly flagged
    assert found.rate.value - twins <= 0.03


def test_a_mixture_of_copies_and_new_pictures_has_their_share(toy):
    finder = CopyFinder(toy[:200], held=toy[200:400])
    found = finder(torch.cat([noisy(toy[:60]), toy[400:540]]))
    assert found.rate.low <= 0.3 <= found.rate.high
    assert set(range(60)) <= set(found.flagged.tolist())
    assert (found.surprise[found.flagged].diff() >= 0).all()
    assert (found.surprise[found.flagged] < found.line).all()
    assert found.rate.samples == 200


def test_what_is_told_of_a_copy_is_what_it_was_made_of(finder, toy):
    found = finder(torch.stack([toy[11], toy[12].flip(-1)]))
    assert found.index.tolist() == [11, 12]
    assert found.mirrored.tolist() == [False, True]
    assert found.distance.tolist() == [0, 0]
    assert found.ratio.tolist() == [0, 0]


def test_a_training_set_that_holds_all_twice_is_no_set_of_copies(toy):
    once, new = toy[:100], toy[100:300]
    finder = CopyFinder(torch.cat([once, once.flip(-1)]), held=new)
    assert finder(noisy(once[:50])).rate.low > 0.8
    assert finder(toy[300:600]).rate.value <= 3 * CHANCE


def test_held_out_pictures_that_were_trained_on_draw_no_line(toy):
    train, held = toy[:200], toy[200:400]
    clean = CopyFinder(train, held=held)
    mixed = CopyFinder(train, held=torch.cat([held, train[:40], blurred(train[40:60])]))
    assert "60 more occur again" in mixed.calibration
    assert mixed(toy[:1]).line == pytest.approx(clean(toy[:1]).line, abs=0.3)


def test_where_no_picture_is_held_out_training_pictures_draw_the_line(finder, toy):
    assert "by 50 training pictures" in finder.calibration
    assert "no held-out ones" in finder.calibration
    few = CopyFinder(toy[:100], held=toy[100:150])
    assert "since 50 held-out ones are too few" in few.calibration
    enough = CopyFinder(toy[:100], held=toy[100:200])
    assert "held-out pictures" in enough.calibration
    assert "each held against the others" not in enough.calibration


def test_a_feature_space_sees_copies_with_a_part_exchanged(toy):
    train, held = toy[:200], toy[200:400]
    copied = train[:60].clone()
    copied[..., -9:, :] = toy[400:460, :, -9:, :]  # other shoulders
    plain, seeing = (CopyFinder(train, held=held, space=space) for space in (None, Wavelets()))
    found = seeing(copied)
    assert found.rate.value > plain(copied).rate.value
    assert "by wavelets-1" in found.view
    assert seeing(toy[460:660]).rate.value <= 3 * CHANCE


class Coarse:
    """Means over 8 x 8 places, each in a unit of its own."""

    name, width, resize = "coarse-1", 192, "none"

    def __init__(self, units):
        self.units = units

    def __call__(self, images):
        return coarse(images) * self.units


def test_the_units_of_features_do_not_matter(toy):
    exponents = torch.randint(-9, 10, (192,), generator=torch.Generator().manual_seed(0))
    one, other = (
        CopyFinder(toy[:60], space=Coarse(units))(blurred(toy[30:90]))
        for units in (torch.ones(192), 2.0**exponents)
    )
    assert "by coarse-1" in one.view
    assert one.view == other.view
    assert torch.equal(one.surprise, other.surprise)


def test_features_that_are_known_are_not_computed_again(toy):
    space = Wavelets()
    fresh = CopyFinder(toy[:60], space=space)(toy[60:80])
    known = CopyFinder(toy[:60], space=space, seen=space(toy[:60]))(toy[60:80])
    assert torch.equal(fresh.surprise, known.surprise)


def test_no_copy_at_all_has_an_interval_all_the_same(finder, toy):
    found = finder(toy[FEW : FEW + 30])
    assert found.rate.value == 0
    assert found.rate.error > 0
    wilsons = 0.1135
    assert found.rate.low == 0
    assert wilsons < found.rate.high < 0.2
    assert found.rate.own < found.rate.error


def test_the_sentence_tells_what_chance_makes(finder, toy):
    sentence = finder(toy[:40]).sentence()
    assert (
        "40 of 40 samples (100.0%, 95 % interval 91.2% to 100.0%) are taken for copies" in sentence
    )
    assert "about 1% of new pictures would be" in sentence
    assert "Of real pictures" in sentence


def test_too_few_training_pictures_are_refused(toy):
    with pytest.raises(DataError, match="19 training pictures are too few"):
        CopyFinder(toy[:19])


def test_a_set_of_twins_only_is_refused(toy):
    with pytest.raises(DataError, match="all but 0 occur in the training set"):
        CopyFinder(toy[:30], held=toy[:30].repeat(4, 1, 1, 1))


def test_samples_of_another_size_are_refused(finder, toy):
    with pytest.raises(DataError, match="bring both to the same size"):
        finder(toy[:2, :, ::2, ::2])
    with pytest.raises(DataError, match="one or more"):
        finder(toy[:0])
