"""Damage to drawn pictures, which the bundled feature network learns to tell by kind and level.

Each takes pictures (N, 3, 32, 32) in [-1, 1] and levels (N, 1, 1, 1) in 0..1.  They are not the
corruptions of `kao.metrics.corruptions`, by which the network is judged, but akin to them.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kao.metrics.spaces.faces import SIDE

Damage = Callable[[Tensor, Tensor, Generator], Tensor]


def white_noise(x: Tensor, level: Tensor, generator: Generator) -> Tensor:
    """Gaussian, up to a standard deviation of 0.6."""
    return x + 0.6 * level * torch.randn(x.shape, generator=generator)


def blotches(x: Tensor, level: Tensor, generator: Generator) -> Tensor:
    """Smooth Gaussian noise, of 4 x 4 or 8 x 8 cells."""
    side = 4 * int(torch.randint(1, 3, (), generator=generator))
    cells = torch.randn(len(x), 3, side, side, generator=generator)
    return x + 0.5 * level * F.interpolate(cells, SIDE, mode="bilinear")


def blurred(x: Tensor, level: Tensor, generator: Generator) -> Tensor:
    """Gaussian, up to a standard deviation of 4 pixels."""
    taps = torch.arange(-9.0, 10)
    kernel = torch.exp(-((taps / (0.2 + 3.8 * level)) ** 2) / 2)
    kernel = (kernel / kernel.sum(-1, keepdim=True)).repeat_interleave(3, dim=0)
    planes = F.pad(x, (9,) * 4, mode="replicate").reshape(1, -1, SIDE + 18, SIDE + 18)
    planes = F.conv2d(F.conv2d(planes, kernel, groups=3 * len(x)), kernel.mT, groups=3 * len(x))
    return planes.view_as(x)


def sharpened(x: Tensor, level: Tensor, generator: Generator) -> Tensor:
    """What a blur would take away, added up to three times."""
    return x + 3 * level * (x - F.avg_pool2d(F.pad(x, (1,) * 4, mode="replicate"), 3, 1))


def pixelated(x: Tensor, level: Tensor, generator: Generator) -> Tensor:
    """Fades into blocks of 2 x 2 or 4 x 4 pixels."""
    side = 2 * int(torch.randint(1, 3, (), generator=generator))
    return torch.lerp(x, F.interpolate(F.avg_pool2d(x, side), SIDE), level)


def shuffled(x: Tensor, level: Tensor, generator: Generator) -> Tensor:
    """A share of the patches of a grid of 2 x 2, 4 x 4 or 8 x 8 in other places."""
    cells = 2 ** int(torch.randint(1, 4, (), generator=generator))
    side, n = SIDE // cells, len(x)
    patches = F.unfold(x, side, stride=side)  # (N, 3 side^2, cells^2)
    order = torch.rand(n, cells**2, generator=generator)
    chosen = order < level.view(n, 1)
    # The chosen ones in a random order, in the places of the chosen ones in their own order.
    places = torch.where(chosen, torch.arange(cells**2).expand(n, -1), cells**2).sort(1).values
    source = torch.where(chosen, order, 2.0).argsort(1)
    index = torch.arange(cells**2).repeat(n, 1)
    index = torch.cat([index, index[:, :1]], 1).scatter(1, places, source)[:, :-1]
    moved = patches.gather(2, index[:, None].expand_as(patches))
    return F.fold(moved, (SIDE, SIDE), side, stride=side)


def cast(x: Tensor, level: Tensor, generator: Generator) -> Tensor:
    """One colour added everywhere."""
    return x + level * uniform((len(x), 3, 1, 1), -0.8, 0.8, generator)


def pale(x: Tensor, level: Tensor, generator: Generator) -> Tensor:
    """Less contrast, to a fifth."""
    mean = x.mean((1, 2, 3), keepdim=True)
    return torch.lerp(x, mean, 0.8 * level)


def blended(x: Tensor, level: Tensor, generator: Generator) -> Tensor:
    """Faded into another picture, by up to a half."""
    return torch.lerp(x, x.roll(1, 0), level / 2)


def joined(x: Tensor, level: Tensor, generator: Generator) -> Tensor:
    """Beyond a line through it, another picture."""
    axis = torch.linspace(-1, 1, SIDE)
    angle = uniform((len(x), 1, 1, 1), 0, 2 * math.pi, generator)
    along = angle.cos() * axis + angle.sin() * axis[:, None]
    return torch.where(along > 1 - level, x.roll(1, 0), x)


def warped(x: Tensor, level: Tensor, generator: Generator) -> Tensor:
    """Pulled about smoothly, by some pixels."""
    pull = 0.2 * level * torch.randn(len(x), 2, 5, 5, generator=generator)
    pull = F.interpolate(pull, SIDE, mode="bicubic").permute(0, 2, 3, 1)
    still = F.affine_grid(
        torch.eye(2, 3).expand(len(x), -1, -1), list(x.shape), align_corners=False
    )
    return F.grid_sample(x, still + pull, padding_mode="reflection", align_corners=False)


DAMAGES: tuple[Damage, ...] = (
    blended,
    joined,
    shuffled,
    warped,
    pixelated,
    blurred,
    sharpened,
    pale,
    cast,
    blotches,
    white_noise,
)
"""In the order in which they are done to a picture."""


def damaged(x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Pictures with about one damage each, many with none, and the level of each kind, (N, 11)."""
    levels = torch.rand(len(x), len(DAMAGES), generator=generator)
    done = torch.rand(levels.shape, generator=generator) < 0.09
    levels = levels * done
    for k, damage in enumerate(DAMAGES):
        rows = done[:, k].nonzero().flatten()
        if len(rows):
            spoilt = damage(x[rows], levels[rows, k].view(-1, 1, 1, 1), generator)
            x = x.index_copy(0, rows, spoilt.clamp(-1, 1))
    return x, levels


def uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    """Random numbers, each as likely as any other between low and high."""
    return low + (high - low) * torch.rand(shape, generator=generator)
