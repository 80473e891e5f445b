"""Where the tokens of a picture lie, as numbers, as sines and cosines, or as rotations.

A position is counted in patches of the picture that a network was built for, x to the right and
then y downwards, from the centre of the first patch at 0.  A picture of another size is taken for
the same picture at another resolution: its patches lie between the same borders.

Shape letters: B batch (1 where all pictures are alike), N = h w tokens, row by row, K heads,
D width of a head.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_SINCOS_BASE = 10_000.0

_ROTARY_BASE = 100.0
"""Turns fall from 1 radian a patch to about a hundredth: pictures have tens of patches a side where
texts have thousands of words (Heo et al. 2024)."""


def places(height: int, width: int, *, of: int, device: torch.device | None = None) -> Tensor:
    """Positions of the tokens of a whole picture.

    Args:
        height: Of the map of tokens.
        width: Of the map of tokens.
        of: Patches along a side of the picture that the network was built for; at this size the
            positions are whole numbers.
        device: Where to make them; None: the default device.

    Returns:
        float32, (1, N, 2), x and then y.
    """
    x = (torch.arange(width, device=device) + 0.5) * (of / width) - 0.5
    y = (torch.arange(height, device=device) + 0.5) * (of / height) - 0.5
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1).reshape(
        1, height * width, 2
    )


def places_told(where: Tensor, *, patch: int, of: int) -> Tensor:
    """Positions of the tokens of parts of pictures, from the coordinates of their pixels.

    Args:
        where: As in `Conditions`, (B, 2, H, W), of pixel centres; -1 to 1 over the whole picture.
        patch: Side of a patch, pixels.
        of: As in `places`, which it agrees with on whole pictures.

    Returns:
        float32, (B, N, 2), x and then y.
    """
    centres = F.avg_pool2d(where.float(), patch).flatten(2).mT
    return (centres + 1) * (of / 2) - 0.5


def sincos(positions_BN2: Tensor, width: int) -> Tensor:
    """The position embedding of Peebles & Xie (2023), after Vaswani et al. (2017, sec. 3.5).

    Frequencies fall from 1 towards 1/10000, for x as for y.

    Args:
        positions_BN2: From `places`.
        width: A multiple of 4.

    Returns:
        float32, (B, N, width): sines and cosines of x, then those of y.
    """
    angle = _angles(positions_BN2, width // 4, base=_SINCOS_BASE)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(2)


def rotation(positions_BN2: Tensor, width: int) -> Tensor:
    """How the numbers of a head turn at each position, for `rotated`.

    Half of the pairs turn with x and half with y (Heo et al. 2024, "axial").

    Args:
        positions_BN2: From `places`.
        width: Of a head, D; a multiple of 4.

    Returns:
        float32, (2, B, 1, N, D / 2): cosines and sines.
    """
    angle = _angles(positions_BN2, width // 4, base=_ROTARY_BASE).flatten(2)[:, None]
    return torch.stack([angle.cos(), angle.sin()])


def rotated(x_BKND: Tensor, turn: Tensor) -> Tensor:
    """Turn each pair of numbers by the angle of its position (Su et al. 2021, eq. 15).

    The product of a turned query and a turned key depends on where they lie to each other alone.

    Args:
        x_BKND: Queries or keys; number i of a head pairs with number i + D / 2.
        turn: From `rotation`.

    Returns:
        (B, K, N, D), in the dtype of `x_BKND`.
    """
    cos, sin = turn
    first, second = x_BKND.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(x_BKND.dtype)


def _angles(values: Tensor, count: int, *, base: float) -> Tensor:
    """Numbers times `count` frequencies that fall from 1; (...) -> (..., count)."""
    exponent = torch.arange(count, device=values.device, dtype=torch.float32) / count
    return values[..., None] * torch.exp(-math.log(base) * exponent)
