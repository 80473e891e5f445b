import io
import json
import os
import struct
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from kao.data.folders import FolderSource
from kao.data.layout import layout
from kao.data.names import natural
from kao.data.pictures import EXTENSIONS, HEIC
from kao.data.storage import Archive, Folder
from kao.errors import DataError


def png(seed=0):
    """A tiny PNG, another for each seed."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def fill(root, *names, **texts):
    """Write a picture for each name; `texts` are files of text, "_" standing for "."."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    for name, text in texts.items():
        (root / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return root


def zipped(folder, path):
    """An archive of a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def keys(source):
    return [source[index].key for index in range(len(source))]


def labels(source):
    return [source[index].label for index in range(len(source))]


# ------------------------------------------------------------------------------ what folders mean


def test_a_flat_folder_has_no_classes(tmp_path):
    source = FolderSource(fill(tmp_path, "b.png", "a.PNG", "c.Jpeg"))
    assert keys(source) == ["a.PNG", "b.png", "c.Jpeg"]
    assert list(source.classes) == []
    assert labels(source) == [None] * 3


def test_first_level_folders_are_classes_in_natural_order(tmp_path):
    fill(tmp_path, "class 10/a.png", "class 2/a.png", "Class 1/deep/er/a.png")
    source = FolderSource(tmp_path)
    assert list(source.classes) == ["Class 1", "class 2", "class 10"]
    assert dict(zip(keys(source), labels(source), strict=True)) == {
        "Class 1/deep/er/a.png": 0,
        "class 2/a.png": 1,
        "class 10/a.png": 2,
    }


def test_one_folder_that_holds_everything_is_no_class(tmp_path):
    source = FolderSource(fill(tmp_path, "images/0.png", "images/1.png"))
    assert list(source.classes) == []
    assert keys(source) == ["images/0.png", "images/1.png"]


def test_classes_below_a_single_folder_are_found(tmp_path):
    source = FolderSource(fill(tmp_path, "afhq/cat/0.png", "afhq/dog/0.png"))
    assert list(source.classes) == ["cat", "dog"]
    assert labels(source) == [0, 1]


def test_of_train_and_val_train_is_taken_and_said(tmp_path):
    fill(tmp_path, "train/cat/0.png", "train/dog/1.png", "val/cat/2.png", "test/dog/3.png")
    source = FolderSource(tmp_path)
    assert keys(source) == ["train/cat/0.png", "train/dog/1.png"]
    assert list(source.classes) == ["cat", "dog"]
    assert source.notes == ["took the folder train and left out test/, val/ (2 pictures)"]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("training", "testing"),
        ("TRAIN", "dev"),
        ("train", "Validation"),
        ("train_images", "test_images"),
        ("training set", "eval set"),
        ("train-00", "holdout-00"),
        ("TrainSet", "TestSet"),
        ("trainA", "testA"),
        ("trainval", "test"),
    ],
)
def test_parts_of_a_set_are_known_by_many_names_and_are_no_classes(tmp_path, train, test):
    fill(tmp_path, f"{train}/0.png", f"{train}/1.png", f"{test}/2.png")
    source = FolderSource(tmp_path)
    assert (keys(source), list(source.classes)) == ([f"{train}/0.png", f"{train}/1.png"], [])
    assert f"left out {test}/" in source.notes[0]


def test_what_lies_beside_plainly_named_parts_is_left_out_with_them(tmp_path):
    fill(tmp_path, "train/0.png", "train/1.png", "test/2.png", "extra/3.png", "extra/4.png")
    source = FolderSource(tmp_path)
    assert keys(source) == ["train/0.png", "train/1.png"]
    assert source.notes == ["took the folder train and left out extra/, test/ (3 pictures)"]


def test_names_of_pictures_are_no_parts_of_a_class(tmp_path):
    names = [f"{c}/{part}_0.png" for c in ("cat", "dog") for part in ("train", "test")]
    source = FolderSource(fill(tmp_path, *names))
    assert (len(source), list(source.classes), source.notes) == (4, ["cat", "dog"], [])


def test_parts_inside_classes_are_parts_too(tmp_path):
    fill(tmp_path, *(f"{c}/{part}/{c}.png" for c in ("cat", "dog") for part in ("train", "test")))
    source = FolderSource(tmp_path)
    assert keys(source) == ["cat/train/cat.png", "dog/train/dog.png"]
    assert list(source.classes) == ["cat", "dog"]
    assert "left out cat/test/, dog/test/" in source.notes[0]


def test_parts_of_one_class_alone_are_parts_too(tmp_path):
    source = FolderSource(fill(tmp_path, "cat/train/0.png", "cat/test/1.png", "dog/2.png"))
    assert keys(source) == ["cat/train/0.png", "dog/2.png"]


@pytest.mark.parametrize("names", ["trainA trainB testA testB", "train.1 train.2 val.1"])
def test_folders_to_train_on_are_taken_together(tmp_path, names):
    source = FolderSource(fill(tmp_path, *(f"{name}/0.png" for name in names.split())))
    assert keys(source) == [f"{name}/0.png" for name in names.split()[:2]]
    assert list(source.classes) == []


def test_a_test_set_beside_pictures_is_left_out(tmp_path):
    source = FolderSource(fill(tmp_path, "0.png", "1.png", "test/2.png"))
    assert keys(source) == ["0.png", "1.png"]
    assert "left out test/" in source.notes[0]


def test_parts_without_one_to_train_on_are_taken_together_and_are_no_classes(tmp_path):
    source = FolderSource(fill(tmp_path, "val/0.png", "test/1.png"))
    assert (len(source), list(source.classes)) == (2, [])
    assert "test, val" in source.notes[0]


@pytest.mark.parametrize(
    "folders",
    [("train", "bus"), ("steam train", "toy train"), ("Dev Patel", "Val Kilmer"), ("a", "b")],
)
def test_names_that_only_look_like_parts_are_classes(tmp_path, folders):
    source = FolderSource(fill(tmp_path, *(f"{folder}/0.png" for folder in folders)))
    assert set(source.classes) == set(folders)


def test_a_part_that_is_asked_for_as_a_class_is_one(tmp_path):
    fill(tmp_path, "train/0.png", "train/1.png", "test/2.png")
    assert len(FolderSource(tmp_path, classes=["train", "test"])) == 3


NUMBERED = [f"{i // 2:05d}/img{i:08d}.png" for i in range(4)]


@pytest.mark.parametrize(
    ("given", "classes", "labels_"),
    [
        ([5, 7, 7, 5], ["5", "7"], [0, 1, 1, 0]),
        ([10, 9, None, 9], ["9", "10"], [1, 0, None, 0]),
        ([[0.5, 1.0]] * 4, [], [None] * 4),
        (None, [], [None] * 4),
    ],
)
def test_labels_of_numbered_folders_are_in_their_table(tmp_path, given, classes, labels_):
    table = json.dumps({"labels": given and list(zip(NUMBERED, given, strict=True))})
    root = fill(tmp_path / "f", *NUMBERED, dataset_json=table)
    for source in (FolderSource(root), FolderSource(zipped(root, tmp_path / "f.zip"))):
        assert (list(source.classes), labels(source)) == (classes, labels_)
        assert ("dataset.json" in " ".join(source.notes)) == (given is None or None in labels_)


@pytest.mark.parametrize(
    "names",
    [
        ["00000/00000.png", "00000/00999.png", "01000/01000.png", "69000/69999.png"],
        ["00000/000000000.png", "00001/000010000.png", "00012/000129999.png"],
        ["00000/000000.png", "00001/001234.png", "00069/069999.png"],
    ],
    ids=["FFHQ", "img2dataset", "thousands"],
)
def test_folders_that_the_numbers_of_their_files_decide_are_no_classes(tmp_path, names):
    source = FolderSource(fill(tmp_path, *names))
    assert (len(source), list(source.classes)) == (len(names), [])


@pytest.mark.parametrize(
    "names", [["00001/00001.png", "00002/00001.png"], ["0/12.png", "1/1012.png"]]
)
def test_numbers_that_are_names_are_classes(tmp_path, names):
    assert len(FolderSource(fill(tmp_path, *names)).classes) == 2


def test_a_file_of_that_name_from_another_program_is_no_mistake(tmp_path):
    source = FolderSource(fill(tmp_path, "0.png", "1.png", dataset_json="[{}"))
    assert source.notes == ["dataset.json gives no caption and no label to any picture"]


def test_a_split_is_picked_by_its_path_in_folder_and_archive(tmp_path):
    root = fill(tmp_path / "afhq", "train/cat/0.png", "val/cat/1.png", "val/dog/2.png")
    archive = zipped(root, tmp_path / "afhq.zip")
    for path in (root / "val", archive / "val", f"{archive}/val/"):
        source = FolderSource(path)
        assert keys(source) == ["cat/1.png", "dog/2.png"]
        assert list(source.classes) == ["cat", "dog"]


def test_pictures_beside_folders_mean_no_classes_and_a_note(tmp_path):
    source = FolderSource(fill(tmp_path, "cat/0.png", "dog/0.png", "stray.png"))
    assert len(source) == 3
    assert list(source.classes) == []
    assert "1 pictures lie beside folders (cat, dog)" in source.notes[0]


def test_classes_are_picked_and_keep_their_order(tmp_path):
    fill(tmp_path, "cat/0.png", "dog/1.png", "wild/2.png", "wild/3.png", "stray.png")
    source = FolderSource(tmp_path, classes=["wild", "cat"])
    assert list(source.classes) == ["cat", "wild"]
    assert labels(source) == [0, 1, 1]


def test_a_class_below_train_is_found_from_the_root(tmp_path):
    fill(tmp_path, "train/cat/0.png", "train/cat/1.png", "train/dog/1.png", "val/cat/2.png")
    source = FolderSource(tmp_path, classes=["cat"])
    assert keys(source) == ["train/cat/0.png", "train/cat/1.png"]
    assert labels(source) == [0, 0]


def test_a_class_that_is_not_there_is_refused_with_the_near_miss(tmp_path):
    fill(tmp_path, "cat/0.png", "dog/1.png")
    with pytest.raises(DataError, match=r"no class 'cats' \(did you mean \"cat\"\?\).*cat, dog"):
        FolderSource(tmp_path, classes=["cats", "dog"])


def test_natural_order_survives_numbers_without_end():
    assert natural(["b10", "b9", "a" + "9" * 5000]) == ("a" + "9" * 5000, "b9", "b10")


def test_layout_names_the_class_of_a_picture():
    found = layout(["d/cat/0.png", "d/dog/x/1.png"])
    assert found.root == "d/"
    assert [found.class_of(name) for name in ("d/cat/0.png", "d/dog/x/1.png")] == ["cat", "dog"]


# ------------------------------------------------------------------------------------- two places


def test_an_archive_is_the_same_set_as_its_folder(tmp_path):
    root = fill(
        tmp_path / "f", "cat/0.png", "cat/1.png", "dog/0.png",
        captions_csv="file,caption\ncat/0.png,a cat\ndog/0.png,a dog\n",
    )  # fmt: skip
    folder, archive = FolderSource(root), FolderSource(zipped(root, tmp_path / "f.zip"))
    assert folder.classes == archive.classes
    for index in range(3):
        one, two = folder[index], archive[index]
        assert (one.key, one.label, one.caption) == (two.key, two.label, two.caption)
        assert torch.equal(one.image, two.image)


def test_an_archive_can_be_read_from_many_threads(tmp_path):
    root = fill(tmp_path / "f", *[f"{number:03d}.png" for number in range(60)])
    source = FolderSource(zipped(root, tmp_path / "f.zip"))
    alone = [source[index].image for index in range(60)]
    barrier = threading.Barrier(8)

    def read(_):
        barrier.wait()
        return [source[index].image for index in range(60)]

    with ThreadPoolExecutor(8) as pool:
        for together in pool.map(read, range(8)):
            assert all(map(torch.equal, alone, together))


def test_fingerprints_change_with_content_only(tmp_path):
    root = fill(tmp_path / "f", "0.png", "1.png", captions_csv="file,caption\n0.png,one\n")
    first = FolderSource(root).fingerprint
    (root / "notes.txt").write_text("nothing to do with pictures")
    assert FolderSource(root).fingerprint == first
    (root / "captions.csv").write_text("file,caption\n0.png,three\n")
    second = FolderSource(root).fingerprint
    (root / "0.png").write_bytes(png(9))
    os.utime(root / "0.png", ns=(1, 1))
    third = FolderSource(root).fingerprint
    (root / "2.png").write_bytes(png(2))
    assert len({first, second, third, FolderSource(root).fingerprint}) == 4


def test_the_fingerprint_of_an_archive_is_that_of_its_members(tmp_path):
    root = fill(tmp_path / "f", "0.png", "1.png")
    first = FolderSource(zipped(root, tmp_path / "a.zip")).fingerprint
    assert FolderSource(zipped(root, tmp_path / "b.zip")).fingerprint == first
    (root / "0.png").write_bytes(png(9))
    assert FolderSource(zipped(root, tmp_path / "c.zip")).fingerprint != first


# ---------------------------------------------------------------------------------------- captions


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.csv", "file,caption\r\nimages/0.png,one\r\nimages/1.png,two\r\n"),
        ("captions.csv", "file,caption\n0.png,one\n1.png,two\n"),
        ("captions.csv", "\ufefffile,age,Caption \n0.png,7,one\n./1.png,8,two\n"),
        ("metadata.csv", 'file_name,text\nimages\\0.png,"one"\nimages/1.png,two,three\n'),
        (
            "metadata.jsonl",
            '{"file_name": "0.png", "text": "one", "bbox": [1]}\n\n{"file_name": "1.png", '
            '"caption": "two"}\n',
        ),
    ],
)
def test_captions_are_read_in_both_vocabularies(tmp_path, name, text):
    root = fill(tmp_path / "f", "images/0.png", "images/1.png", "images/2.png")
    (root / name).write_text(text, encoding="utf-8")
    for source in (FolderSource(root), FolderSource(zipped(root, tmp_path / "f.zip"))):
        assert [source[index].caption for index in range(3)] == ["one", "two", None]
        assert "1 of 3 pictures have no caption" in source.notes[-1]


def test_a_table_inside_the_folder_that_was_entered_is_read(tmp_path):
    root = fill(tmp_path, "images/0.png", "images/1.png")
    (root / "images" / "metadata.csv").write_text("file_name,text\n0.png,one\n1.png,two\n")
    source = FolderSource(root)
    assert [source[index].caption for index in range(2)] == ["one", "two"]


def test_labels_of_a_table_are_classes_where_folders_are_not(tmp_path):
    table = "file_name,label\n0.png,dog\n1.png,cat\n2.png,dog\n"
    source = FolderSource(fill(tmp_path, "0.png", "1.png", "2.png", metadata_csv=table))
    assert list(source.classes) == ["cat", "dog"]
    assert labels(source) == [1, 0, 1]
    assert keys(FolderSource(tmp_path, classes=["dog"])) == ["0.png", "2.png"]


def test_a_picture_without_a_label_is_of_no_class_and_counted(tmp_path):
    table = "file_name,label\n0.png,dog\n1.png,cat\n2.png,\n"
    source = FolderSource(fill(tmp_path, "0.png", "1.png", "2.png", metadata_csv=table))
    assert (list(source.classes), labels(source)) == (["cat", "dog"], [1, 0, None])
    assert source.notes == ["1 of 3 pictures have no class in metadata.csv: 2.png"]


def test_rows_that_name_no_picture_are_counted(tmp_path):
    table = "file,caption\n0.png,a\n1.png,b\n" + "".join(f"gone/{i}.png,c\n" for i in range(50))
    source = FolderSource(fill(tmp_path, "0.png", "1.png", captions_csv=table))
    (note,) = source.notes
    assert note.startswith("50 rows of captions.csv name no picture here: gone/0.png")


def test_rows_without_a_name_are_counted_and_empty_ones_are_not(tmp_path):
    csv = "file_name,text\n0.png,a\n,b\n,\n\n1.png,c\n"
    jsonl = '{"file_name": "0.png"}\n{"file_name": null, "text": "b"}\n{"file_name": "1.png"}\n'
    for name, table in (("metadata_csv", csv), ("metadata_jsonl", jsonl)):
        source = FolderSource(fill(tmp_path / name, "0.png", "1.png", **{name: table}))
        assert source.notes[0].startswith("1 rows of") and "without a name" in source.notes[0]


def test_columns_that_are_not_read_are_named(tmp_path):
    csv = ",file_name,text,Class,age\n0,0.png,a,x,3\n1,1.png,b,y,4\n"
    jsonl = "".join(
        f'{{"file_name": "{i}.png", "text": "a", "class": [1], "age": 2.5}}\n' for i in range(2)
    )
    for name, table in (("metadata_csv", csv), ("metadata_jsonl", jsonl)):
        (note,) = FolderSource(fill(tmp_path / name, "0.png", "1.png", **{name: table})).notes
        assert note.startswith("passed over columns of") and note.endswith("not read: age, class")


def test_tables_in_other_folders_are_named(tmp_path):
    root = fill(tmp_path, "train/a/0.png", "train/b/1.png", "test/a/2.png")
    for folder in ("train/a", "test/a", "about"):
        (root / folder).mkdir(exist_ok=True)
        (root / folder / "captions.csv").write_text("file,caption\n0.png,one\n")
    source = FolderSource(root)
    assert source[0].caption is None
    assert source.notes[-1].startswith("did not read about/captions.csv, train/a/captions.csv: ")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("captions.csv", b"picture,caption\n0.png,x\n", "no column that names the picture"),
        ("captions.csv", b"", "met nothing"),
        ("captions.csv", b"file,caption\n0.png,\xff\xfe\n", "not UTF-8"),
        ("captions.csv", b'file,caption\n0.png,"' + b"x" * 200_000, "not CSV"),
        ("metadata.jsonl", b'{"file_name": "0.png"}\n{"file_na', "line 2, is not JSON"),
        ("metadata.jsonl", b"[1]\n", "line 1, holds no JSON object"),
        ("metadata.jsonl", b'{"text": "x"}\n', "line 1, has no column"),
        ("metadata.jsonl", b'{"a": ' + b"[" * 200_000, "line 1, is not JSON"),
        ("metadata.csv", b"date,weight\n1,2\n", "remove the file if it is no table of captions"),
    ],
)
def test_a_damaged_table_is_refused_by_name_and_line(tmp_path, name, data, says):
    fill(tmp_path, "0.png", "1.png")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=says) as caught:
        FolderSource(tmp_path)
    assert str(caught.value).startswith(name)


def test_captions_of_the_real_archives_are_found(real_data):
    source = FolderSource(real_data("anime64.zip"))
    assert (len(source), list(source.classes)) == (22_000, [])
    assert source[0].key == "images/0.jpg"
    assert source[0].caption == "aqua hair aqua eyes"
    faces = FolderSource(real_data("faces200.zip"))
    assert list(faces.classes) == ["female", "male"]
    assert faces[0].caption == "a photo of the face of a young woman"


# ---------------------------------------------------------------------------------------- hostility


def test_what_is_no_picture_is_counted_and_named_by_kind(tmp_path):
    root = fill(tmp_path / "f", "0.png", "1.png", a_jxl="x", b_JXL="x", labels_csv="x", read_me="x")
    for number in range(3):
        (root / f"{number}.txt").write_text("a caption")
    (root / "more.zip").write_bytes(b"PK")
    for source in (FolderSource(root), FolderSource(zipped(root, tmp_path / "f.zip"))):
        (note,) = source.notes
        assert "passed over 8 files" in note and "3 .txt, 2 .jxl" in note
        assert "not from 0.txt, 1.txt, 2.txt and 1 more" in note
        assert "name more.zip itself" in note


def test_the_content_of_a_file_decides_whether_it_is_a_picture(tmp_path):
    root = fill(
        tmp_path / "f", "0.png", "1.png", "2.png?width=640", "noending", "3.jpg_large", "4.jxl"
    )
    (root / "noending-either").write_bytes(b"no picture")
    for source in (FolderSource(root), FolderSource(zipped(root, tmp_path / "f.zip"))):
        assert len(source) == 6
        assert source.notes[0].startswith("4 files begin as pictures")
        assert "2.png?width=640" in source.notes[0]
        assert "1 without an ending" in source.notes[1]


def test_pictures_without_an_ending_are_found_behind_other_files(tmp_path):
    root = fill(tmp_path, "a", "b", AUTHORS="x", LICENSE="x", Makefile="x", README="x")
    assert keys(FolderSource(root)) == ["a", "b"]


def test_raw_pictures_are_counted_and_not_taken_for_their_previews(tmp_path):
    root = fill(tmp_path, "0.png", "1.png")
    for name in ("2.DNG", "3.nef"):
        Image.new("RGB", (4, 4)).save(root / name, "TIFF")
    source = FolderSource(root)
    assert keys(source) == ["0.png", "1.png"]
    assert "1 .dng, 1 .nef" in source.notes[0]


def test_what_to_do_with_an_archive_follows_from_what_it_is(tmp_path):
    root = fill(tmp_path, "0.png", "1.png", metadata_csv="file_name,text\n0.png,a\n1.png,b\n")
    for name in ("a.parquet", "b.tar.xz"):
        (root / name).write_bytes(b"x")
    (note,) = FolderSource(root).notes
    assert "the pictures in b.tar.xz, unpack it" in note
    assert "in a.parquet, write hf:" in note and "captions and labels" not in note
    (root / "c.zip").write_bytes(b"x")
    (note,) = FolderSource(root).notes
    assert "name c.zip itself, or unpack it here for metadata.csv to count" in note


def test_a_table_beside_an_archive_is_named(tmp_path):
    path = zipped(fill(tmp_path / "f", "0.png", "1.png"), tmp_path / "f.zip")
    (tmp_path / "metadata.jsonl").write_text("")
    assert FolderSource(path).notes == ["left out metadata.jsonl: lies beside f.zip, and not in it"]


def test_a_heic_picture_that_cannot_be_read_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("kao.data.storage.EXTENSIONS", EXTENSIONS - HEIC)
    source = FolderSource(fill(tmp_path, "0.png", "1.png", IMG_2_HEIC="x"))
    assert "1 .heic" in source.notes[0] and "pip install -e '.[heif]'" in source.notes[0]


@pytest.mark.parametrize(
    "folder",
    [
        "@eaDir",
        "#recycle",
        "~snapshot",
        "Temporary Items",
        "$RECYCLE.BIN",
        "lost+found",
        ".thumbnails",
        "__MACOSX",
    ],
)
def test_pictures_of_systems_are_left_out_and_said(tmp_path, folder):
    root = fill(tmp_path / "f", "a/0.png", "b/1.png", f"{folder}/2.png", f"a/{folder}/0.png/3.png")
    for source in (FolderSource(root), FolderSource(zipped(root, tmp_path / "f.zip"))):
        assert (keys(source), list(source.classes)) == (["a/0.png", "b/1.png"], ["a", "b"])
        (note,) = source.notes
        assert note.endswith("folders of a system or server") and f"{folder}/2.png" in note


def test_hidden_files_and_folders_named_as_pictures_are_passed_over(tmp_path):
    root = fill(
        tmp_path / "f", "0.png", "1.png", ".2.png", ".git/3.png", "__MACOSX/._0.png", "Thumbs.db",
        "album.jpg/4.png", ".originals/5/6.png",
    )  # fmt: skip
    (root / "empty.jpg").mkdir()
    for source in (FolderSource(root), FolderSource(zipped(root, tmp_path / "x.zip"))):
        assert keys(source) == ["0.png", "1.png", "album.jpg/4.png"]
        assert source.notes[1:] == [
            "left out __MACOSX/._0.png: folders of a system or server",
            "left out .2.png, .git/3.png, .originals/5/6.png: hidden files and folders",
        ]


def test_loops_of_links_end_and_dead_links_are_named(tmp_path):
    fill(tmp_path, "cat/0.png", "cat/1.png")
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "cat" / "dead.png").symlink_to(tmp_path / "nowhere.png")
    source = FolderSource(tmp_path)
    assert keys(source) == ["cat/0.png", "cat/1.png"]
    assert source.notes == ["left out cat/dead.png, self: links that lead nowhere"]


def test_a_run_inside_the_folder_is_not_read_as_pictures(tmp_path):
    fill(tmp_path, "0.png", "1.png", "runs/a/contact.png", "runs/a/samples/000000008-ema.png")
    before = FolderSource(tmp_path).fingerprint
    (tmp_path / "runs" / "a" / "run.toml").write_text("")
    source = FolderSource(tmp_path)
    assert keys(source) == ["0.png", "1.png"]
    assert source.notes == ["left out runs/a: runs and prepared sets of kao"]
    assert source.fingerprint != before


def test_linked_folders_are_followed(tmp_path):
    fill(tmp_path / "elsewhere", "0.png", "1.png")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "cat").symlink_to(tmp_path / "elsewhere")
    assert keys(FolderSource(tmp_path / "f")) == ["cat/0.png", "cat/1.png"]


def test_a_folder_that_cannot_be_opened_is_named_and_passed_over(tmp_path, monkeypatch):
    fill(tmp_path, "0.png", "1.png", "closed/2.png")
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("closed") or str(path).endswith("closed/"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    source = FolderSource(tmp_path)
    assert keys(source) == ["0.png", "1.png"]
    assert source.notes == ["left out closed: folders that cannot be read"]
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        FolderSource(tmp_path / "closed")


def test_members_that_lead_out_of_the_archive_are_named_and_never_written(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(inside / "x.zip", "w") as archive:
        for name in ("../out.png", "/abs.png", "a/../../b.png", "C:/c.png", "cat\\0.png", "1.png"):
            archive.writestr(name, png())
    source = FolderSource(inside / "x.zip")
    assert keys(source) == ["1.png", "cat/0.png"]
    assert (
        "left out ../out.png, /abs.png, a/../../b.png, C:/c.png: names that lead out of the archive"
    ) in source.notes
    assert [path.name for path in tmp_path.rglob("*")] == ["inside", "x.zip"]


def test_of_two_members_of_one_name_the_later_counts(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("0.png", png(0))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("0.png", png(1))
        archive.writestr("1.png", png(1))
    source = FolderSource(tmp_path / "x.zip")
    assert torch.equal(source[0].image, source[1].image)
    assert "left out 0.png: the archive holds a later member of the same name" in source.notes


def damaged_archive(path, *, at, value):
    """Two stored pictures; bytes of the first's record in the directory of members are changed."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.png", png(0))
        archive.writestr("1.png", png(1))
    data = bytearray(path.read_bytes())
    record = data.index(b"PK\1\2") + at
    data[record : record + len(value)] = value
    path.write_bytes(data)
    return FolderSource(path)


def test_encrypted_damaged_and_exotic_members_are_data_errors(tmp_path):
    encrypted = damaged_archive(tmp_path / "a.zip", at=8, value=b"\1\0")
    wrong_sum = damaged_archive(tmp_path / "b.zip", at=16, value=b"\0\0\0\0")
    exotic = damaged_archive(tmp_path / "c.zip", at=10, value=b"\x09\0")
    huge = damaged_archive(tmp_path / "d.zip", at=24, value=struct.pack("<I", 3_000_000_000))
    for source, says in (
        (encrypted, "0.png is encrypted"),
        (wrong_sum, "0.png in b.zip is damaged"),
        (exotic, r"0.png in c.zip is compressed by a method .* \(Deflate64\)"),
        (huge, "0.png holds 3,000,000,000 bytes"),
    ):
        with pytest.raises(DataError, match=says):
            source[0]
        assert source[1].key == "1.png"


def test_a_truncated_archive_is_a_data_error(tmp_path):
    whole = zipped(fill(tmp_path / "f", "0.png", "1.png"), tmp_path / "x.zip").read_bytes()
    for part in (0, 10, len(whole) // 2, len(whole) - 5):
        (tmp_path / "cut.zip").write_bytes(whole[:part])
        with pytest.raises(DataError, match=r"cut\.zip is not a ZIP archive, or is damaged"):
            FolderSource(tmp_path / "cut.zip")


def test_random_damage_to_an_archive_is_a_data_error_or_harmless(tmp_path):
    whole = zipped(fill(tmp_path / "f", "0.png", "1.png"), tmp_path / "x.zip").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = np.frombuffer(whole, np.uint8).copy()
        data[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        (tmp_path / "x.zip").write_bytes(data.tobytes())
        try:
            source = FolderSource(tmp_path / "x.zip")
        except DataError:
            continue
        for index in range(len(source)):
            try:
                source[index]
            except DataError as error:
                assert source._keys[index] in str(error)


def test_places_without_pictures_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="There is no folder or ZIP file"):
        FolderSource(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no picture; expected two or more"):
        FolderSource(tmp_path)
    (tmp_path / "a.jxl").write_bytes(b"x")
    (tmp_path / "b.jxl").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no picture; .* passed over 2 files .*: 2 \.jxl"):
        FolderSource(tmp_path)
    fill(tmp_path, "0.png")
    with pytest.raises(DataError, match=r"holds one picture, 0\.png"):
        FolderSource(tmp_path)
    with pytest.raises(
        DataError, match=r"is not a ZIP archive.* Unpack an archive of another kind"
    ):
        FolderSource(tmp_path / "0.png")


def test_a_folder_missing_from_an_archive_is_refused_with_the_near_miss(tmp_path):
    root = fill(tmp_path / "f", "train/0.png", "val/1.png")
    with pytest.raises(DataError, match=r"holds no folder 'trian' \(did you mean \"train\"\?\)"):
        FolderSource(zipped(root, tmp_path / "f.zip") / "trian")


def test_a_file_that_vanished_is_a_data_error(tmp_path):
    source = FolderSource(fill(tmp_path, "0.png", "1.png"))
    (tmp_path / "0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png cannot be read"):
        source[0]


def test_names_that_are_not_unicode_are_read(tmp_path):
    fill(tmp_path, "0.png")
    with open(os.fsencode(tmp_path) + b"/\xff.png", "wb") as file:
        file.write(png())
    source = FolderSource(tmp_path)
    assert len(source.fingerprint) == 64
    assert source[1].image.shape == (3, 6, 6)


def test_names_of_an_archive_that_are_utf_8_without_saying_so_are_read_as_they_were(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for number in range(2):
            archive.writestr(f"Q{number}.png", png(number))
    file = tmp_path / "x.zip"
    data = file.read_bytes().replace(b"Q0.png", "é.png".encode()).replace(b"Q1.png", b"\x8c1.png")
    file.write_bytes(data)
    assert sorted(FolderSource(file)._keys) == ["é.png", "î1.png"]


@pytest.mark.parametrize("folder", ["é", "a/b"])
def test_a_folder_in_an_archive_is_found_by_the_name_it_is_listed_by(tmp_path, folder):
    raw = folder.replace("/", "\\").encode()
    stand_in = "Q" * len(raw)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for number in range(2):
            archive.writestr(f"{stand_in}/{number}.png", png(number))
    file = tmp_path / "x.zip"
    file.write_bytes(file.read_bytes().replace(stand_in.encode(), raw))
    assert keys(FolderSource(file / folder)) == ["0.png", "1.png"]


def test_texts_without_an_ending_hide_no_pictures_without_one(tmp_path):
    fill(tmp_path, "a", "b", "c.d", LICENSE="x", MAKEFILE="x", NOTICE="x", README="x")
    assert keys(FolderSource(tmp_path)) == ["a", "b", "c.d"]


def test_tables_and_labels_that_are_not_used_are_named(tmp_path):
    fill(tmp_path, "cat/0.png", "dog/1.png", metadata_csv="file,label\ncat/0.png,x\n")
    (tmp_path / "cat" / "captions.csv").write_text("file,text\n0.png,y\n")
    source = FolderSource(tmp_path)
    assert list(source.classes) == ["cat", "dog"]
    assert "cat/captions.csv" in source.notes[0]
    assert source.notes[1].startswith("1 labels of metadata.csv are not used")


def test_a_plain_loop_over_a_source_ends(tmp_path):
    assert len(list(FolderSource(fill(tmp_path, "0.png", "1.png")))) == 2


def test_listings_of_folder_and_archive_agree(tmp_path):
    root = fill(tmp_path / "f", "b/0.png", "a/1.jpg", "c.txt", metadata_jsonl="")
    one, two = Folder(root).listing(), Archive(zipped(root, tmp_path / "f.zip")).listing()
    assert (one.pictures, one.tables, one.oddities) == (two.pictures, two.tables, two.oddities)
