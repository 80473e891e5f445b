import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from kao.data.audit import Audit, Tally, contact_sheet, examine, repeated
from kao.data.duplicates import DISTANCE, _distance, _keys, difference_hashes, near_duplicates
from kao.data.duplicates import thumbnail as reduce
from kao.data.folders import FolderSource
from kao.data.item import Item
from kao.data.pictures import fit
from kao.data.toy_faces import ToyFaces


def smooth(seed, width=96, height=96):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def audit_of(images, *, size=32, crop="centre", **told):
    tally = Tally()
    for number, image in enumerate(images):
        pixels = np.ascontiguousarray(fit(image, size=size, crop=crop, name="x").numpy())
        tally.add(examine(Item(image, str(number), encoding=told.get("encoding")), pixels))
    keys = [f"{number}.png" for number in range(len(images))]
    return tally.audit(
        keys=keys,
        classes=told.get("classes", {}),
        captions=told.get("captions", 0),
        size=size,
        crop=crop,
        skipped=told.get("skipped", ()),
        notes=told.get("notes", ()),
    )


def thumbnails_of(images):
    return np.stack([reduce(np.array(image).transpose(2, 0, 1)) for image in images])


def test_sizes_formats_and_shapes_are_counted():
    images = [tensor(smooth(0, *shape)) for shape in ((20, 20), (40, 64), (100, 70), (300, 300))]
    audit, _ = audit_of(images, encoding="PNG RGB")
    assert audit.width == (20, 70, 300)
    assert audit.height == (20, 67, 300)
    assert {side: n for side, n in audit.sides.items() if n} == {
        "below 32": 1,
        "32-63": 1,
        "64-127": 1,
        "256-511": 1,
    }
    assert audit.encodings == {"PNG RGB": 4}
    assert (audit.enlarged, audit.not_square) == (1, 2)


def test_padding_enlarges_by_the_longer_side():
    images = [tensor(smooth(0, 20, 40)), tensor(smooth(1, 40, 40))]
    assert audit_of(images, crop="centre")[0].enlarged == 1
    assert audit_of(images, crop="pad")[0].enlarged == 0


def test_an_audit_survives_json():
    images = [tensor(smooth(seed)) for seed in (0, 0, 1)]
    audit, _ = audit_of(images, classes={"cat": 3}, skipped=["a is bad."], notes=["odd"])
    assert audit.exact.examples == (("0.png", "1.png"),)
    assert Audit.from_json(audit.to_json()) == audit


def test_the_lines_name_what_is_wrong():
    images = [tensor(smooth(seed, 20, 24)) for seed in (0, 0, 1)]
    audit, _ = audit_of(
        images, classes={"cat": 2, "dog": 1}, captions=2, skipped=["a.png is empty."], notes=["odd"]
    )
    assert audit.lines() == [
        "3 pictures of 32 x 32 pixels",
        "originals 20 to 20 pixels wide (median 20); shorter side: below 32 3",
        "stored as drawn 3",
        "classes: cat 2, dog 1",
        "2 with a caption",
        "3 were not square and were cropped to their centre",
        "3 were smaller than 32 pixels: enlarged, blurred",
        "1 exact duplicates in 1 groups, such as 0.png, 1.png",
        "2 pictures (66.7 %) have a duplicate, mirror images included",
        "1 skipped: a.png is empty.",
        "odd",
    ]


# -------------------------------------------------------------------------------------- duplicates


def test_equal_pictures_are_exact_duplicates_and_not_near_ones_too():
    images = [tensor(smooth(seed)) for seed in (5, 1, 5, 2, 5, 2)]
    audit, groups = audit_of(images)
    assert (audit.exact.groups, audit.exact.extra) == (2, 3)
    assert audit.exact.examples == (("0.png", "2.png", "4.png"), ("3.png", "5.png"))
    assert audit.near.groups == 0
    assert groups.tolist() == [0, 1, 0, 3, 0, 3]
    assert repeated(groups) == [0, 2, 3, 4, 5]
    assert audit.repeated == 5


def test_copies_of_near_duplicates_are_in_one_group():
    mirrored = ImageOps.mirror(smooth(5))
    images = [tensor(each) for each in (smooth(1), mirrored, smooth(5), mirrored, smooth(5))]
    assert audit_of(images)[1].tolist() == [0, 1, 1, 1, 1]


def test_a_picture_saved_again_resized_or_brightened_is_a_near_duplicate():
    original = smooth(0)
    file = io.BytesIO()
    original.save(file, "JPEG", quality=40)
    again = Image.open(file).convert("RGB")
    smaller = original.resize((50, 50), Image.Resampling.BICUBIC)
    brighter = original.point(lambda level: min(255, level + 3))
    images = [smooth(1), original, again, smaller, brighter, smooth(2)]
    assert near_duplicates(thumbnails_of(images)) == [[1, 2, 3, 4]]


def test_pictures_that_are_merely_alike_are_no_group_of_half_the_set():
    """Small shapes on plain ground: each is near to some others, and so all are linked."""
    rng, images = np.random.default_rng(0), []
    for _ in range(200):
        page = np.full((32, 32, 3), 255, np.uint8)
        y, x = rng.integers(8, 14, 2)
        page[y : y + 6, x : x + 6] = rng.integers(0, 60)
        images.append(tensor(Image.fromarray(page)))
    audit, groups = audit_of(images)
    assert np.bincount(groups).max() <= 20 and all(len(g) <= 20 for g in audit.near.examples)


def test_a_mirror_image_is_a_near_duplicate():
    pictures = [smooth(seed) for seed in range(4)]
    mirrored = ImageOps.mirror(pictures[2]).point(lambda level: min(255, level + 3))
    assert near_duplicates(thumbnails_of([*pictures, mirrored])) == [[2, 4]]


def test_a_symmetric_picture_is_no_duplicate_of_itself():
    half = np.asarray(smooth(0))
    symmetric = Image.fromarray(np.concatenate([half, half[:, ::-1]], 1))
    assert near_duplicates(thumbnails_of([symmetric, smooth(1)])) == []


def test_different_pictures_with_equal_hashes_are_not_near():
    """Plain pictures have no gradient, so all their bits are zero."""
    plain = [Image.new("RGB", (32, 32), (10 * level,) * 3) for level in range(20)]
    assert set(difference_hashes(thumbnails_of(plain)).tolist()) == {0}
    assert near_duplicates(thumbnails_of(plain)) == []


def test_thousands_of_plain_pictures_make_groups_and_no_explosion():
    thumbnails = np.zeros((20_000, 3, 8, 9), np.uint8)
    assert [len(group) for group in near_duplicates(thumbnails)] == [20_000]


def test_toy_faces_raise_few_alarms():
    faces = ToyFaces(400, size=32)
    thumbnails = np.stack([reduce(faces[index].image.numpy()) for index in range(400)])
    assert sum(map(len, near_duplicates(thumbnails))) <= 4


def test_hashes_at_the_distance_share_at_least_one_key():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 2**64, 2_000, dtype=np.uint64)
    flipped = one.copy()
    for _ in range(DISTANCE):
        flipped ^= np.uint64(1) << rng.integers(0, 64, len(one), dtype=np.uint64)
    assert _distance(one, flipped).max() == DISTANCE
    shared = np.zeros(len(one), bool)
    for here, there in zip(_keys(one), _keys(flipped), strict=True):
        shared |= here == there
    assert shared.all()


def test_a_difference_hash_says_where_grey_rises():
    thumbnails = np.zeros((2, 3, 8, 9), np.uint8)
    thumbnails[0] = np.arange(9, dtype=np.uint8) * 10
    thumbnails[1] = thumbnails[0, :, :, ::-1]
    rises, falls = difference_hashes(thumbnails).tolist()
    assert (rises, falls) == (2**64 - 1, 0)


def test_duplicates_among_real_faces_are_found(real_data):
    """These six names are three photographs; 0654 and 1244 hold the very same pixels."""
    source = FolderSource(real_data("cats128.zip"))
    twice = {"0654.png", "1244.png", "0123.png", "0762.png", "0444.png", "0824.png"}
    chosen = list(range(0, len(source), 5))
    chosen += [index for index, key in enumerate(source._keys) if key in twice]
    audit, _ = audit_of([source[index].image for index in sorted(set(chosen))], size=64)
    assert audit.exact.groups >= 1
    assert audit.near.groups >= 2


# ----------------------------------------------------------------------------------- contact sheet


@pytest.mark.parametrize(("count", "shape"), [(100, (8, 8)), (2, (2, 1)), (5, (3, 2))])
def test_a_contact_sheet_shows_up_to_64_pictures(count, shape):
    images = np.zeros((count, 3, 16, 16), np.uint8)
    columns, rows = shape
    assert contact_sheet(images).size == (4 + 20 * columns, 4 + 20 * rows)


def test_a_contact_sheet_is_a_function_of_its_seed():
    images = np.random.default_rng(0).integers(0, 256, (200, 3, 8, 8), dtype=np.uint8)
    first = contact_sheet(images, seed=1).tobytes()
    assert contact_sheet(images, seed=1).tobytes() == first
    assert contact_sheet(images, seed=2).tobytes() != first


def test_marked_pictures_get_a_red_frame():
    images = np.zeros((4, 3, 16, 16), np.uint8)
    sheet = np.asarray(contact_sheet(images, marked=[1]))
    red = (sheet == [255, 0, 0]).all(-1)
    assert red[:, :22].sum() == 0
    assert red[2, 22:42].all()


def test_large_pictures_are_reduced_on_the_sheet():
    assert contact_sheet(np.zeros((4, 3, 300, 300), np.uint8)).size == (268, 268)
