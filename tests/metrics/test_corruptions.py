from itertools import pairwise

import pytest
import torch

from kao.errors import ConfigError, DataError
from kao.metrics.corruptions import CORRUPTIONS, mode_dropping
from kao.seeds import mixed_seed

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


def pictures(count=48, size=32):
    """Smooth pictures of many colours."""
    generator = torch.Generator().manual_seed(mixed_seed(7))
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size, mode="bicubic")
    return fine.mul(255).clamp(0, 255).byte()


def spoilt(name, images, level, *, seed=0):
    return CORRUPTIONS[name](images, level, torch.Generator().manual_seed(seed))


every = pytest.mark.parametrize("name", CORRUPTIONS)


@every
@pytest.mark.parametrize("size", [16, 33])
def test_level_0_is_the_pictures_bit_for_bit(name, size):
    images = pictures(8, size)
    assert torch.equal(spoilt(name, images, 0.0), images)


@every
@pytest.mark.parametrize("size", [16, 33])
def test_damage_keeps_number_shape_and_type_and_leaves_the_pictures_alone(name, size):
    images = pictures(8, size)
    before = images.clone()
    drawn = spoilt(name, images, 1.0)
    assert (drawn.shape, drawn.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)


@every
def test_damage_grows_with_the_level_and_is_gross_at_1(name):
    images = pictures()
    means = [
        (spoilt(name, images, level).float() - images.float()).abs().mean().item()
        for level in LEVELS
    ]
    assert means == sorted(set(means))
    assert means[-1] > 10


@every
def test_equal_seeds_do_equal_damage(name):
    images = pictures()
    one, same = (spoilt(name, images, 0.5) for _ in range(2))
    assert torch.equal(one, same)
    if name not in ("blur", "colour shift"):  # in which nothing is random
        assert not torch.equal(one, spoilt(name, images, 0.5, seed=1))


@every
@pytest.mark.parametrize("level", [-0.1, 1.1, float("nan"), float("inf")])
def test_levels_outside_0_and_1_are_refused(name, level):
    with pytest.raises(ConfigError, match="within 0 and 1"):
        spoilt(name, pictures(), level)


@every
def test_other_than_bytes_of_colour_is_refused(name):
    for images in (pictures().float(), pictures()[:, :1], pictures()[0]):
        with pytest.raises(DataError, match=r"uint8 pictures of shape \(N, 3, H, W\)"):
            spoilt(name, images, 0.5)
    with pytest.raises(DataError, match="two or more pictures"):
        spoilt(name, pictures()[:1], 0.5)


def test_swapping_patches_moves_pixels_and_changes_none():
    images = pictures()
    moved = spoilt("patches swapped", images, 1.0)
    assert torch.equal(moved.flatten(2).sort().values, images.flatten(2).sort().values)
    still = (moved == images).all(1).float().mean()
    assert still < 0.05


def test_a_colour_shift_is_the_same_for_all_pictures():
    grey = torch.full((4, 3, 16, 16), 128, dtype=torch.uint8)
    shift = spoilt("colour shift", grey, 0.5).int() - 128
    assert (shift == shift[:1, :, :1, :1]).all()
    assert shift[0, :, 0, 0].sign().tolist() == [1, 0, -1]


def test_a_higher_level_drops_what_a_lower_one_dropped_and_more():
    images = pictures(200)
    kept = [(spoilt("mode dropping", images, level) == images).all((1, 2, 3)) for level in LEVELS]
    for more, fewer in pairwise(kept):
        assert (more | ~fewer).all()
        assert fewer.sum() < more.sum()


def test_at_level_1_a_single_mode_is_left():
    """Four modes, whose pictures differ among themselves by less than they do from others'."""
    colours = torch.tensor([[220, 30, 30], [30, 220, 30], [30, 30, 220], [220, 220, 30]])
    modes = torch.arange(40) % 4
    shade = torch.arange(40).view(-1, 1, 1, 1) // 4
    images = (colours[modes].view(40, 3, 1, 1) + shade).expand(-1, -1, 16, 16).byte()
    left = mode_dropping(images, 1.0, torch.Generator().manual_seed(0))
    assert (left.float() - left[:1].float()).abs().max() < 10


def test_pictures_of_dropped_modes_are_repeated_ones_of_the_others():
    images = pictures(60)
    for picture in spoilt("mode dropping", images, 0.5):
        assert (picture == images).all((1, 2, 3)).any()


def test_a_joined_face_is_a_half_of_each_of_two():
    images = pictures(20)
    joined = spoilt("two faces joined", images, 0.5)
    changed = (joined != images).flatten(1).any(1)
    assert changed.sum() == 10
    assert torch.equal(joined[..., :16], images[..., :16])
    for picture in joined[changed]:
        assert (picture[..., 16:] == images[..., 16:]).all((1, 2, 3)).sum() == 1


def test_a_wholly_blended_face_is_the_mean_of_two():
    black, white = torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), 255)
    images = torch.cat([black, white]).byte()
    blended = spoilt("two faces blended", images, 1.0)
    assert ((blended == 127) | (blended == 128)).all()
