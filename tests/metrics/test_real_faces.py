"""What the feature space is worth: on real faces, worse pictures are further away."""

import pytest
import torch
from torch.nn import functional as F

from kao.data import open_source
from kao.data.pictures import fit
from kao.metrics import KernelDistance, Wavelets
from kao.pixels import to_float, to_uint8

SIZE, REAL, OTHER = 32, 400, 200
FILES = ["anime64.zip", "cats128.zip", "faces200.zip"]


@pytest.fixture(scope="module", params=FILES)
def opened(request):
    """What a file holds is read once."""
    return {"name": request.param}


@pytest.fixture
def measure(opened, real_data):
    """The distance of float pictures to real ones, and pictures to spoil; both chosen at random."""
    if "measure" not in opened:
        source, features = open_source(str(real_data(opened["name"])), size=SIZE), Wavelets()
        generator = torch.Generator().manual_seed(0)  # not the first: files are in some order
        indices = torch.randperm(len(source), generator=generator)[: REAL + OTHER].tolist()
        items = [source[i] for i in indices]
        images = [fit(item.image, size=SIZE, crop="centre", name=item.key) for item in items]
        distance = KernelDistance(features(torch.stack(images[:REAL])))
        opened["measure"] = lambda x: distance(features(to_uint8(x)))
        opened["others"] = to_float(torch.stack(images[REAL:]))
    return opened["measure"], opened["others"]


def blurred(x, sigma):
    taps = torch.arange(-8, 9.0)
    kernel = torch.exp(-((taps / sigma) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    x = F.conv2d(F.pad(x, (8, 8, 8, 8), mode="replicate"), kernel, groups=3)
    return F.conv2d(x, kernel.mT, groups=3)


def with_noise(x, std):
    return x + std * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


def with_patches_swapped(x, count):
    x, generator = x.clone(), torch.Generator().manual_seed(1)
    for image in x:
        for _ in range(count):
            a, b, c, d = torch.randint(0, SIZE - 7, (4,), generator=generator).tolist()
            patch = image[:, a : a + 8, b : b + 8].clone()
            image[:, a : a + 8, b : b + 8] = image[:, c : c + 8, d : d + 8]
            image[:, c : c + 8, d : d + 8] = patch
    return x


def with_a_tint(x, strength):
    return x + strength * torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1)


def paler(x, share):
    return x * (1 - share)


def mixed_with_another_face(x, share):
    return (1 - share) * x + share * x.roll(1, 0)


def of_few_modes(x, dropped):
    """All pictures are copies of some of them; the choice is nested."""
    return x[torch.arange(len(x)) % round(len(x) * (1 - dropped))]


SPOILT = {
    blurred: (0.4, 0.5, 0.7, 1, 1.5, 2),
    with_noise: (0.04, 0.08, 0.16, 0.32),
    with_patches_swapped: (1, 2, 4, 8),
    with_a_tint: (0.05, 0.1, 0.2, 0.4),
    paler: (0.1, 0.2, 0.4),
    mixed_with_another_face: (0.1, 0.2, 0.35, 0.5),
    of_few_modes: (0.75, 0.9, 0.97, 0.99),
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_the_more_pictures_are_spoilt_the_further_away_they_are(spoil, measure):
    distance, others = measure
    whole = distance(others)
    assert abs(whole.value) < 3 * whole.error
    scores = [distance(spoil(others, much)) for much in SPOILT[spoil]]
    values = [whole.value, *(score.value for score in scores)]
    assert values == sorted(values)
    assert scores[-1].value > 5 * scores[-1].error
