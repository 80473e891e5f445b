import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer, make_resizer

from kao.metrics.resizing import clean, rounded


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
