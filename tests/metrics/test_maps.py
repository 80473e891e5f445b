import pytest
import torch

from kao.errors import ConfigError
from kao.metrics import Wavelets, feature_maps

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


def pictures(count, size):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Published(torch.nn.Module):
    """Has the arguments of LPIPS's VGG-16 as published in TorchScript."""

    def forward(self, x: torch.Tensor, resize_images: bool = True, return_lpips: bool = False):
        assert return_lpips and not resize_images
        return x.mean(dim=[2, 3])


def saved(network, file):
    torch.jit.save(torch.jit.script(network), str(file))
    return str(file)


def test_wavelets_are_found_by_name():
    x = pictures(2, 32)
    assert torch.equal(feature_maps("wavelets")(x), Wavelets().maps(x))


def test_a_network_from_a_file_becomes_one_vector_a_picture(tmp_path):
    network, x = torch.nn.Conv2d(3, 4, 3), pictures(2, 16)
    maps = feature_maps(saved(network, tmp_path / "network.pt"))
    assert torch.allclose(maps(x), network(x).flatten(1))


def test_a_network_from_a_file_is_frozen_and_lets_gradients_through(tmp_path):
    maps = feature_maps(saved(torch.nn.Conv2d(3, 4, 3), tmp_path / "network.pt"))
    x = pictures(1, 16).requires_grad_()
    maps(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in maps.parameters())


def test_lpips_is_known_by_its_argument_and_shown_bytes(tmp_path):
    maps = feature_maps(saved(Published(), tmp_path / "vgg16.pt"))
    assert torch.allclose(maps(torch.full((2, 3, 8, 8), 0.0)), torch.tensor(127.5))
    assert torch.allclose(maps(torch.full((2, 3, 8, 8), 1.0)), torch.tensor(255.0))


def test_a_network_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match='There is no feature network "lpips": expected "wave'):
        feature_maps("lpips")


def test_a_file_that_holds_no_network_is_refused(tmp_path):
    file = tmp_path / "network.pt"
    file.write_text("no network")
    with pytest.raises(
        ConfigError,
        match=r"network\.pt cannot be read as TorchScript: give a file that torch\.jit\.save ",
    ):
        feature_maps(str(file))
