"""Features that need no weights: a small scattering transform."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kao.errors import ConfigError
from kao.pixels import to_float

ORIENTATIONS = 4
OCTAVES = 3
SIDES = (64, 32, 16)
"""Sides in pixels at which pictures are looked at."""

_LUMA_CELLS = 8  # a side of the grid of brightness
_CELLS = 4  # a side of the grid of colour and of band energy
_FLOOR = 0.02  # of band energy, in units of [-1, 1]: below it is what rounding to bytes adds
_REACH = 3  # of the filters, pixels: three standard deviations of their envelope


class Wavelets(nn.Module):
    """Where colours lie and how much of each direction and size of edge is where.

    A small scattering transform (Bruna & Mallat 2013).  It needs no weights and no download,
    sees what samplers get wrong (noise left over, lost detail, wrong colours, wrong layout),
    and knows nothing of what a face is.  A picture becomes

    * its brightness on a grid of 8 x 8 and its two colour differences on one of 4 x 4;
    * the energy of brightness in each of 3 octaves and 4 directions, on a grid of 4 x 4, and
      that of the colour differences in each octave, on a grid of 2 x 2: log |x * psi|,
      averaged over the cell before the logarithm;
    * the energy that the coarser octaves find in the magnitudes of the finer ones, for each
      pair of directions, over the whole picture: the second order, which tells texture from
      single edges.

    Pictures of 64 pixels and more are looked at in 64, those of 32 to 63 in 32 and those of 16
    to 31 in 16, after antialiased bilinear resizing; so the width never changes, and only
    distances between pictures of one size compare.

    Nothing is learned and nothing random: equal pictures have equal features, and `maps` has
    gradients everywhere.
    """

    filters: Tensor
    smooth: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.name = "wavelets-1"
        self.resize = "to 16, 32 or 64 pixels, bilinear"
        pairs = OCTAVES * (OCTAVES - 1) // 2
        self.width = (
            _LUMA_CELLS**2
            + 2 * _CELLS**2
            + OCTAVES * (ORIENTATIONS * _CELLS**2 + 2 * (_CELLS // 2) ** 2)
            + pairs * ORIENTATIONS**2
        )
        self.register_buffer("filters", _morlets(), persistent=False)
        # Half-band (Deslauriers & Dubuc 1989): next to nothing of the finer octave folds back.
        tap = torch.tensor([-1.0, 0.0, 9.0, 16.0, 9.0, 0.0, -1.0]) / 32
        self.register_buffer("smooth", torch.outer(tap, tap), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features of pictures, without gradients; see `Features.__call__`."""
        with torch.no_grad():
            return self.maps(to_float(images))

    def maps(self, x: Tensor) -> Tensor:
        """Features of float pictures, differentiable.

        Args:
            x: (B, 3, S, S) in [-1, 1], any floating-point dtype; S is 16 or more.

        Returns:
            float32, (B, width).

        Raises:
            ConfigError: The pictures are not square, not RGB or below 16 pixels.
        """
        y = _opponent(_resized(x.float()))
        parts = [_cells(y[:, :1], _LUMA_CELLS), _cells(y[:, 1:], _CELLS)]
        magnitudes: list[Tensor] = []  # of brightness, (B, 4, H, W), one an octave so far
        for _ in range(OCTAVES):
            band = self._band(y)
            luma, colour = band[:, 0], band[:, 1:].mean(2)
            parts += [_energy(luma, _CELLS), _energy(colour, _CELLS // 2)]
            # Finer magnitudes, brought down to this octave, are pictures as good as any.
            magnitudes = [self._half(m) for m in magnitudes]
            parts += [_energy(self._band(m).flatten(1, 2), 1) for m in magnitudes]
            magnitudes.append(luma)
            y = self._half(y)
        return torch.cat(parts, dim=1)

    def _band(self, x: Tensor) -> Tensor:
        """|x * psi| in one octave: (B, C, H, W) to (B, C, orientations, H, W)."""
        planes = F.pad(x.flatten(0, 1)[:, None], (_REACH,) * 4, mode="replicate")
        parts = F.conv2d(planes, self.filters)
        parts = parts.view(*x.shape[:2], ORIENTATIONS, 2, *x.shape[2:])
        return (parts.square().sum(3) + _FLOOR**2).sqrt()

    def _half(self, x: Tensor) -> Tensor:
        """Smoothed and every second pixel: (B, C, H, W) to (B, C, H / 2, W / 2)."""
        weight = self.smooth.expand(x.shape[1], 1, -1, -1)
        padded = F.pad(x, (3, 3, 3, 3), mode="replicate")
        return F.conv2d(padded, weight, stride=2, groups=x.shape[1])


def _morlets() -> Tensor:
    """Morlet wavelets: a plane wave under a Gaussian, less its mean.

    Centre frequency 3 pi / 4, as in Bruna & Mallat (2013, sec. 2.1), under an envelope of one
    pixel's standard deviation, which keeps octaves apart better than their 0.8.  Each answers a
    cosine of its own kind, amplitude 1, with magnitude 1.

    Returns:
        float32, (2 * orientations, 1, 7, 7): real and imaginary part of each.
    """
    axis = torch.arange(-_REACH, _REACH + 1, dtype=torch.float64)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    envelope = torch.exp(-(u**2 + v**2) / 2)
    envelope = envelope / envelope.sum()
    kernels = []
    for k in range(ORIENTATIONS):
        angle = math.pi * k / ORIENTATIONS
        phase = 0.75 * math.pi * (u * math.cos(angle) + v * math.sin(angle))
        wave = torch.polar(torch.ones_like(phase), phase)
        psi = envelope * (wave - (envelope * wave).sum())
        psi = 2 * psi / (psi * wave.conj()).sum().abs()
        kernels += [psi.real, psi.imag]
    return torch.stack(kernels)[:, None].float()


def _opponent(x: Tensor) -> Tensor:
    """RGB to brightness, blue less yellow and red less green: each in [-1, 1], (B, 3, H, W)."""
    red, green, blue = x.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack([luma, (blue - (red + green) / 2) / 2, (red - green) / 2], dim=1)


def _resized(x: Tensor) -> Tensor:
    """(B, 3, S, S) to the largest of SIDES that is not above S."""
    if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] != x.shape[3] or x.shape[2] < SIDES[-1]:
        raise ConfigError(
            f"Wavelet features take square RGB pictures of {SIDES[-1]} pixels or more, and these "
            f"are of shape {tuple(x.shape[1:])}: resize them."
        )
    side = next(s for s in SIDES if s <= x.shape[2])
    if side == x.shape[2]:
        return x
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True)


def _cells(x: Tensor, cells: int) -> Tensor:
    """Means over a grid: (B, C, H, W) to (B, C * cells^2)."""
    return F.avg_pool2d(x, x.shape[2] // cells).flatten(1)


def _energy(x: Tensor, cells: int) -> Tensor:
    """Logarithm of magnitudes averaged over a grid; arguments as of `_cells`."""
    return _cells(x, cells).log()
