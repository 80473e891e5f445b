"""The bundled feature network: what it is, and what it ranks on toy faces and real ones."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file, save_file

from kao.data import open_source
from kao.data.pictures import fit
from kao.data.toy_faces import ToyFaces
from kao.errors import ConfigError
from kao.metrics import Faces, KernelDistance, features_distance, moments
from kao.metrics.corruptions import CORRUPTIONS
from kao.metrics.gaussians import Gaussian
from kao.metrics.spaces.faces import BUNDLED

HASHES = {
    "faces-1": "bc6ae14fd5432ae471d8e86f3185e603c6718396af1c3ee03619f37012d6a819",
}
"""SHA-256 of the weights of each version; a new file is a new version, with a line of its own."""

N = 160  # pictures of each of the two sets
LEVELS = (0.0, 0.3, 0.65, 1.0)


@pytest.fixture(scope="module")
def faces():
    return Faces()


def noise(count, size, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def test_the_weights_are_those_of_the_version_that_they_name(faces):
    assert hashlib.sha256(BUNDLED.read_bytes()).hexdigest() == HASHES[faces.name]


def test_the_weights_are_small():
    assert BUNDLED.stat().st_size < 2e6


@pytest.mark.parametrize("size", [8, 16, 32, 33, 64, 100])
def test_every_size_gives_the_same_number_of_features(size, faces):
    found = faces(noise(2, size))
    assert (found.shape, found.dtype) == ((2, faces.width), torch.float32)
    assert found.isfinite().all()


def test_equal_pictures_have_equal_features_whatever_is_beside_them(faces):
    images = noise(5, 32)
    five = faces(images)
    assert torch.equal(five, Faces()(images))
    assert torch.allclose(five[2:3], faces(images[2:3]), atol=1e-4)


def test_features_of_toy_faces_are_of_the_order_of_1_and_say_different_things(faces):
    toys = ToyFaces(200, size=32, seed=1)
    found = faces(torch.stack([toy.image for toy in toys])).double()
    assert 0.3 < found.std(0).median() < 3
    values = torch.linalg.eigvalsh(torch.cov(found.T)).clamp(min=0)
    assert values.sum().square() / values.square().sum() > 5  # dimensions that matter


def test_features_have_no_gradients(faces):
    assert not faces(noise(1, 32)).requires_grad
    assert not any(p.requires_grad for p in faces.parameters())


def test_pictures_that_are_not_square_are_refused(faces):
    with pytest.raises(ConfigError, match="takes square pictures and these are 16 x 32"):
        faces(torch.zeros(1, 3, 32, 16, dtype=torch.uint8))


def test_another_file_is_refused(tmp_path):
    for name, content in (("empty", b""), ("text", b"not weights")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match="holds no weights of the bundled feature network"):
            Faces(tmp_path / name)
    with pytest.raises(ConfigError, match="holds no weights of the bundled feature network"):
        Faces(tmp_path / "missing")


def test_weights_of_another_shape_are_refused(tmp_path):
    weights = load_file(BUNDLED)
    weights.pop("axes")
    save_file(weights, tmp_path / "other", metadata={"name": "faces-0"})
    with pytest.raises(ConfigError, match="holds no weights of the bundled feature network"):
        Faces(tmp_path / "other")


class Ranked:
    """Distances of damaged pictures to real ones, the pictures read once."""

    def __init__(self, images, faces):
        real, self.others = images.chunk(2)
        self.faces, features = faces, faces(real)
        self.kernel, self.gaussian = KernelDistance(features), Gaussian(*moments(features))
        self.whole = faces(self.others)

    def check(self, kind):
        damaged = [
            self.faces(CORRUPTIONS[kind](self.others, level, torch.Generator().manual_seed(0)))
            for level in LEVELS[1:]
        ]
        distances = [lambda features: self.kernel(features).value]
        # Between so few pictures a Frechet distance is mostly its bias, and a blend lowers that.
        if kind != "two faces blended":
            distances.append(lambda features: features_distance(drawn=features, real=self.gaussian))
        for distance in distances:
            values = [distance(features) for features in (self.whole, *damaged)]
            assert values == sorted(set(values))


@pytest.fixture(scope="module")
def toys(faces):
    """Toy faces of a set that the training did not see."""
    drawn = ToyFaces(2 * N, size=32, seed=1)
    return Ranked(torch.stack([toy.image for toy in drawn]), faces)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_more_toy_faces_are_damaged_the_further_away_they_are(kind, toys):
    toys.check(kind)


@pytest.fixture(scope="module", params=["anime64.zip", "cats128.zip", "faces200.zip"])
def opened(request):
    """What a file holds is read once."""
    return {"name": request.param}


@pytest.fixture
def real_faces(opened, real_data, faces):
    if "ranked" not in opened:
        source = open_source(str(real_data(opened["name"])), size=32)
        lot = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))[: 2 * N]
        items = [source[i] for i in lot.tolist()]
        images = [fit(item.image, size=32, crop="centre", name=item.key) for item in items]
        opened["ranked"] = Ranked(torch.stack(images), faces)
    return opened["ranked"]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_more_real_faces_are_damaged_the_further_away_they_are(kind, real_faces):
    real_faces.check(kind)
