import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer, make_resizer

from kao.metrics.resizing import bicubic, clean, rounded


def pictures(height, width):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)
    noise[:, :, : height // 2] = noise[:, :, : height // 2] // 128 * 255  # what overshoots
    return noise


def by_reference(resizer, images):
    resized = [resizer(image) for image in images.permute(0, 2, 3, 1).contiguous().numpy()]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 48), (299, 299), (512, 400)])
def test_clean_is_that_of_clean_fid_to_the_bit(height, width):
    images = pictures(height, width)
    ours, theirs = clean(images, 299), by_reference(build_resizer("clean"), images)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, theirs)


def test_clean_leaves_pictures_of_the_right_size_as_they_are():
    images = pictures(40, 40)
    assert torch.equal(clean(images, 40), images.float())


@pytest.mark.parametrize("size", [32, 224, 300])
def test_rounded_is_that_of_pillow_to_the_bit(size):
    images = pictures(size, size + 8)
    theirs = by_reference(make_resizer("PIL", True, "bicubic", (224, 224)), images)
    assert torch.equal(rounded(images, 224), theirs)


def keys(distance, a):
    """Keys (1981)."""
    d = np.abs(distance)
    near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def weights(size, side):
    """Of each source pixel in each target pixel, (side, size); the border is repeated."""
    source = (np.arange(side) + 0.5) * size / side - 0.5
    taps = np.floor(source)[:, None].astype(int) + np.arange(-1, 3)
    matrix = np.zeros((side, size))
    rows = np.repeat(np.arange(side), 4)
    np.add.at(
        matrix, (rows, taps.clip(0, size - 1).ravel()), keys(source[:, None] - taps, -0.75).ravel()
    )
    return matrix


@pytest.mark.parametrize("size", [20, 100])
def test_bicubic_keeps_its_narrow_kernel_and_does_not_clip(size):
    images = pictures(size, size)
    expected = weights(size, 56) @ (images.numpy() / 255.0) @ weights(size, 56).T
    assert np.abs(bicubic(images, 56).numpy() - expected).max() < 1e-5
    assert expected.max() > 1.01
