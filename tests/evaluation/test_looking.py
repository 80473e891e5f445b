import itertools
import os
import time
from dataclasses import dataclass, field

import pytest
import torch
from several import several

from kao.evaluation import PictureSet, look
from kao.evaluation.cache import load, place
from kao.machine import device
from kao.metrics import Wavelets
from kao.metrics.spaces.faces import Faces
from kao.processes import join


@dataclass
class Means:
    """A space of three numbers, which counts the pictures that it is shown."""

    name: str = "means-1"
    width: int | None = 3
    resize: str = "none"
    seen: list[int] = field(default_factory=list)

    def __call__(self, images):
        self.seen.append(len(images))
        return images.float().mean((2, 3))

    def to(self, device):
        return self


def pictures(count, *, seed=0, size=16):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KAO_CACHE", str(tmp_path / "cache"))


def test_features_are_extracted_once():
    drawn, space = PictureSet.of("a", pictures(20)), Means()
    first = look(drawn, space, batch=8)
    assert space.seen == [8, 8, 4]
    again = look(drawn, space, batch=8)
    assert space.seen == [8, 8, 4]
    assert torch.equal(first.features, again.features)
    assert first.space == "means-1"


def test_kept_features_are_found_in_whatever_order_the_pictures_come():
    images = pictures(20)
    look(PictureSet.of("a", images), Means())
    space = Means()
    found = look(PictureSet.of("b", images.flip(0)), space)
    assert space.seen == []
    assert torch.equal(found.features, images.flip(0).float().mean((2, 3)))


def test_another_space_or_other_pictures_are_looked_at():
    drawn = PictureSet.of("a", pictures(4))
    look(drawn, Means())
    for space, shown in ((Means("means-2"), drawn), (Means(resize="to 8"), drawn)):
        look(shown, space)
        assert space.seen == [4]
    space = Means()
    look(PictureSet.of("a", pictures(4, seed=1)), space)
    assert space.seen == [4]


@pytest.mark.parametrize("damage", ["cut", "changed", "text"])
def test_a_damaged_cache_file_is_made_again(damage):
    drawn, space = PictureSet.of("a", pictures(20)), Means()
    first = look(drawn, space)
    file = place(drawn, space)
    whole = bytearray(file.read_bytes())
    if damage == "changed":
        whole[-1] ^= 1
    file.write_bytes({"cut": whole[:-5], "changed": whole, "text": b"no"}[damage])
    assert load(drawn, space) is None
    again = look(drawn, space)
    assert torch.equal(first.features, again.features)
    assert load(drawn, space) is not None


def test_other_numbers_under_one_name_are_another_file():
    drawn = PictureSet.of("a", pictures(4))
    for opened in (Faces, Wavelets):
        changed = opened()
        first = next(itertools.chain(changed.parameters(), changed.buffers()))
        with torch.no_grad():
            first.mul_(2)
        assert place(drawn, opened()) == place(drawn, opened())
        assert place(drawn, changed) != place(drawn, opened())


def test_what_was_not_read_for_long_goes_first(monkeypatch):
    sets = [PictureSet.of("a", pictures(4, seed=seed)) for seed in range(4)]
    files = [place(one, Means()) for one in sets]
    for age, one in zip((30, 20, 10), sets, strict=False):
        look(one, Means())
        then = time.time() - age
        os.utime(place(one, Means()), (then, then))
    load(sets[0], Means())  # the oldest is read again
    monkeypatch.setattr("kao.evaluation.cache.LIMIT", 3 * files[0].stat().st_size)
    look(sets[3], Means())
    assert [file.exists() for file in files] == [True, False, True, True]
    monkeypatch.setattr("kao.evaluation.cache.LIMIT", 0)
    look(PictureSet.of("a", pictures(4, seed=9)), Means())
    assert not any(file.exists() for file in files)


def test_what_will_not_come_again_is_not_kept():
    drawn, space = PictureSet.of("a", pictures(4)), Means()
    look(drawn, space, kept=False)
    assert not place(drawn, space).exists()


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path):
    (tmp_path / "cache").write_text("in the way")
    found = look(PictureSet.of("a", pictures(4)), Means())
    assert len(found) == 4


def test_progress_reaches_its_total():
    told = []
    drawn = PictureSet.of("a", pictures(20))
    for _ in range(2):
        look(drawn, Means(), batch=8, progress=lambda *counts: told.append(counts))
    assert told == [(8, 20), (16, 20), (20, 20), (20, 20)]


def shared(count):
    processes = join(device())
    drawn = PictureSet.of("a", pictures(count))
    return look(drawn, Wavelets(), batch=4, kept=False, processes=processes).features


def test_two_processes_see_the_bits_that_one_sees():
    for count in (14, 3):  # of three pictures in batches of four, one process has none
        alone = look(PictureSet.of("a", pictures(count)), Wavelets(), batch=4, kept=False)
        for features in several(2, shared, count):
            assert torch.equal(features, alone.features)
