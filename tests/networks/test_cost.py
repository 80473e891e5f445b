import pytest
import torch
from torch import nn

from kao.networks import UNetConfig
from kao.networks.attention import AttentionBlock
from kao.networks.cost import activation_bytes, flops, parameters


class Alone(nn.Module):
    """A layer as a network: the noise level is not used."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, label, condition):
        return self.layer(x)


@pytest.fixture(autouse=True)
def _on_the_meta_device():
    with torch.device("meta"):
        yield


def test_parameters_are_weights_and_biases():
    assert parameters(nn.Conv2d(3, 5, kernel_size=3)) == 5 * 3 * 3 * 3 + 5


def test_a_multiply_add_of_a_convolution_counts_two():
    conv = Alone(nn.Conv2d(3, 5, kernel_size=3, padding=1))
    assert flops(conv, (3, 8, 8)) == 2 * (3 * 3 * 3) * (5 * 8 * 8)


def test_a_stride_saves_its_square():
    plain, strided = (Alone(nn.Conv2d(3, 5, 3, padding=1, stride=s)) for s in (1, 2))
    assert flops(plain, (3, 8, 8)) == 4 * flops(strided, (3, 8, 8))


def test_attention_counts_both_products_and_both_projections():
    block, positions = Alone(AttentionBlock(8, heads=2, groups=32)), 4 * 4
    projections = 2 * positions * 8 * (3 * 8) + 2 * positions * 8 * 8
    assert flops(block, (8, 4, 4)) == projections + 2 * (2 * positions**2 * 8)


def test_a_convolution_keeps_its_input_and_not_its_weights():
    conv = Alone(nn.Conv2d(3, 5, kernel_size=3, padding=1))
    assert activation_bytes(conv, (3, 8, 8), batch=7) == 4 * (7 * 3 * 8 * 8)


def test_what_two_layers_keep_in_common_counts_once():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 5, 1)

        def forward(self, x):
            return self.a(x) + self.b(x)

    assert activation_bytes(Alone(Both()), (3, 8, 8), batch=2) == 4 * (2 * 3 * 8 * 8)


def test_what_a_network_keeps_grows_with_the_batch_and_with_nothing_else():
    network = UNetConfig(width=8, levels=(1, 2), attention=(4,)).build(channels=3, size=8)
    kept = [activation_bytes(network, (3, 8, 8), batch=batch) for batch in (1, 2, 5)]
    assert kept[0] > 0
    assert kept == [kept[0], 2 * kept[0], 5 * kept[0]]
