import pytest
import torch
from PIL import Image

from kao.data.folders import FolderSource
from kao.data.prepare import prepare
from kao.data.sources import SOURCES, TOY_COUNT, open_source
from kao.data.toy_faces import ToyFaces
from kao.errors import ConfigError, DataError


@pytest.fixture
def faces(tmp_path):
    for name, colour in (("cat/0.png", "red"), ("dog/1.png", "blue")):
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True)
        Image.new("RGB", (9, 9), colour).save(path)
    return tmp_path / "faces"


def test_a_path_is_a_folder_source(faces):
    source = open_source(str(faces), size=32)
    assert isinstance(source, FolderSource)
    assert list(source.classes) == ["cat", "dog"]


def test_classes_are_handed_on(faces):
    with pytest.raises(DataError, match="no class 'owl'"):
        open_source(str(faces), size=32, classes=["owl"])
    assert list(open_source("toy:10", size=32, classes=["cat"]).classes) == ["cat"]


def test_toy_is_drawn_at_the_size_asked_for():
    assert len(open_source("toy", size=32)) == TOY_COUNT == 10_000
    source = open_source("toy:5_000", size=48)
    assert isinstance(source, ToyFaces)
    assert len(source) == 5_000
    assert source[0].image.shape == (3, 48, 48)


def test_a_folder_that_is_called_toy_is_reached_by_its_path(faces, monkeypatch):
    faces.rename(faces.parent / "toy")
    monkeypatch.chdir(faces.parent)
    assert isinstance(open_source("./toy", size=32), FolderSource)
    assert isinstance(open_source("toy", size=32), ToyFaces)


def test_a_colon_in_a_path_is_no_prefix(faces):
    faces.rename(faces.parent / "12:30")
    assert len(open_source(str(faces.parent / "12:30"), size=32)) == 2


@pytest.mark.parametrize(
    "spec", ["toy:many", "toy:-5", "toy:1.5", "hf:", "hf:#test", "hf:a/b#", "", "  "]
)
def test_what_is_not_understood_is_refused(spec):
    with pytest.raises(ConfigError):
        open_source(spec, size=32)


@pytest.mark.parametrize(
    ("spec", "name", "split"),
    [
        ("hf:owner/name", "owner/name", None),
        ("hf:owner/name#test", "owner/name", "test"),
        ("hf:a#b#train", "a#b", "train"),
    ],
)
def test_a_split_of_a_hugging_face_set_is_spelled_after_a_hash(monkeypatch, spec, name, split):
    opened = []
    monkeypatch.setattr(
        "kao.data.sources.HuggingFaceSource",
        lambda name, *, classes, split: opened.append((name, split)),
    )
    open_source(spec, size=32)
    assert opened == [(name, split)]


def test_every_prefix_leads_somewhere():
    assert set(SOURCES) == {"hf", "toy"}


@pytest.mark.parametrize("spec", ["toy:3", "FACES"])
def test_every_source_keeps_the_contract(spec, faces, tmp_path):
    source = open_source(spec.replace("FACES", str(faces)), size=32)
    again = open_source(spec.replace("FACES", str(faces)), size=32)
    items = [source[index] for index in range(len(source))]
    assert source.fingerprint == again.fingerprint
    assert len({item.key for item in items}) == len(items)
    for index, item in enumerate(items):
        assert item.image.dtype == torch.uint8
        assert item.image.shape[0] == 3
        assert item.label in range(len(source.classes))
        assert torch.equal(item.image, again[index].image)
    with pytest.raises(IndexError):
        source[len(source)]
    assert prepare(source, size=32, out=tmp_path / "set").keys == [item.key for item in items]
