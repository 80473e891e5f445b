"""Embeddings of the noise level: what a network is told of it, before its first linear layer.

Shape letters: B batch, E embedding width.
"""

import math

import torch
from torch import Tensor, nn

_FOURIER_SCALE = 16.0
"""Standard deviation of Fourier frequencies, in turns a unit of c_noise (Song et al. 2021b)."""


def sinusoids(
    label: Tensor, width: int, *, endpoint: bool = True, theta: float = 10_000.0
) -> Tensor:
    """Sinusoidal embedding of a noise label (Vaswani et al. 2017, sec. 3.5; Ho et al. 2020).

    Frequencies fall geometrically from 1 to 1 / theta, so labels should span about 0..1000.

    Args:
        label: float32, (B,).
        width: Even; 4 or more with `endpoint`.
        endpoint: Whether the last frequency is 1 / theta, theta^(-i / (half - 1)), as Ho et al.
            (2020) have it; or stops before it, theta^(-i / half), as with Nichol & Dhariwal (2021)
            and what descends from them.
        theta: Above 1; how many times the shortest wavelength the longest is, or nearly.

    Returns:
        float32, (B, width): sines, then cosines.
    """
    half = width // 2
    steps = half - 1 if endpoint else half
    # In the order in which published networks round it: at a label of 999 another order turns the
    # fastest angles by 5e-5, and a network with their weights says something else by 1e-5.
    exponent = -math.log(theta) * torch.arange(half, device=label.device, dtype=torch.float32)
    angle = label[:, None] * torch.exp(exponent / steps)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class Sinusoids(nn.Module):
    """`sinusoids` as a layer without parameters.

    Args:
        width: Of the embedding, even.
        endpoint: As in `sinusoids`.
    """

    def __init__(self, width: int, *, endpoint: bool):
        super().__init__()
        self.width, self.endpoint = width, endpoint

    def forward(self, label: Tensor) -> Tensor:
        """Map (B,), float32, about 0..1000, to (B, width), float32."""
        return sinusoids(label, self.width, endpoint=self.endpoint)


class Fourier(nn.Module):
    """Sines and cosines of many frequencies (Tancik et al. 2020), as in NCSN++ (Song et al. 2021b).

    Published networks draw the frequencies once from N(0, 16^2), in turns a unit of the label over
    1000, and keep them.  Here they are that law's quantiles, one in the middle of each equal part
    of it: the same spread without chance.  Of negative ones, which add nothing to the positive,
    there are none.  They lie in the state dict, so that those of a published network can replace
    them.

    Args:
        width: Of the embedding, even.
    """

    frequencies: Tensor

    def __init__(self, width: int):
        super().__init__()
        half = width // 2
        share = (torch.arange(half, dtype=torch.float64) + 0.5) / half
        quantiles = torch.special.ndtri((1 + share) / 2)
        self.register_buffer("frequencies", (_FOURIER_SCALE * quantiles).float())

    def forward(self, label: Tensor) -> Tensor:
        """Map (B,), float32, about 0..1000, to (B, width), float32: sines, then cosines."""
        angle = 2 * math.pi * label[:, None] / 1000 * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=1)
