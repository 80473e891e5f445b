import pytest
import torch
from cleanfid.resize import build_resizer
from standins import OTHER, InceptionStandIn, LPIPSStandIn, scripted

from kao.errors import ConfigError
from kao.metrics import LPIPS, Inception, WeightFile
from kao.metrics.weights import INCEPTION, VGG16

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    return scripted(InceptionStandIn, tmp_path_factory.mktemp("weights") / "inception.pt")


@pytest.fixture(scope="module")
def lpips(tmp_path_factory):
    return scripted(LPIPSStandIn, tmp_path_factory.mktemp("weights") / "vgg16.pt")


def pictures(count, size):
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def network(weights):
    return torch.jit.load(str(weights.path))


@torch.no_grad()
def test_clean_features_are_those_of_clean_fid(inception):
    images = pictures(2, 40)
    resize = build_resizer("clean")
    resized = [resize(image) for image in images.permute(0, 2, 3, 1).contiguous().numpy()]
    x = torch.stack([torch.from_numpy(one) for one in resized]).permute(0, 3, 1, 2).contiguous()
    expected = network(inception).layers((x - 128) / 128).flatten(1)
    assert torch.equal(Inception(inception)(images), expected)


@torch.no_grad()
def test_legacy_features_are_those_of_the_whole_network(inception):
    images = pictures(2, 40)
    expected = network(inception)(images, return_features=True)
    assert torch.equal(Inception(inception, resize="legacy")(images), expected)


@pytest.mark.parametrize("size", [40, 400])
@torch.no_grad()
def test_legacy_is_bilinear_on_the_grid_of_tensorflow_1(inception, size):
    images = pictures(2, size)
    source = torch.arange(299, dtype=torch.float64) * size / 299
    low = source.long()
    high, part = (low + 1).clamp(max=size - 1), source - low
    matrix = torch.zeros(299, size, dtype=torch.float64)
    matrix[range(299), low] += 1 - part
    matrix[range(299), high] += part
    x = (matrix @ images.double() @ matrix.T).float()
    expected = network(inception).layers((x - 128) / 128).flatten(1)
    torch.testing.assert_close(
        Inception(inception, resize="legacy")(images), expected, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("resize", ["clean", "legacy"])
def test_features_of_many_pictures_are_those_of_each(inception, resize):
    images, see = pictures(35, 16), Inception(inception, resize=resize)
    alone = torch.cat([see(image[None]) for image in images[[0, 20, 34]]])
    torch.testing.assert_close(see(images)[[0, 20, 34]], alone)


@torch.no_grad()
def test_probabilities_leave_the_bias_out(inception):
    images, see = pictures(3, 40), Inception(inception, resize="legacy")
    expected = network(inception)(images, no_output_bias=True)
    probabilities = see.probabilities(see(images))
    torch.testing.assert_close(probabilities, expected)
    assert not torch.allclose(probabilities, network(inception)(images))


def test_the_name_carries_the_hash_and_the_resize(inception, lpips):
    real = WeightFile(inception.path, INCEPTION.sha256)
    assert Inception(real).name == "inception-f58cb9b6"
    assert Inception(real, resize="legacy").name == "inception-f58cb9b6-legacy"
    assert Inception(inception).name == f"inception-{OTHER[:8]}"
    assert LPIPS(WeightFile(lpips.path, VGG16.sha256)).name == "lpips-vgg16-b437eb09"


@torch.no_grad()
def test_squared_distance_of_lpips_vectors_is_lpips(lpips):
    images = pictures(2, 32)
    a, b = LPIPS(lpips)(images).double()
    layers = torch.jit.load(str(lpips.path))
    first = layers.first(images / 127.5 - 1).relu()
    second = layers.second(torch.nn.functional.max_pool2d(first, 2)).relu()
    # Zhang et al. (2018), eq. 1: unit vectors over channels, averaged over places.
    unit = [x / x.norm(dim=1, keepdim=True).clamp(min=1e-5) for x in (first, second)]
    expected = sum((x[0] - x[1]).square().sum(0).mean() for x in unit)
    assert (a - b).square().sum().item() == pytest.approx(expected.item(), rel=1e-4)


def test_pictures_too_small_for_lpips_are_refused(lpips):
    with pytest.raises(ConfigError, match="are of 8 x 8 pixels; expected 16 or more"):
        LPIPS(lpips)(pictures(1, 8))


def test_floats_are_refused(lpips):
    with pytest.raises(
        ConfigError, match=r"and these are torch\.float32 of shape \(1, 3, 16, 16\)"
    ):
        LPIPS(lpips)(pictures(1, 16).float())


def test_the_file_of_another_network_is_refused(inception, lpips):
    with pytest.raises(ConfigError, match="holds another network than Inception for FID: give"):
        Inception(lpips)
    with pytest.raises(ConfigError, match="holds another network than VGG-16 with LPIPS: give"):
        LPIPS(inception)


def test_a_file_that_is_no_torchscript_is_refused(tmp_path):
    (tmp_path / "half.pt").write_bytes(b"PK half an archive")
    with pytest.raises(ConfigError, match=r"half\.pt cannot be read as TorchScript"):
        Inception(WeightFile(tmp_path / "half.pt", OTHER))


def test_surroundings_change_no_feature(inception):
    images, see = pictures(2, 40), Inception(inception)
    expected = see(images)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(see(images), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
