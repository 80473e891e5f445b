"""What networks are made of: norms, branches that start as nothing, the residual block.

Shape letters: B batch, C channels, H and W height and width, E embedding width.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kao.networks.dropout import Dropout

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def group_norm(channels: int, groups: int, *, eps: float = 1e-5) -> nn.GroupNorm:
    """GroupNorm with `groups` groups, or as many as leave two channels or more in each.

    A group of one channel would subtract whatever is added to that channel as a whole, and a
    noise level that is added before the norm would be lost.

    Args:
        channels: Even.
        groups: At most so many; a power of two.
        eps: Added to variances.
    """
    return nn.GroupNorm(min(math.gcd(groups, channels), channels // 2), channels, eps=eps)


def zeroed(module: Layer) -> Layer:
    """The same module with weights and bias at zero: the branch it ends starts as nothing."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


def added(x: Tensor, h: Tensor, scale: float) -> Tensor:
    """(x + h) * scale: a branch put back onto its skip.

    With scale = sqrt(1/2) the sum of two independent maps of variance 1 has variance 1 again
    (Song et al. 2021b, appendix H).
    """
    total = x + h
    return total if scale == 1 else total * scale


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, with the noise level in between, around a skip.

    Ho et al. (2020), appendix B; with `film`, the level scales and shifts the second norm
    (Perez et al. 2018; Dhariwal & Nichol 2021, "AdaGN"); with `resample`, both branches change
    size inside the block (Brock et al. 2019, BigGAN; Song et al. 2021b).

    Args:
        inputs, outputs: Channels.
        embedding: Width of the level's embedding.
        dropout: Share of activations dropped before the second convolution, 0..1.
        groups: Groups of the norms, at most.
        film: Scale and shift the second norm instead of adding to its input.
        resample: Module that halves or doubles the size in both branches, without parameters.
        projected: Give the skip a 1 x 1 convolution where its channels stay as many, too.
        eps: Added to variances in the norms.
        skip_scale: What the sum of skip and branch is multiplied by.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        embedding: int,
        dropout: float,
        groups: int,
        film: bool,
        resample: nn.Module | None = None,
        projected: bool = False,
        eps: float = 1e-5,
        skip_scale: float = 1.0,
    ):
        super().__init__()
        self.norm_in = group_norm(inputs, groups, eps=eps)
        self.resample = resample if resample is not None else nn.Identity()
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.level = nn.Linear(embedding, 2 * outputs if film else outputs)
        self.norm_out = group_norm(outputs, groups, eps=eps)
        self.dropout = Dropout(dropout)
        self.conv_out = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        changed = projected or inputs != outputs
        self.skip = nn.Conv2d(inputs, outputs, 1) if changed else nn.Identity()
        self.film, self.skip_scale = film, skip_scale

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, inputs, H, W) and (B, E) to (B, outputs, H', W')."""
        h = self.conv_in(self.resample(F.silu(self.norm_in(x))))
        level = self.level(embedding)[:, :, None, None]
        if self.film:
            scale, shift = level.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm_out(h), 1 + scale)
        else:
            h = self.norm_out(h + level)
        h = self.conv_out(self.dropout(F.silu(h)))
        return added(self.skip(self.resample(x)), h, self.skip_scale)
