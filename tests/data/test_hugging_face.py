import builtins
import io

import numpy as np
import pytest
import torch
from PIL import Image

from kao.data.hugging_face import HuggingFaceSource
from kao.data.prepare import prepare
from kao.errors import DataError, MissingExtraError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    """No waiting for a hub that the tests may not reach, and no cache but one of the test."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)


def png(seed):
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def saved(tmp_path, **columns):
    """A data set on disk with pictures and the columns given."""
    kinds = {"label": datasets.ClassLabel(names=["dog", "cat", "ape"])}
    features = {"id": datasets.Value("int64"), "picture": datasets.Image()}
    features |= {name: kinds.get(name, datasets.Value("string")) for name in columns}
    count = len(next(iter(columns.values()), range(4)))
    data = {"id": list(range(count)), "picture": [png(seed) for seed in range(count)]} | columns
    data = datasets.Dataset.from_dict(data, features=datasets.Features(features))
    data.save_to_disk(tmp_path / "saved")
    return str(tmp_path / "saved")


def test_columns_are_found_by_what_they_are(tmp_path):
    path = saved(tmp_path, label=[0, 1, 2, 1], text=["a", "b", "", "d"])
    source = HuggingFaceSource(path)
    items = [source[index] for index in range(len(source))]
    assert list(source.classes) == ["dog", "cat", "ape"]
    assert [item.label for item in items] == [0, 1, 2, 1]
    assert [item.caption for item in items] == ["a", "b", None, "d"]
    assert [item.key for item in items] == ["00000000", "00000001", "00000002", "00000003"]
    assert torch.equal(items[3].image, torch.from_numpy(pixels(3)).permute(2, 0, 1))
    assert items[0].encoding == "PNG RGB"


def test_without_labels_and_captions_there_are_none(tmp_path):
    source = HuggingFaceSource(saved(tmp_path))
    assert list(source.classes) == []
    assert (source[0].label, source[0].caption) == (None, None)


def test_what_is_not_taken_is_counted_and_named(tmp_path):
    path = saved(tmp_path, label=[0, None, 2, -1], prompt=["a", "b", "c", "d"])
    assert HuggingFaceSource(path).notes == [
        "passed over columns that are not read: id, prompt",
        "2 of 4 pictures have no class",
    ]


def test_classes_are_picked(tmp_path):
    source = HuggingFaceSource(
        saved(tmp_path, label=[0, 1, 2, 1], caption=list("abcd")), classes=["ape", "cat"]
    )
    items = [source[index] for index in range(len(source))]
    assert list(source.classes) == ["cat", "ape"]
    assert [(item.caption, item.label) for item in items] == [("b", 0), ("c", 1), ("d", 0)]


def test_a_class_that_is_not_there_is_refused_with_the_near_miss(tmp_path):
    path = saved(tmp_path, label=[0, 1])
    with pytest.raises(DataError, match=r"no class 'cats' \(did you mean \"cat\"\?\)"):
        HuggingFaceSource(path, classes=["cats"])


def test_the_fingerprint_is_stable_and_follows_content_and_classes(tmp_path):
    one = saved(tmp_path / "one", label=[0, 1, 0, 1])
    two = saved(tmp_path / "two", label=[0, 1, 1, 1])
    first = HuggingFaceSource(one).fingerprint
    assert HuggingFaceSource(one).fingerprint == first
    others = [HuggingFaceSource(two), HuggingFaceSource(one, classes=["cat"])]
    assert len({first, *(other.fingerprint for other in others)}) == 3


def test_the_split_to_train_on_is_known_by_other_names(tmp_path):
    part = datasets.load_from_disk(saved(tmp_path))
    datasets.DatasetDict(Test=part.select([0, 1]), Training=part).save_to_disk(tmp_path / "both")
    assert len(HuggingFaceSource(str(tmp_path / "both"))) == 4


def test_a_split_is_taken_and_a_missing_one_named(tmp_path):
    part = datasets.load_from_disk(saved(tmp_path))
    datasets.DatasetDict(train=part, test=part.select([0, 1])).save_to_disk(tmp_path / "both")
    whole = HuggingFaceSource(str(tmp_path / "both"))
    assert (len(whole), whole.notes[0]) == (4, "took the split train and left out test (2 rows)")
    assert len(HuggingFaceSource(str(tmp_path / "both"), split="test")) == 2
    with pytest.raises(DataError, match=r"no split 'tets' \(did you mean \"test\"\?\)"):
        HuggingFaceSource(str(tmp_path / "both"), split="tets")


def test_a_split_of_a_set_without_that_split_is_refused(tmp_path):
    with pytest.raises(DataError, match="not divided into splits: leave out 'test'"):
        HuggingFaceSource(saved(tmp_path), split="test")
    part = datasets.load_from_disk(str(tmp_path / "saved"))
    datasets.DatasetDict(whole=part).save_to_disk(tmp_path / "one")
    assert len(HuggingFaceSource(str(tmp_path / "one"))) == 4
    with pytest.raises(DataError, match="no split 'test'"):
        HuggingFaceSource(str(tmp_path / "one"), split="test")


def test_a_folder_of_parquet_files_is_read(tmp_path):
    data = datasets.load_from_disk(saved(tmp_path, label=[0, 1, 2], text=list("abc")))
    (tmp_path / "parquet").mkdir()
    data.to_parquet(tmp_path / "parquet" / "train.parquet")
    source = HuggingFaceSource(str(tmp_path / "parquet"))
    assert [source[index].caption for index in range(3)] == ["a", "b", "c"]
    assert list(source.classes) == ["dog", "cat", "ape"]


def test_a_folder_of_pictures_is_read(tmp_path):
    for seed, name in enumerate(["cat/0.png", "cat/1.png", "dog/2.png"]):
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(seed)).save(tmp_path / "faces" / name)
    source = HuggingFaceSource(str(tmp_path / "faces"))
    assert list(source.classes) == ["cat", "dog"]
    assert [source[index].label for index in range(3)] == [0, 0, 1]


def test_damaged_and_missing_pictures_are_data_errors(tmp_path):
    data = datasets.Dataset.from_dict(
        {"image": [png(0), png(1), {"bytes": b"junk", "path": None}, None]},
        features=datasets.Features(image=datasets.Image()),
    )
    data.save_to_disk(tmp_path / "saved")
    source = HuggingFaceSource(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="00000002 is not a picture"):
        source[2]
    with pytest.raises(DataError, match="Row 00000003 has no picture"):
        source[3]
    prepared = prepare(source, size=8, out=tmp_path / "set")
    assert len(prepared) == 2
    assert len(prepared.audit.skipped) == 2


def test_a_data_set_without_pictures_names_its_columns(tmp_path):
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"no column of pictures: .* met text\."):
        HuggingFaceSource(str(tmp_path / "saved"))


def test_an_unknown_name_or_no_connection_is_one_sentence():
    with pytest.raises(DataError, match=r"hf:nobody/nothing cannot be opened \(.*\): check") as met:
        HuggingFaceSource("nobody/nothing")
    assert "\n" not in str(met.value)


def test_without_the_package_the_extra_is_named(monkeypatch):
    original = builtins.__import__

    def guarded(name, *args):
        if name == "datasets":
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", guarded)
    with pytest.raises(MissingExtraError, match=r"pip install -e '\.\[hf\]'"):
        HuggingFaceSource("any/thing")
