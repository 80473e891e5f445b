from dataclasses import dataclass, field

import pytest
import torch
from several import several

from kao.evaluation import PictureSet, look
from kao.evaluation.cache import load, place
from kao.machine import device
from kao.metrics import Wavelets
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
