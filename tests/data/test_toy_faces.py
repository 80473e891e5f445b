"""Toy faces: the same at any time, balanced, captioned by what is drawn, alike at every size."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from kao.data.toy.attributes import (
    ACCENTS,
    BACKDROPS,
    BACKGROUNDS,
    COATS,
    EXPRESSIONS,
    IRISES,
    SKINS,
    SPECIES,
)
from kao.data.toy.canvas import Pose
from kao.data.toy.features import eye_centres
from kao.data.toy_faces import CLASSES, ToyFaces, draw, toy_face
from kao.errors import ConfigError, DataError

FACES = [toy_face(0, index) for index in range(500)]

# Mean colours of the 4 x 4 blocks of 16 pixels of face 0 and face 3 of seed 0 at 64 pixels.
GOLDEN_0 = [
    [[193, 171, 226], [147, 156, 222], [142, 153, 221], [174, 161, 218]],
    [[159, 157, 221], [102, 132, 198], [96, 138, 217], [82, 124, 204]],
    [[186, 160, 203], [204, 153, 148], [163, 122, 134], [122, 136, 180]],
    [[195, 150, 196], [212, 136, 136], [219, 146, 145], [167, 151, 204]],
]
GOLDEN_3 = [
    [[85, 97, 134], [113, 94, 95], [117, 98, 97], [86, 99, 136]],
    [[124, 98, 91], [191, 148, 89], [191, 144, 85], [119, 96, 92]],
    [[128, 91, 70], [176, 133, 97], [194, 150, 82], [120, 89, 77]],
    [[105, 97, 107], [160, 100, 56], [165, 111, 55], [110, 101, 109]],
]


def near(picture, colour, tolerance=8):
    """Which pixels of (3, H, W) are within `tolerance` of a colour in every channel."""
    return ((picture.int() - torch.tensor(colour)[:, None, None]).abs() <= tolerance).all(0)


def disc(size, centre, radius):
    """Which pixels lie within `radius` of `centre`, both as shares of the size."""
    grid = (torch.arange(size) + 0.5) / size
    return (grid[None, :] - centre[0]) ** 2 + (grid[:, None] - centre[1]) ** 2 <= radius**2


def reduced(picture, factor):
    """The mean over blocks of factor x factor pixels, float32."""
    return torch.nn.functional.avg_pool2d(picture.float()[None], factor)[0]


def test_the_same_seed_and_index_give_the_same_pixels():
    for index in (0, 7, 10**9):
        assert toy_face(3, index) == toy_face(3, index)
        assert torch.equal(draw(toy_face(3, index), 32), draw(toy_face(3, index), 32))


def test_neither_the_count_nor_the_order_of_access_changes_a_picture():
    short, long = ToyFaces(4, size=32, seed=5), ToyFaces(9_999, size=32, seed=5)
    backwards = [short[i].image for i in (3, 2, 1, 0)][::-1]
    assert all(torch.equal(backwards[i], long[i].image) for i in range(4))


def test_threads_draw_what_one_thread_draws():
    source = ToyFaces(24, size=32)
    alone = [source[i].image for i in range(len(source))]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: source[i].image, range(len(source))))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_no_two_of_two_hundred_pictures_are_equal():
    pictures = {draw(face, 16).numpy().tobytes() for face in FACES[:200]}
    assert len(pictures) == 200


def test_another_seed_gives_other_faces():
    assert [toy_face(1, i) for i in range(20)] != FACES[:20]


@pytest.mark.parametrize("size", [16, 33, 64, 256])
def test_a_picture_is_uint8_rgb_of_the_size_asked_for(size):
    picture = draw(FACES[0], size)
    assert (picture.shape, picture.dtype) == ((3, size, size), torch.uint8)
    assert picture.is_contiguous()


@pytest.mark.parametrize("index", range(8))
def test_a_face_at_128_pixels_reduced_looks_like_the_same_face_at_32(index):
    small, large = draw(FACES[index], 32), draw(FACES[index], 128)
    assert (reduced(large, 4) - small.float()).abs().mean() < 2.5  # of 255


def test_edges_are_smooth():
    # One flat shape on a flat ground would show two colours; its antialiased edge shows many.
    face = replace(FACES[0], backdrop="plain")
    colours = draw(face, 64).flatten(1).T.unique(dim=0)
    assert len(colours) > 300


def test_every_class_is_about_as_frequent_as_the_others():
    counts = Counter(face.kind for face in FACES)
    assert set(counts) == set(CLASSES)
    assert all(65 <= count <= 135 for count in counts.values())  # 100 +- 4 standard deviations


def test_every_species_colour_expression_and_accessory_appears():
    assert {face.species for face in FACES} == set(SPECIES)
    assert {face.coat for face in FACES} == set(COATS)
    assert {face.skin for face in FACES} == {"", *SKINS}
    assert {face.eyes for face in FACES} == set(IRISES)
    assert {face.expression for face in FACES} == set(EXPRESSIONS)
    assert {face.accent for face in FACES} == set(ACCENTS)
    assert {face.backdrop for face in FACES} == set(BACKDROPS)
    assert {face.background for face in FACES} == set(BACKGROUNDS)


@pytest.mark.parametrize("species", SPECIES)
def test_every_look_that_a_species_may_have_is_drawn(species):
    look = SPECIES[species]
    face = next(face for face in FACES if face.species == species)
    picture = draw(face, 16)
    variants = [replace(face, style=style) for style in look.styles]
    variants += [replace(face, marking=marking) for marking in look.markings]
    variants += [replace(face, accessory=accessory) for accessory in look.accessories]
    variants += [replace(face, expression=expression) for expression in EXPRESSIONS]
    for variant in variants:
        assert torch.equal(draw(variant, 16), picture) == (variant == face), variant.caption


def test_a_caption_says_what_is_drawn():
    for face in FACES:
        said = (face.expression, face.coat, face.skin, face.species, face.style, face.marking)
        assert all(word in face.caption for word in said)
        assert f"{face.eyes} eyes" in face.caption
        assert face.accessory in face.caption
        assert f"{face.background} background" in face.caption
        assert face.backdrop == "plain" or face.backdrop in face.caption


def test_captions_are_plain_english():
    animal = replace(
        next(face for face in FACES if face.species == "cat"),
        coat="orange",
        eyes="green",
        expression="smiling",
        style="fluffy",
        marking="tabby",
        accessory="bow",
        accent="red",
        backdrop="striped",
        background="blue",
    )
    person = replace(
        next(face for face in FACES if face.species == "person"),
        coat="auburn",
        skin="tan",
        eyes="grey",
        expression="sad",
        style="bun",
        accessory="",
        backdrop="plain",
        background="pink",
    )
    assert animal.caption == (
        "a smiling fluffy orange tabby cat with green eyes, wearing a red bow, "
        "on a striped blue background"
    )
    assert person.caption == (
        "a sad person with tan skin, auburn hair in a bun and grey eyes, on a pink background"
    )


@pytest.mark.parametrize("index", range(40))
def test_both_eyes_have_the_colour_that_the_caption_names(index):
    face = FACES[index]
    picture = draw(face, 256)
    for centre in eye_centres(face):
        eye = disc(256, centre, 0.07)
        counts = {name: int((near(picture, IRISES[name]) & eye).sum()) for name in IRISES}
        assert counts[face.eyes] > 60, face.caption
        assert max(counts, key=counts.__getitem__) == face.eyes, face.caption


def test_the_picture_shows_its_background_in_the_upper_corners():
    for face in FACES[:60]:
        plain = replace(face, backdrop="plain", style=SPECIES[face.species].styles[0], pose=Pose())
        corner = draw(plain, 64)[:, :3, :3]
        assert near(corner, BACKGROUNDS[face.background]).all(), face.caption


def test_a_face_fills_most_of_the_picture():
    for face in FACES[:60]:
        one, other = (
            draw(replace(face, backdrop="plain", background=b), 32) for b in ("red", "navy")
        )
        covered = (one == other).all(0).float().mean()
        assert covered > 0.42, face.caption


def test_a_turned_head_moves_its_eyes_to_that_side():
    ahead, right = Pose(), Pose(turn=0.3)
    for face in FACES[:20]:
        before = np.array(eye_centres(replace(face, pose=ahead)))
        after = np.array(eye_centres(replace(face, pose=right)))
        assert (after[:, 0] > before[:, 0] + 0.03).all()


def test_a_coarse_picture_of_two_faces_stays_as_it_was():
    # From this drawing, version 1; a change of these is a new `DRAWING`.
    for face, blocks in ((FACES[0], GOLDEN_0), (FACES[3], GOLDEN_3)):
        coarse = reduced(draw(face, 64), 16).round().int().permute(1, 2, 0)
        assert (coarse - torch.tensor(blocks)).abs().max() <= 3


def test_the_source_names_its_pictures_by_class_and_number():
    source = ToyFaces(40, size=32)
    for index in range(40):
        item, face = source[index], FACES[index]
        assert item.key == f"{face.kind}/{index:06d}.png"
        assert source.classes[item.label] == face.kind
        assert item.caption == face.caption
        assert torch.equal(item.image, draw(face, 32))


def test_a_source_of_picked_classes_holds_no_others():
    source = ToyFaces(60, size=16, classes=("dog", "cat"))
    assert source.classes == ("cat", "dog")
    items = [source[i] for i in range(60)]
    assert {item.label for item in items} == {0, 1}
    assert all(item.key.startswith(source.classes[item.label]) for item in items)
    assert all(torch.equal(item.image, source[i].image) for i, item in enumerate(items))


def test_the_order_of_picked_classes_does_not_matter():
    one, other = ToyFaces(9, classes=("dog", "cat")), ToyFaces(9, classes=("cat", "dog", "cat"))
    assert one.fingerprint == other.fingerprint
    assert [one[i].caption for i in range(9)] == [other[i].caption for i in range(9)]


def test_the_fingerprint_changes_with_everything_that_changes_the_pictures():
    fingerprints = [
        source.fingerprint
        for source in (
            ToyFaces(),
            ToyFaces(9),
            ToyFaces(size=32),
            ToyFaces(seed=1),
            ToyFaces(classes=("cat",)),
        )
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    assert ToyFaces().fingerprint == fingerprints[0]


def test_a_loop_over_the_source_ends():
    assert len(list(ToyFaces(3, size=16))) == 3


def test_an_unknown_class_is_refused_and_the_near_miss_named():
    with pytest.raises(DataError, match=r'no class "cats" \(did you mean "cat"\?\).*human, wild'):
        ToyFaces(classes=("cats",))


def test_an_unknown_class_that_is_near_none_is_refused_with_the_list():
    with pytest.raises(DataError, match='"zeppelin": choose from anime, cat, dog, human, wild'):
        ToyFaces(classes=("zeppelin",))


@pytest.mark.parametrize("size", [15, 257])
def test_a_size_out_of_range_is_refused(size):
    with pytest.raises(ConfigError, match=f"16 to 256 pixels and size = {size}"):
        ToyFaces(size=size)
    with pytest.raises(ConfigError, match=f"16 to 256 pixels and size = {size}"):
        draw(FACES[0], size)


def test_a_set_of_one_is_refused():
    with pytest.raises(ConfigError, match="count = 2 or more and got 1"):
        ToyFaces(1)


def test_a_negative_seed_is_refused():
    with pytest.raises(ConfigError, match="0 or more and got -1"):
        ToyFaces(seed=-1)
