"""Small transformers, as their tests share them."""

from dataclasses import replace

import pytest
import torch

from kao.networks import DiTConfig, Takes

TINY = DiTConfig(width=16, depth=2, heads=2, patch=4)
OPTIONS = {
    "sincos": TINY,
    "rotary": replace(TINY, positions="rotary", qk_norm=True),
    "learned": replace(TINY, positions="learned", norm="rms"),
}
every_option = pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)
LABEL = torch.tensor([10.0, 500.0])


def pictures(height=16, width=16):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def asleep(config, *, size=16, **takes):
    """A network as it starts."""
    torch.manual_seed(0)
    return config.build(channels=3, size=size, takes=Takes(**takes))


def awake(config, *, size=16, **takes):
    """A network whose every weight has moved, as after some training."""
    network = asleep(config, size=size, **takes)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network
