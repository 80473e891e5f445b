import math
from collections import Counter

import pytest
import torch

from kao.config.tree import Origin, dump, parse
from kao.errors import ConfigError
from kao.training.curriculum import CURRICULA, Patches, Progressive, whole_pictures

ALL = slice(None)
SIZE, BATCH = 16, 6


def glance(curriculum, done=0.0, *, seed=0, batch=BATCH, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    return curriculum.at(done, batch=batch, size=size, generator=generator)


def sides(curriculum, done, *, steps=2000):
    """How often a step looks at pictures of each size, of `steps`."""
    generator, x0 = torch.Generator().manual_seed(0), torch.zeros(1, 3, SIZE, SIZE)
    met = Counter()
    for _ in range(steps):
        look = curriculum.at(done, batch=1, size=SIZE, generator=generator)
        met[look(x0, ALL)[0].shape[-1]] += 1
    return met


def coordinates(batch=BATCH, size=SIZE):
    """Pictures whose first two channels are the coordinates of their pixels, x and then y."""
    centres = torch.linspace(-1 + 1 / size, 1 - 1 / size, size)
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)]).expand(batch, -1, -1, -1)


# --- patches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [2, 4, 8])
def test_coordinates_are_those_of_the_pixels_that_are_shown(part):
    for seed in range(20):
        shown, where, *_ = glance(Patches(parts=(part,), whole=0.0), seed=seed)(coordinates(), ALL)
        assert shown.shape == (BATCH, 3, SIZE // part, SIZE // part)
        assert where.dtype == torch.float32
        torch.testing.assert_close(where, shown[:, :2], atol=1e-6, rtol=0)


def test_a_patch_is_a_part_of_its_own_picture():
    x0 = torch.arange(BATCH, dtype=torch.float32)[:, None, None, None].expand(-1, 3, SIZE, SIZE)
    shown, *_ = glance(Patches(parts=(4,), whole=0.0))(x0, ALL)
    assert torch.equal(shown, x0[..., :4, :4])


def test_patches_lie_anywhere_in_the_picture_and_evenly():
    look = glance(Patches(parts=(4,), whole=0.0), batch=13 * 13 * 100)
    rows = torch.zeros(13 * 13 * 100, 1, SIZE, SIZE)
    _, where, _ = look(rows, ALL)
    corners = ((where[:, :, 0, 0] + 1) * SIZE / 2 - 0.5).round().long()
    met = torch.bincount(corners[:, 0] * 13 + corners[:, 1], minlength=169)
    # 100 expected of each of 13 x 13 places, with a standard deviation of 10.
    assert len(met) == 169 and 60 < met.min() and met.max() < 140


@pytest.mark.parametrize("whole", [0.0, 0.3, 1.0])
def test_steps_look_at_whole_pictures_and_at_each_size_as_often_as_they_should(whole):
    met = sides(Patches(parts=(2, 4), whole=whole), 0.5)
    assert met[16] / 2000 == pytest.approx(whole, abs=0.04)
    for side in (8, 4):
        assert met[side] / 2000 == pytest.approx((1 - whole) / 2, abs=0.04)


def test_patches_end_when_they_should():
    patches = Patches(whole=0.0, until=0.6)
    assert set(sides(patches, 0.59, steps=50)) == {8, 4}
    assert set(sides(patches, 0.6, steps=50)) == set(sides(patches, 1.0, steps=50)) == {16}


def test_whole_pictures_pass_as_they_are_and_need_no_coordinates():
    x0 = coordinates()
    for look in (whole_pictures, glance(Patches(whole=1.0)), glance(Progressive(), 0.3)):
        shown, where, *_ = look(x0, ALL)
        assert shown is x0 and where is None


@pytest.mark.parametrize("rows", [slice(0, 1), slice(2, 5), slice(5, 6), slice(6, 6)], ids=str)
@pytest.mark.parametrize("curriculum", [Patches(whole=0.0), Progressive()], ids=str)
def test_some_rows_see_what_they_see_in_the_whole_batch(curriculum, rows):
    x0 = torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    look = glance(curriculum)
    for part, whole in zip(look(x0[rows], rows)[:2], look(x0, ALL)[:2], strict=True):
        assert part is whole is None or torch.equal(part, whole[rows])


def test_patches_follow_the_generator():
    x0, patches = coordinates(), Patches(parts=(4,), whole=0.0)
    one, same, other = (glance(patches, seed=seed)(x0, ALL)[1] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


# --- small pictures first -----------------------------------------------------------------------


def test_pictures_grow_at_their_times():
    curriculum = Progressive(parts=(4, 2), until=(0.2, 0.5))
    for done, side in ((0.0, 4), (0.19, 4), (0.2, 8), (0.49, 8), (0.5, 16), (1.0, 16)):
        assert set(sides(curriculum, done, steps=3)) == {side}


def test_a_pixel_of_a_small_picture_is_the_mean_of_those_it_stands_for():
    x0 = torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    shown, where, noise = glance(Progressive(parts=(4,), until=(0.5,)))(x0, ALL)
    assert where is None
    assert noise == 1 / 4  # what a mean of sixteen draws of the noise has
    torch.testing.assert_close(shown, x0.unflatten(3, (4, 4)).unflatten(2, (4, 4)).mean((3, 5)))


def test_growing_leaves_nothing_to_chance():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    Progressive().at(0.0, batch=BATCH, size=SIZE, generator=generator)
    assert torch.equal(generator.get_state(), before)


# --- all of them --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "told"), [("patches", True), ("progressive", False)])
def test_the_network_is_told_where_it_looks_if_it_does_not_see_everything(name, told):
    curriculum = CURRICULA[name]()
    assert curriculum.coordinates == told
    looks = [glance(curriculum, seed=seed)(coordinates(), ALL) for seed in range(20)]
    assert any(shown.where is not None for shown in looks) == told


@pytest.mark.parametrize("name", ["patches", "progressive"])
def test_options_survive_their_table(name):
    curriculum = CURRICULA[name](parts=(8,))
    table = dump(curriculum)
    assert parse(CURRICULA[name], table, Origin("a test"), "training.curriculum") == curriculum


@pytest.mark.parametrize("curriculum", [Patches(), Progressive(parts=(4, 2), until=(0.1, 0.2))])
def test_sizes_that_the_network_can_be_shown_pass(curriculum):
    curriculum.check(32, multiple=8)


@pytest.mark.parametrize("kind", [Patches, lambda parts: Progressive(parts, until=(0.5,))])
@pytest.mark.parametrize(
    ("part", "size", "multiple", "words"),
    [
        (4, 48, 8, "1 / 4 of data.size = 48 is 12 pixels, where this network needs a multiple of"),
        (4, 48, 8, "a multiple of 8: take from [2, 3, 6]."),
        (3, 32, 4, "training.curriculum.parts names 3, and 1 / 3 of data.size = 32 is 10.67 pix"),
        (64, 32, 1, "1 / 64 of data.size = 32 is 0.5 pixels"),
        (2, 32, 32, "a multiple of 32: take a network of fewer levels, or none."),
    ],
)
def test_sizes_that_the_network_cannot_be_shown_are_refused(kind, part, size, multiple, words):
    with pytest.raises(ConfigError) as caught:
        kind(parts=(part,)).check(size, multiple=multiple)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (Patches, {"parts": ()}, "curriculum.parts = []; expected one or more whole numbers"),
        (Patches, {"parts": (2, 1)}, "curriculum.parts = [2, 1]; expected one or more whole"),
        (Progressive, {"parts": (0,)}, "curriculum.parts = [0]; expected one or more whole"),
        (Patches, {"whole": 1.5}, "curriculum.whole = 1.5; expected a share from 0 to 1."),
        (Patches, {"whole": math.nan}, "curriculum.whole = nan; expected a share from 0 to 1."),
        (Patches, {"until": -0.1}, "curriculum.until = -0.1; expected a share from 0 to 1."),
        (Progressive, {"until": (1.5,)}, "curriculum.until = [1.5]; expected rising shares of"),
        (Progressive, {"until": (math.nan,)}, "curriculum.until = [nan]; expected rising shares"),
        (
            Progressive,
            {"parts": (4, 2), "until": (0.5, 0.2)},
            "curriculum.until = [0.5, 0.2]; expected rising shares",
        ),
        (
            Progressive,
            {"parts": (2, 4), "until": (0.2, 0.5)},
            "curriculum.parts = [2, 4]; expected falling numbers, so that pictures grow.",
        ),
        (
            Progressive,
            {"parts": (4, 2)},
            "curriculum.until = [0.3] must say for each of curriculum.parts = [4, 2]",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(kind, options, words):
    with pytest.raises(ConfigError) as caught:
        kind(**options)
    assert words in str(caught.value)
