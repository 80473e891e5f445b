from dataclasses import replace

import numpy as np
import pytest
import torch

from kao.data.augment import AugmentConfig, augment
from kao.errors import ConfigError

OFF = AugmentConfig(flip=False)
EACH = [
    AugmentConfig(flip=True),
    replace(OFF, crop=3),
    replace(OFF, blur=1.5),
    replace(OFF, jitter=0.4),
    replace(OFF, edm=0.5),
    AugmentConfig(flip=True, crop=2, blur=1.0, jitter=0.2, edm=0.5),
]
each = pytest.mark.parametrize("config", EACH, ids=str)


def pictures(count=6, size=12, *, low=0, high=256):
    generator = torch.Generator().manual_seed(9)
    shape = (count, 3, size, size)
    return torch.randint(low, high, shape, generator=generator, dtype=torch.uint8)


def done(images, config, seed=0):
    return augment(images, config.draw(len(images), torch.Generator().manual_seed(seed)))


# --- all of them --------------------------------------------------------------------------------


def test_what_is_off_changes_nothing_and_draws_nothing():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    images = pictures()
    assert torch.equal(augment(images, OFF.draw(len(images), generator)), images)
    assert torch.equal(generator.get_state(), before)


@each
def test_the_same_seed_gives_the_same_pictures_and_another_gives_others(config):
    images = pictures()
    assert torch.equal(done(images, config, 1), done(images, config, 1))
    assert not torch.equal(done(images, config, 1), done(images, config, 2))


@each
def test_bytes_of_the_same_shape_come_out_and_the_batch_that_came_in_is_left_alone(config):
    images = pictures()
    before = images.clone()
    changed = done(images, config)
    assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)


@each
def test_pictures_are_changed_each_in_its_own_way(config):
    images = pictures(1).expand(16, -1, -1, -1)
    assert len({changed.numpy().tobytes() for changed in done(images, config)}) > 1


@each
def test_one_picture_is_a_batch(config):
    assert done(pictures(1), config).shape == (1, 3, 12, 12)


@each
@pytest.mark.parametrize("rows", [slice(0, 1), slice(2, 7), slice(7, 16)], ids=str)
def test_some_rows_of_a_batch_are_changed_as_they_are_in_the_whole(config, rows):
    images = pictures(16)
    draws = config.draw(16, torch.Generator().manual_seed(3))
    assert torch.equal(augment(images[rows], draws.rows(rows)), augment(images, draws)[rows])


# --- flip ---------------------------------------------------------------------------------------


def test_half_of_the_pictures_are_mirrored_left_to_right_and_the_others_left_alone():
    images = pictures(1000, 4)
    changed = done(images, AugmentConfig(flip=True))
    mirrored = (changed == images.flip(-1)).flatten(1).all(1)
    kept = (changed == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    # 1000 tosses: 500, with a standard deviation of 16.
    assert 400 < mirrored.sum() < 600


# --- crop ---------------------------------------------------------------------------------------


def shifts(image, reach):
    """All that a crop may make of a picture, by NumPy's reflection: (rows, columns) -> picture."""
    size = image.shape[-1]
    wide = np.pad(image.numpy(), ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    return {
        (y - reach, x - reach): wide[:, y : y + size, x : x + size]
        for y in range(2 * reach + 1)
        for x in range(2 * reach + 1)
    }


@pytest.mark.parametrize(("size", "reach"), [(8, 1), (8, 3), (5, 3)])
def test_a_crop_moves_a_picture_by_up_to_its_reach_and_reflects_the_edges(size, reach):
    images = pictures(400, size)
    changed = done(images, replace(OFF, crop=reach)).numpy()
    met = []
    for before, after in zip(images, changed, strict=True):
        fits = [s for s, wanted in shifts(before, reach).items() if np.array_equal(after, wanted)]
        assert len(fits) == 1
        met += fits
    assert {y for y, _ in met} == {x for _, x in met} == set(range(-reach, reach + 1))


# --- blur ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("blur", [1e-3, 1e-46])  # as float32, the second is 0
def test_a_blur_of_next_to_nothing_changes_no_pixel(blur):
    images = pictures()
    assert torch.equal(done(images, replace(OFF, blur=blur)), images)


def test_a_blur_keeps_the_mean_and_lessens_the_contrast():
    # Away from the edges, which a reflection counts twice.
    images = torch.zeros(32, 3, 24, 24, dtype=torch.uint8)
    images[:, :, 11:13, 11:13] = 240
    changed = done(images, replace(OFF, blur=2.0)).float()
    assert changed.mean((1, 2, 3)).tolist() == pytest.approx(
        [images.float().mean((1, 2, 3))[0].item()] * 32, rel=0.15
    )
    assert changed.amax((1, 2, 3)).min() < 100
    assert len(set(changed.amax((1, 2, 3)).tolist())) > 10


def test_an_even_colour_stays_what_it_is_under_a_blur():
    images = torch.full((4, 3, 16, 16), 77, dtype=torch.uint8)
    assert torch.equal(done(images, replace(OFF, blur=4.0)), images)


def test_a_blur_is_gaussian_with_the_standard_deviation_that_each_picture_drew():
    images = torch.zeros(5, 3, 31, 31, dtype=torch.uint8)
    images[:, :, 15] = 255  # a bright row: across it, the picture is the kernel
    std = 3.0 * torch.rand(5, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    profiles = done(images, replace(OFF, blur=3.0))[:, :, :, 15].double()
    offsets = torch.arange(-15, 16, dtype=torch.float64)
    kernels = torch.exp(-0.5 * (offsets / std[:, None]) ** 2)
    expected = 255 * kernels / kernels.sum(1, keepdim=True)
    for channel in range(3):
        torch.testing.assert_close(profiles[:, channel], expected, atol=1.0, rtol=0)
    assert std.max() > 2 * std.min()


def test_a_blur_does_not_mix_channels_or_pictures():
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    images[0, 0] = pictures(1, 16)[0, 0]
    changed = done(images, replace(OFF, blur=3.0))
    assert changed[0, 0].any()
    assert not changed[0, 1:].any() and not changed[1].any()


# --- jitter -------------------------------------------------------------------------------------


def test_brightness_contrast_and_saturation_stay_within_the_jitter():
    # An even grey has neither contrast nor saturation: what is left is brightness.
    grey = torch.full((500, 3, 4, 4), 100, dtype=torch.uint8)
    changed = done(grey, replace(OFF, jitter=0.2))
    assert (changed == changed[:, :1, :1, :1]).all()
    assert 80 <= changed.min() < 84 and 116 < changed.max() <= 120


def test_jitter_scales_contrast_about_the_mean_and_saturation_about_grey():
    images = pictures(300, 8, low=100, high=156).float()
    changed = done(images.to(torch.uint8), replace(OFF, jitter=0.2)).float()
    luma = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)

    def grey(x):
        return (x * luma).sum(1)

    def deviation(x):
        return x.flatten(1).std(1)

    def brightness(x):
        return grey(x).mean((1, 2))

    bright = brightness(changed) / brightness(images)
    contrast = deviation(grey(changed)) / deviation(grey(images)) / bright
    colour = [x[:, 0] - grey(x) for x in (images, changed)]
    saturation = deviation(colour[1]) / deviation(colour[0]) / bright / contrast
    for factor in (bright, contrast, saturation):
        # The factors are drawn from 0.8 .. 1.2; rounding to bytes blurs them a little.
        assert 0.78 < factor.min() < 0.83 and 1.17 < factor.max() < 1.22
        assert factor.mean() == pytest.approx(1, abs=0.03)


def test_jitter_stays_within_bytes():
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(96).reshape(2, 3, 8, 4)
    changed = done(images.repeat(20, 1, 1, 2), replace(OFF, jitter=0.9))
    dark = changed[..., ::2]
    assert changed.max() == 255 and dark.min() == 0


# --- what cannot work ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (AugmentConfig(crop=16), "data.augment.crop = 16; expected 0 to 15 pixels for pictures of"),
        (AugmentConfig(crop=-1), "data.augment.crop = -1; expected 0 to 15 pixels"),
        (
            AugmentConfig(blur=4.5),
            "data.augment.blur = 4.5; expected a standard deviation of 0 to 4",
        ),
        (AugmentConfig(blur=-1.0), "data.augment.blur = -1.0; expected"),
        (AugmentConfig(blur=float("nan")), "data.augment.blur = nan; expected"),
        (AugmentConfig(jitter=1.0), "data.augment.jitter = 1.0; expected 0 or more, below 1."),
        (AugmentConfig(edm=1.1), "data.augment.edm = 1.1; expected a probability from 0 to 1"),
        (AugmentConfig(edm=-0.1), "data.augment.edm = -0.1; expected a probability"),
        (AugmentConfig(edm=float("nan")), "data.augment.edm = nan; expected a probability"),
        (AugmentConfig(jitter=-0.1), "data.augment.jitter = -0.1; expected 0 or more, below 1."),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_words(config, words):
    with pytest.raises(ConfigError) as caught:
        config.check(16)
    assert words in str(caught.value)


@pytest.mark.parametrize("size", [8, 9, 11, 64])
def test_the_largest_values_that_are_allowed_work(size):
    config = AugmentConfig(crop=size - 1, blur=size / 4, jitter=0.99, edm=1.0)
    config.check(size)
    for seed in range(5):
        assert done(pictures(3, size), config, seed).shape == (3, 3, size, size)
