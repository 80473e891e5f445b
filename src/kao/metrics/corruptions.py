"""Graded damage to a set of pictures: what a metric must rank if it is to be trusted.

Each corruption takes pictures, a level and a generator.  Level 0 gives the pictures back as they
are, bit for bit; level 1 is gross; between, damage grows.  Random choices do not depend on the
level, so with a generator of the same seed a higher level does more of the same: the noise of a
picture is scaled, further patches are swapped, further modes are dropped.  Lengths are shares of a
picture's side, so a level looks alike at every size.

    spoilt = CORRUPTIONS["blur"](images, 0.5, torch.Generator().manual_seed(0))
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from kao.errors import ConfigError, DataError
from kao.pixels import to_float, to_uint8

Corruption = Callable[[Tensor, float, torch.Generator], Tensor]
"""Pictures uint8 (N, 3, S, S), level 0..1 and a CPU generator, to as many damaged ones."""

_STD = 0.8  # of the noise at level 1, in units of [-1, 1]
_SIGMA = 0.125  # of the blur at level 1, in sides of the picture
_CAST = (0.6, 0.0, -0.6)  # added to red, green and blue at level 1, in units of [-1, 1]
_GRID = 4  # a side of the grid of patches, and of the thumbnail that modes are told by
_MODES = 16
_ROUNDS = 10  # of k-means


def noise(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """White Gaussian noise of standard deviation 102 `level`, in grey levels of 255."""
    x = to_float(_checked(images, level))
    return to_uint8(x + _STD * level * torch.randn(x.shape, generator=generator).to(x))


def blur(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """A Gaussian blur of standard deviation `level` / 8 sides; nothing in it is random."""
    x = to_float(_checked(images, level))
    sigma = _SIGMA * level * x.shape[-1]
    # Below this the nearest pixel would weigh less than rounding to bytes shows.
    if sigma < 0.1:
        return images
    reach = math.ceil(3 * sigma)
    taps = torch.arange(-reach, reach + 1).to(x)
    kernel = torch.exp(-((taps / sigma) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    x = F.conv2d(F.pad(x, (reach,) * 4, mode="replicate"), kernel, groups=3)
    return to_uint8(F.conv2d(x, kernel.mT, groups=3))


def patches_swapped(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """A share `level` of a grid of 4 x 4 patches swapped in pairs, each within its picture."""
    n, _, height, width = _checked(images, level).shape
    pairs = round(level * _GRID**2 / 2)
    # First and second of each pair, of disjoint pairs: a random order, cut in two.
    order = torch.rand(n, _GRID**2, generator=generator).argsort(1)
    first, second = (part[:, :pairs] for part in order.chunk(2, dim=1))
    source = torch.arange(_GRID**2).repeat(n, 1)
    source = source.scatter(1, first, second).scatter(1, second, first).to(images.device)
    # What does not divide into the grid stays at the right and lower border.
    tall, wide = height // _GRID, width // _GRID
    inner = images[:, :, : tall * _GRID, : wide * _GRID]
    patches = inner.reshape(n, 3, _GRID, tall, _GRID, wide).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    moved = patches[torch.arange(n, device=images.device)[:, None], source]
    moved = moved.view(n, _GRID, _GRID, 3, tall, wide).permute(0, 3, 1, 4, 2, 5)
    spoilt = images.clone()
    spoilt[:, :, : tall * _GRID, : wide * _GRID] = moved.reshape(inner.shape)
    return spoilt


def colour_shift(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """One cast for all pictures: red up and blue down by 77 `level` grey levels of 255.

    Nothing in it is random.
    """
    x = to_float(_checked(images, level))
    return to_uint8(x + level * torch.tensor(_CAST).to(x)[:, None, None])


def mode_dropping(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Pictures of a share `level` of 16 modes are replaced by repeated ones of the others.

    Modes are clusters of k-means (Lloyd 1982) on thumbnails of 4 x 4 pixels.  One of them, chosen
    at random, is all that is left at level 1; those furthest from it go first, as when a model
    settles on what it draws best.  A picture that is not replaced keeps its place.
    """
    modes, centres = _clusters(_checked(images, level), generator)
    count = len(centres)
    last = int(torch.randint(count, (), generator=generator))
    # Of each mode, how near it is to the last: 0, 1, ...
    rank = (centres - centres[last]).square().sum(1).argsort().argsort()
    chance = torch.rand(len(images), generator=generator)
    kept = rank[modes] < max(1, count - round(level * count))
    stays = kept.nonzero().flatten()
    source = torch.where(kept, torch.arange(len(images)), stays[(chance * len(stays)).long()])
    return images[source.to(images.device)]


def faces_blended(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Each picture fades into another: weight `level` / 2 of it, both alike at level 1."""
    x = to_float(_checked(images, level))
    _, other = _partners(len(images), generator)
    return to_uint8(torch.lerp(x, x[other.to(x.device)], level / 2))


def faces_joined(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """A share `level` of the pictures have another's right half."""
    order, other = _partners(len(_checked(images, level)), generator)
    chosen = order[: round(level * len(images))].to(images.device)
    half = images.shape[-1] // 2
    spoilt = images.clone()
    spoilt[chosen, :, :, half:] = images[other.to(images.device)[chosen], :, :, half:]
    return spoilt


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": noise,
    "blur": blur,
    "patches swapped": patches_swapped,
    "colour shift": colour_shift,
    "mode dropping": mode_dropping,
    "two faces blended": faces_blended,
    "two faces joined": faces_joined,
}
"""Corruptions by name."""


def _checked(images: Tensor, level: float) -> Tensor:
    """`images`, if they and the level are what a corruption takes."""
    if not 0 <= level <= 1:
        raise ConfigError(
            f"The level of a corruption is within 0 and 1 and got {level}: choose another."
        )
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise DataError(
            f"Corruptions take uint8 pictures of shape (N, 3, H, W) and got {images.dtype} of "
            f"shape {tuple(images.shape)}: bring them to bytes first."
        )
    if len(images) < 2 or min(images.shape[2:]) < _GRID:
        raise DataError(
            f"Corruptions take two or more pictures of {_GRID} pixels or more and got shape "
            f"{tuple(images.shape)}: give a larger set."
        )
    return images


def _partners(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random order of n pictures, and of each picture another: (n,), (n,)."""
    order = torch.randperm(n, generator=generator)
    return order, torch.empty_like(order).scatter(0, order, order.roll(1))


def _clusters(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """K-means on thumbnails: the mode of each picture, (N,), and the modes' centres, (modes, 48).

    Both on the CPU; modes are numbered from 0, and each has a picture.
    """
    thumbs = F.adaptive_avg_pool2d(to_float(images.cpu()), _GRID).flatten(1)
    lot = torch.randperm(len(images), generator=generator)
    centres = thumbs[lot[:_MODES]]
    for _ in range(_ROUNDS):
        nearest = torch.cdist(thumbs, centres).argmin(1)
        # A centre that nobody is near to goes; there may be fewer modes than asked for.
        nearest = torch.unique(nearest, return_inverse=True)[1]
        centres = torch.stack([thumbs[nearest == k].mean(0) for k in range(int(nearest.max()) + 1)])
    return nearest, centres
