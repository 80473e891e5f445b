import math

import pytest
import torch

from kao.errors import ConfigError
from kao.metrics import Wavelets
from kao.pixels import to_float, to_uint8


@pytest.fixture(scope="module")
def wavelets():
    return Wavelets()


def noise(count, size, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def wave(size, period, *, vertical=False, height=0.5):
    """A grey picture of stripes."""
    ramp = height * torch.cos(2 * math.pi * torch.arange(size) / period)
    picture = ramp.expand(size, size)
    return (picture.T if vertical else picture).expand(1, 3, size, size)


@pytest.mark.parametrize("size", [16, 17, 31, 32, 48, 64, 100, 128])
def test_every_size_gives_the_same_number_of_features(size, wavelets):
    found = wavelets(noise(2, size))
    assert (found.shape, found.dtype) == ((2, wavelets.width), torch.float32)
    assert found.isfinite().all()


def test_equal_pictures_have_equal_features_whatever_is_beside_them(wavelets):
    images = noise(5, 32)
    five = wavelets(images)
    assert torch.equal(five, Wavelets()(images))
    assert torch.allclose(five[2:3], wavelets(images[2:3]), atol=1e-5)


def test_bytes_and_floats_have_the_same_features(wavelets):
    images = noise(2, 32)
    assert torch.equal(wavelets(images), wavelets.maps(to_float(images)))
    assert torch.equal(to_uint8(to_float(images)), images)


def test_a_grey_picture_is_its_brightness_and_no_edges(wavelets):
    dark, light = (wavelets.maps(torch.full((1, 3, 32, 32), v))[0] for v in (-0.5, 0.5))
    assert torch.allclose(dark[:64], torch.tensor(-0.5), atol=1e-6)
    assert torch.allclose(light[:64], torch.tensor(0.5), atol=1e-6)
    assert torch.allclose(dark[64:], light[64:], atol=1e-4)


def test_colour_is_told_from_brightness(wavelets):
    red, grey = torch.zeros(2, 1, 3, 32, 32)
    red[:, 0], red[:, 1] = 0.587, -0.299  # as bright as grey
    a, b = wavelets.maps(red)[0], wavelets.maps(grey)[0]
    assert torch.allclose(a[:64], b[:64], atol=1e-6)
    assert (a[64:96] - b[64:96]).abs().min() > 0.05


def first_octave(features):
    """(4 directions, 4, 4): log-energy of brightness in the finest octave."""
    return features[0, 96 : 96 + 64].view(4, 4, 4)


def test_the_direction_of_stripes_is_seen(wavelets):
    across = first_octave(wavelets.maps(wave(32, 8 / 3)))
    down = first_octave(wavelets.maps(wave(32, 8 / 3, vertical=True)))
    assert (across[0] > across[2] + 1).all()
    assert torch.allclose(across[0], down[2].T, atol=1e-4)


def test_a_wave_of_a_filters_own_kind_has_its_amplitude_as_energy(wavelets):
    """3 pi / 4 a pixel is a period of 8 / 3; cells at the border see its end."""
    energy = first_octave(wavelets.maps(wave(32, 8 / 3, height=0.5)))[0, 1:3, 1:3].exp()
    assert torch.allclose(energy, torch.tensor(0.5), rtol=0.1)


def test_each_octave_answers_to_its_own_size_of_stripes(wavelets):
    def energies(period):
        found = wavelets.maps(wave(64, period))[0]
        # an octave: 64 of brightness, 8 of colour, and 16 for each finer one
        starts = (96, 96 + 72, 96 + 2 * 72 + 16)
        return torch.stack([found[start : start + 16].mean() for start in starts])

    assert [int(energies(8 / 3 * 2**k).argmax()) for k in range(3)] == [0, 1, 2]


def test_a_perceptual_term_has_gradients_everywhere(wavelets):
    grey = torch.zeros(1, 3, 32, 32, requires_grad=True)
    drawn = (to_float(noise(1, 32)) * 0.1).requires_grad_()
    for x in (grey, drawn):
        wavelets.maps(x).square().sum().backward()
        assert x.grad.isfinite().all()
    assert (drawn.grad != 0).float().mean() > 0.99


def test_features_have_no_gradients_and_no_state(wavelets):
    assert not wavelets(noise(1, 32)).requires_grad
    assert not list(wavelets.parameters())
    assert not wavelets.state_dict()


@pytest.mark.parametrize("shape", [(1, 3, 15, 15), (1, 3, 32, 16), (1, 1, 32, 32), (3, 32, 32)])
def test_other_shapes_are_refused(shape, wavelets):
    with pytest.raises(ConfigError, match="square RGB pictures of 16 pixels or more, and these"):
        wavelets(torch.zeros(shape, dtype=torch.uint8))
