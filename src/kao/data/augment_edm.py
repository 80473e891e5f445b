"""EDM's non-leaking augmentation: one warp a picture, and a label that tells the network of it.

A small set of faces is soon known by heart.  Turned, shifted and scaled faces are harder to
learn by heart, but a network that is shown them draws them, too.  Here it is told what was done to
each picture: asked with a label of zeros, it draws faces that stand as they did in the set (Karras
et al. 2020b, for GANs; Karras et al. 2022, appendix F.2, for diffusion models).

Each of six transforms is applied with the same probability, 0.12 for small sets as published.
With N standard normal and U uniform, a point p of the picture goes to

    p' = T A R S F p,        p in [-1, 1]^2, x to the right, y downwards,

                                                                        label
    F  mirrored left to right, half of the time                         0      0 or 1
       upside down, half of the time                                    1      0 or 1
    S  scaled by 2^(0.2 a)                    a ~ N                     2      a
    R  turned by b, clockwise                 b ~ U(-pi, pi)            3, 4   cos b - 1, sin b
    A  stretched by 2^(0.2 c) along d,        c ~ N, d = 0 or           5, 6   c cos 2d, c sin 2d
       shrunk by as much across it            d ~ U(-pi, pi), evenly
    T  shifted by e, f eighths of the side    e, f ~ N                  7, 8   e, f

With `data.augment.flip` each picture is mirrored half of the time, as in the paper; without it the
mirror is one transform among the others.

The label determines the warp, so it is all that is drawn.  Karras et al. (2022) give c cos d and
c sin d for 5 and 6, which are the same for a stretch along d and for one across it (-c, d + pi);
with twice the angle they are the coordinates of the stretch's logarithm, and stand for one stretch.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

AUGMENTATIONS = 9
"""Numbers in a label."""

_OCTAVES = 0.2
"""Standard deviation of the logarithms, base 2, of scale and stretch."""

_SHIFT = 2 / 8
"""Standard deviation of a shift: an eighth of the side, which is 2 units long."""


def draw_labels(
    count: int, probability: float, generator: torch.Generator, *, mirrored: Tensor | None = None
) -> Tensor:
    """Draw what is done to each picture.

    Args:
        count: Pictures.
        probability: Of each transform, 0..1.
        generator: On the CPU.
        mirrored: bool, (count,): which pictures are mirrored, where that is decided already.

    Returns:
        float32, (count, 9), on the CPU; zeros where nothing is done.
    """

    def happens(chance: float = probability) -> Tensor:
        return torch.rand(count, generator=generator) < chance

    def normal(columns: int) -> Tensor:
        return torch.randn(columns, count, generator=generator)

    def angle() -> Tensor:
        return math.pi * (2 * torch.rand(count, generator=generator) - 1)

    flips = [mirrored if mirrored is not None else happens() & happens(0.5)]
    flips.append(happens() & happens(0.5))
    scale = normal(1) * happens()
    turn = angle() * happens()
    stretch, along = normal(1) * happens(), 2 * angle() * happens(0.5)
    shift = normal(2) * happens()
    return torch.stack(
        [
            *(flip.float() for flip in flips),
            *scale,
            turn.cos() - 1,
            turn.sin(),
            *(stretch * along.cos()),
            *(stretch * along.sin()),
            *shift,
        ],
        dim=1,
    )


def sources(labels: Tensor) -> Tensor:
    """Where in the mirrored picture each point of the result comes from: inv(T A R S).

    Args:
        labels: float, (B, 9).

    Returns:
        (B, 2, 3), in the labels' dtype: matrices on (x, y, 1), in units of half a side.
    """
    _, _, scale, cos_less_1, sin, plus, cross, *shift = labels.unbind(1)
    cos, rate = cos_less_1 + 1, _OCTAVES * math.log(2)
    turned_back = torch.stack([cos, sin, -sin, cos], 1).reshape(-1, 2, 2)
    # exp(-rate M) for the symmetric M = [[plus, cross], [cross, -plus]], whose square is c^2.
    c = torch.hypot(plus, cross)
    across = -rate * torch.where(c > 0, torch.sinh(rate * c) / (rate * c), 1)
    even = torch.cosh(rate * c)
    slant = across * cross
    rows = [even + across * plus, slant, slant, even - across * plus]
    unstretched = torch.stack(rows, 1).reshape(-1, 2, 2)
    linear = torch.exp2(-_OCTAVES * scale)[:, None, None] * turned_back @ unstretched
    origin = -_SHIFT * linear @ torch.stack(shift, 1)[:, :, None]
    return torch.cat([linear, origin], dim=2)


def warp(images: Tensor, labels: Tensor) -> Tensor:
    """Do to each picture what its label says; beyond a picture's edges lies its reflection.

    Whatever is not only mirrored is resampled once, by cubic convolution (Keys 1981).  That is
    closest to what a picture drawn larger shows: sampled more finely and averaged, pictures come
    out softer, and few are made so small that fine patterns could turn into coarse ones.

    Args:
        images: uint8, (B, 3, S, S).
        labels: float32, (B, 9), on the CPU.

    Returns:
        uint8, (B, 3, S, S), on the images' device; the bytes that came in where a label is zero.
    """
    beside, over = (labels[:, :2] != 0).T.to(images.device)[..., None, None, None]
    images = torch.where(beside, images.flip(-1), images)
    images = torch.where(over, images.flip(-2), images)
    moved = (labels[:, 2:] != 0).any(1).nonzero().flatten()
    if not len(moved):
        return images
    matrices, moved = sources(labels[moved]).to(images.device), moved.to(images.device)
    before = images[moved].float()
    after = F.grid_sample(
        before,
        _points(matrices, images.shape[-1]),
        mode="bicubic",
        padding_mode="reflection",
        align_corners=False,
    )
    return images.index_copy(0, moved, after.round_().clamp_(0, 255).to(torch.uint8))


def _points(matrices: Tensor, size: int) -> Tensor:
    """Where each pixel's centre goes, (B, S, S, 2); `matrices` (B, 2, 3) on (x, y, 1).

    Multiplied and added, and no matrix product: CUDA may round those to the 10 bits of TF32.
    """
    centres = (2 * torch.arange(size, device=matrices.device) + 1) / size - 1
    by_x, by_y, origin = matrices[:, None, None].unbind(-1)
    return by_x * centres[:, None] + by_y * centres[:, None, None] + origin
