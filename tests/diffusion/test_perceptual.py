import math

import pytest
import torch
from torch import Tensor, nn

from kao.diffusion import Flow, Level
from kao.diffusion.perceptual import Perceptual
from kao.errors import ConfigError


class Means(nn.Module):
    """The mean of each channel, scaled by a trainable number; keeps what it was called with."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.calls: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(x.detach())
        return self.scale * x.mean((2, 3))


def levels(*t: float) -> Level:
    return Flow().build()(torch.tensor(t, dtype=torch.float64))


def pair(batch: int) -> tuple[Tensor, Tensor]:
    x0_hat, x0 = torch.randn(2, batch, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return x0_hat.requires_grad_(), x0


def test_it_is_the_weighted_squared_distance_of_features_below_the_level():
    # sigma / alpha is 0.25, 1, 4 and infinite.
    x0_hat, x0 = pair(4)
    added = Perceptual(Means(), weight=0.5, below=2.0)(x0_hat, x0, levels(0.2, 0.5, 0.8, 1.0))
    distance = (3 * (x0_hat - x0).mean((2, 3))).square().sum(1)
    torch.testing.assert_close(added[:2], 0.5 * distance[:2])
    assert torch.equal(added[2:], torch.zeros(2))


def test_images_above_the_level_never_reach_the_features():
    x0_hat, x0 = pair(3)
    features = Means()
    perceptual = Perceptual(features, weight=1.0, below=1.5)
    perceptual(x0_hat, x0, levels(0.7, 0.3, 1.0))
    assert [len(x) for x in features.calls] == [1, 1]
    assert {x.sum().item() for x in features.calls} == {x0_hat[1].sum().item(), x0[1].sum().item()}
    features.calls.clear()
    added = perceptual(x0_hat, x0, levels(0.7, 0.8, 1.0))
    assert features.calls == [] and torch.equal(added, torch.zeros(3))


def test_a_weight_of_zero_calls_nothing():
    features = Means()
    added = Perceptual(features, weight=0.0, below=1.0)(*pair(2), levels(0.1, 0.2))
    assert features.calls == [] and torch.equal(added, torch.zeros(2))


def test_the_gradient_goes_to_the_prediction_and_not_to_the_features():
    x0_hat, x0 = pair(2)
    x0.requires_grad_()
    features = Means()
    Perceptual(features, weight=1.0, below=1.0)(x0_hat, x0, levels(0.1, 0.9)).sum().backward()
    assert x0_hat.grad[0].abs().min() > 0 and x0_hat.grad[1].abs().max() == 0
    assert x0.grad is None and features.scale.grad is None


def test_features_are_frozen_and_in_eval_mode():
    features = Means()
    Perceptual(features, weight=1.0, below=1.0)
    assert not features.training and not features.scale.requires_grad


def test_features_see_full_precision_under_autocast():
    seen = []

    def features(x: Tensor) -> Tensor:
        seen.append((x.flatten(1) @ torch.ones(48, 2)).dtype)
        return x.mean((2, 3))

    with torch.autocast("cpu", torch.bfloat16):
        Perceptual(features, weight=1.0, below=1.0)(*pair(1), levels(0.1))
    assert seen == [torch.float32] * 2


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_weight_out_of_range_is_refused(value):
    with pytest.raises(ConfigError, match=r"loss\.perceptual\.weight = "):
        Perceptual(Means(), weight=value, below=1.0)


@pytest.mark.parametrize("value", [-1.0, 0.0, math.nan, math.inf])
def test_a_level_out_of_range_is_refused(value):
    with pytest.raises(ConfigError, match=r"loss\.perceptual\.below = "):
        Perceptual(Means(), weight=1.0, below=value)
