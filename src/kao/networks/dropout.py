"""Dropout whose masks depend on the picture and on nothing else (Srivastava et al. 2014).

torch's own masks follow the shape of what they fall on and the state of the global generator, so
that a batch in two pieces would be another batch.  Here a mask is a function of a seed of the
picture, of the layer and of the element, by integer arithmetic alone: it is the same in pieces, on
several processes, when it is computed again for a gradient, and on every device.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kao.errors import ConfigError

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
"""2^64 over the golden ratio: the step of SplitMix64's counter, as a signed number."""

_LEVELS = 2**16
"""Of the share that is dropped: one hash of 64 bits decides about four elements."""


class Dropout(nn.Module):
    """Sets a share of the activations to zero and scales the others, in training mode alone.

    Args:
        share: Dropped of each picture's activations on average, 0 or more and below 1; rounded to
            a multiple of 2^-16.
    """

    def __init__(self, share: float):
        super().__init__()
        self.dropped = min(round(share * _LEVELS), _LEVELS - 1)
        self.keys: Tensor | None = None

    def forward(self, h: Tensor) -> Tensor:
        """Map (B, ...) to the same shape.

        Raises:
            ConfigError: It is to drop something, and the network was not given seeds.
        """
        if not self.training or self.dropped == 0:
            return h
        if self.keys is None:
            raise ConfigError(
                "This network drops activations while it trains, and was not told which: put its "
                "forward and backward pass inside kao.networks.dropout.seeded(network, seeds), or "
                "call its eval()."
            )
        count = h[0].numel()
        counter = torch.arange(-(-count // 4), device=h.device)
        hashes = _mixed(self.keys[:, None] + _GOLDEN * counter)
        levels = hashes.view(torch.int16)[:, :count].view(h.shape)  # -2^15 .. 2^15 - 1
        kept = levels >= self.dropped - _LEVELS // 2
        return h * kept * (_LEVELS / (_LEVELS - self.dropped))

    def extra_repr(self) -> str:
        """The share, for print(network)."""
        return str(self.dropped / _LEVELS)


@contextmanager
def seeded(network: nn.Module, seeds: Tensor) -> Iterator[None]:
    """Around the forward and backward pass of some pictures: decides what dropout drops.

    Args:
        network: With `Dropout`s inside, which are numbered in the order of its modules.
        seeds: Of the pictures, (B,), int64, on the device of the network; any numbers do.
    """
    layers = [module for module in network.modules() if isinstance(module, Dropout)]
    number = torch.arange(len(layers), device=seeds.device)
    keys = _mixed(_mixed(seeds + _GOLDEN) + _GOLDEN * number[:, None])
    try:
        for layer, key in zip(layers, keys.unbind(), strict=True):
            layer.keys = key
        yield
    finally:
        for layer in layers:
            layer.keys = None


def _mixed(z: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele et al. 2014): a permutation of the int64, in place."""
    z = z.bitwise_xor_(_shifted(z, 30)).mul_(0xBF58476D1CE4E5B9 - 2**64)
    z = z.bitwise_xor_(_shifted(z, 27)).mul_(0x94D049BB133111EB - 2**64)
    return z.bitwise_xor_(_shifted(z, 31))


def _shifted(z: Tensor, bits: int) -> Tensor:
    """To the right, zeros moving in, whatever the sign."""
    return (z >> bits).bitwise_and_(2 ** (64 - bits) - 1)
