"""What every feature space keeps to."""

import subprocess
import sys

import pytest
import torch
from standins import InceptionStandIn, LPIPSStandIn, scripted, tiny_clip, tiny_dinov2

from kao.errors import ConfigError
from kao.metrics import SPACES, check_weights, open_space

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return {
        "inception": scripted(InceptionStandIn, folder / "inception.pt").path,
        "lpips": scripted(LPIPSStandIn, folder / "vgg16.pt").path,
        "dinov2": tiny_dinov2(folder / "dinov2"),
        "clip": tiny_clip(folder / "clip"),
    }


@pytest.fixture(params=SPACES)
def space(request, weights):
    return open_space(request.param, weights=weights)


def pictures(count, size):
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", [16, 48])
def test_features_are_floats_without_gradients_one_row_a_picture(space, size):
    features = space(pictures(3, size))
    assert features.dtype == torch.float32
    assert features.shape == (3, features.shape[1] if space.width is None else space.width)
    assert features.isfinite().all()
    assert not features.requires_grad


def test_nothing_of_a_space_is_trained(space):
    assert not any(parameter.requires_grad for parameter in space.parameters())


def test_equal_pictures_have_equal_features(space):
    images = pictures(2, 32)
    assert torch.equal(space(images), space(images.clone()))


def test_features_of_a_picture_do_not_depend_on_the_others(space):
    images = pictures(3, 32)
    torch.testing.assert_close(space(images)[1:2], space(images[1:2]), atol=1e-4, rtol=1e-4)


def test_different_pictures_have_different_features(space):
    a, b = space(pictures(2, 32))
    assert not torch.allclose(a, b)


def test_a_space_moves_to_a_device_and_is_still_itself(space):
    assert space.to(torch.device("cpu")) is space


def test_spaces_say_who_they_are(weights):
    opened = [open_space(name, weights=weights) for name in SPACES]
    for name, space in zip(SPACES, opened, strict=True):
        assert space.name.startswith(name)
        assert space.resize
    assert len({space.name for space in opened}) == len(opened)


def test_only_inception_has_two_resizes(weights):
    for name in SPACES:
        one, two = (open_space(name, weights=weights, resize=r).name for r in ("clean", "legacy"))
        assert (one != two) == (name == "inception")


def test_other_weights_are_told(weights):
    told = []
    open_space("inception", weights=weights, tell=told.append)
    assert len(told) == 1
    assert "is not the published inception-2015-12-05.pt" in told[0]


def test_an_unknown_space_is_refused():
    with pytest.raises(ConfigError, match=r'space "inceptoin" \(did you mean "inception"\?\); the'):
        open_space("inceptoin")


def test_an_unknown_resize_is_refused():
    with pytest.raises(ConfigError, match=r'unknown resize "nearest": expected one of \(.clean'):
        open_space("wavelets", resize="nearest")


@pytest.mark.parametrize("name", ["wavelets", "faces", "vgg"])
def test_weights_for_a_space_that_takes_none_are_refused(name, tmp_path):
    with pytest.raises(
        ConfigError, match=f'weights are given for "{name}".*: inception, lpips, di'
    ):
        check_weights({name: tmp_path})


def test_transformers_is_not_imported_before_it_is_asked_for():
    code = "import sys, kao.metrics; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
