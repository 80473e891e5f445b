import numpy as np
import pytest
import torch
from PIL import Image

from kao.data import open_source, prepare
from kao.errors import ConfigError, DataError
from kao.evaluation import PictureSet, open_pictures, overlap
from kao.evaluation.pictures import class_counts
from kao.files import save_npz


def noise(count, size=8, seed=0):
    shape = (count, size, size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(folder, pixels, *, ending=".png", names=None):
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pixels):
        name = names[i] if names else f"{i:04d}"
        Image.fromarray(picture).save(folder / f"{name}{ending}")
    return folder


def test_a_folder_of_squares_is_read_as_it_is(tmp_path):
    pixels = noise(5)
    found = open_pictures(write(tmp_path / "drawn", pixels))
    assert torch.equal(found.images, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert found.keys == [f"{i:04d}.png" for i in range(5)]
    assert (found.size, len(found), found.notes) == (8, 5, ())


def test_a_folder_and_an_array_of_the_same_pictures_are_the_same_set(tmp_path):
    pixels = noise(5)
    names = ["e", "d", "c", "b", "a"]
    folder = open_pictures(write(tmp_path / "drawn", pixels, names=names))
    save_npz(tmp_path / "drawn.npz", pixels)
    array = open_pictures(tmp_path / "drawn.npz")
    assert folder.fingerprint == array.fingerprint
    assert not torch.equal(folder.images, array.images)


def test_a_prepared_set_is_read_from_the_disk_with_its_classes(tiny_set):
    found = open_pictures(tiny_set.path)
    assert torch.equal(found.images, torch.from_numpy(np.array(tiny_set.images)))
    assert found.classes == tiny_set.classes
    assert sum(class_counts(found).values()) == len(tiny_set)
    first = found.classes[0]
    assert 0 < found.is_of(first).sum() == class_counts(found)[first]


def test_with_a_size_pictures_are_prepared_as_for_training(tmp_path):
    folder = write(tmp_path / "faces", noise(4, size=24))
    found = open_pictures(folder, size=8)
    prepared = prepare(open_source(str(folder), size=8), size=8)
    assert torch.equal(found.images, torch.from_numpy(np.array(prepared.images)))
    assert (found.brought, found.enlarged) == ("resized from 24 x 24 pixels", 0)
    assert open_pictures(folder, size=24).brought == ""


def test_enlarged_pictures_are_counted_and_told_of(tmp_path):
    found = open_pictures(write(tmp_path / "faces", noise(4)), size=24)
    assert (found.enlarged, found.brought) == (4, "resized from 8 x 8 pixels")
    assert "4 of 4 pictures were smaller than 24 pixels and are enlarged" in found.notes[0]


def test_all_of_a_set_is_the_set_itself_and_not_a_copy():
    pictures = PictureSet.of("one", torch.from_numpy(noise(4)).permute(0, 3, 1, 2))
    assert pictures.take(torch.arange(4)) is pictures
    assert pictures.take(torch.tensor([1, 0, 2, 3])) is not pictures


def test_a_fingerprint_tells_other_pixels_apart(tmp_path):
    pixels = noise(4)
    one = open_pictures(write(tmp_path / "a", pixels))
    pixels[2, 3, 3, 0] ^= 1
    other = open_pictures(write(tmp_path / "b", pixels))
    assert one.fingerprint != other.fingerprint
    assert overlap(one, other).tolist() == [True, True, False, True]


def test_a_subset_depends_on_the_pictures_and_the_seed_alone():
    images = torch.from_numpy(noise(40)).permute(0, 3, 1, 2)
    one, other = PictureSet.of("one", images), PictureSet.of("other", images.flip(0))
    assert one.some(10, seed=0).fingerprint == other.some(10, seed=0).fingerprint
    assert one.some(10, seed=0).fingerprint != one.some(10, seed=1).fingerprint
    assert overlap(one.some(10, seed=0), one.some(20, seed=0)).all()
    assert one.some(99, seed=0) is one


def test_a_subset_is_not_the_first_of_a_sorted_folder():
    # The first half is black and the second white, as folders are sorted by kind.
    images = torch.zeros(400, 3, 8, 8, dtype=torch.uint8)
    images[200:] = 255
    images[:, 0, 0, :2] = torch.from_numpy(noise(400, size=1)[:, 0, 0, :2])
    bright = PictureSet.of("sorted", images).some(100, seed=0).images[:, 0, 7, 7] == 255
    assert 35 <= bright.sum() <= 65


def test_samples_saved_as_jpeg_are_told_of(tmp_path):
    folder = write(tmp_path / "drawn", noise(3), ending=".jpg")
    write(folder, noise(2, seed=1), names=["x", "y"])
    (note,) = open_pictures(folder).notes
    assert note.startswith("3 of 5 pictures of ") and "Parmar et al. 2022" in note
    assert "FID" not in note


def test_a_corrupt_sample_is_refused_and_a_corrupt_real_picture_told_of(tmp_path):
    folder = write(tmp_path / "drawn", noise(4))
    (folder / "0002.png").write_bytes((folder / "0002.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"Of .*drawn, 0002\.png is truncated or damaged"):
        open_pictures(folder)
    (folder / "0001.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2 of 4 pictures cannot be read; the first: 0001\.png is"):
        open_pictures(folder)
    write(folder, noise(2))
    (folder / "0002.png").write_bytes((folder / "0002.png").read_bytes()[:60])
    found = open_pictures(folder, size=8)
    assert len(found) == 3
    assert "1 of 4 pictures could not be read" in found.notes[0] and "0002.png" in found.notes[0]


def test_mistakes_are_told_in_a_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no picture"):
        open_pictures(tmp_path / "empty")
    folder = write(tmp_path / "mixed", noise(2))
    write(folder, noise(1, size=16), names=["z"])
    with pytest.raises(
        DataError, match=r"different sizes \(0000\.png is 8 x 8, z\.png is 16 x 16\).*--size"
    ):
        open_pictures(folder)
    write(tmp_path / "wide", noise(3)[:, :4])
    with pytest.raises(DataError, match=r"0000\.png of .*wide is 8 x 4 pixels, not square"):
        open_pictures(tmp_path / "wide")
    with pytest.raises(ConfigError, match=r"toy has no size of its own.*--size"):
        open_pictures("toy")
    with pytest.raises(DataError, match="nowhere"):
        open_pictures(tmp_path / "nowhere")


def test_an_array_that_is_none_of_pictures_is_refused(tmp_path):
    file = tmp_path / "drawn.npz"
    np.savez(file, mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(DataError, match=r"holds mu float64 \(3,\), sigma .*; expected one array"):
        open_pictures(file)
    np.savez(file, noise(2), noise(2))
    with pytest.raises(DataError, match="expected one array"):
        open_pictures(file)
    file.write_bytes(b"PK no archive")
    with pytest.raises(
        DataError, match=r"NPZ \(it is none, or .*kao sample --npz.*--save-ref"
    ) as e:
        open_pictures(file)
    assert "pickle" not in str(e.value)
    save_npz(file, noise(3))
    with pytest.raises(DataError, match="pictures of 8 x 8 pixels, and 16 x 16 were expected"):
        open_pictures(file, size=16)
