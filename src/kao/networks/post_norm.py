"""Blocks that put the norm behind the convolution, whose weights may be standardised.

Shape letters: B batch, C channels, H and W height and width, E embedding width.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kao.networks.dropout import Dropout
from kao.networks.layers import group_norm
from kao.networks.linear_attention import ChannelNorm, MapAttention

Down = Literal["unshuffle", "conv"]

_EPSILON = 1e-5


def standardised_weight(weight: Tensor) -> Tensor:
    """A kernel with mean 0 and variance 1 for each output channel (Qiao et al. 2019, eq. 4-6).

    Args:
        weight: (out, in, k, k).

    Returns:
        The same shape, float32.
    """
    variance, mean = torch.var_mean(weight.float(), dim=(1, 2, 3), correction=0, keepdim=True)
    return (weight - mean) * (variance + _EPSILON).rsqrt()


class StandardisedConv(nn.Module):
    """A 3x3 convolution with its weights standardised before each use.

    Args:
        inputs, outputs: Channels.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        plain = nn.Conv2d(inputs, outputs, 3)
        self.weight, self.bias = plain.weight, plain.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        return F.conv2d(x, standardised_weight(self.weight), self.bias, padding=1)


class PostNormBlock(nn.Module):
    """Convolution, norm, SiLU, twice, around a skip; the noise level scales and shifts the first.

    Args:
        inputs, outputs: Channels.
        embedding: Width of the level's embedding.
        dropout: Share of activations dropped before the second convolution, 0..1.
        groups: Groups of the norms, at most; 0: the norms are over the channels ("rms").
        standardised: Whether the convolutions are of `StandardisedConv`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        embedding: int,
        dropout: float,
        groups: int,
        standardised: bool,
    ):
        super().__init__()

        def conv(inputs: int) -> nn.Module:
            if standardised:
                return StandardisedConv(inputs, outputs)
            return nn.Conv2d(inputs, outputs, 3, padding=1)

        def norm() -> nn.Module:
            return group_norm(outputs, groups) if groups else ChannelNorm(outputs, "rms")

        self.level = nn.Linear(embedding, 2 * outputs)
        self.conv_in, self.norm_in = conv(inputs), norm()
        self.dropout = Dropout(dropout)
        self.conv_out, self.norm_out = conv(outputs), norm()
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, inputs, H, W) and (B, E) to (B, outputs, H, W)."""
        scale, shift = self.level(embedding)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm_in(self.conv_in(x)), 1 + scale)
        h = self.conv_out(self.dropout(F.silu(h)))
        return self.skip(x) + F.silu(self.norm_out(h))


class LinearStage(nn.Module):
    """A block, and attention or nothing behind it.

    Args:
        block: The block.
        attention: Applied after it; None: nothing is.
    """

    def __init__(self, block: PostNormBlock, attention: MapAttention | None = None):
        super().__init__()
        self.block = block
        self.attention = attention if attention is not None else nn.Identity()

    def forward(self, h: Tensor, embedding: Tensor, kept: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W), (B, E) and, where it joins, (B, C', H, W) to (B, C'', H, W)."""
        if kept is not None:
            h = torch.cat([h, kept], dim=1)
        return self.attention(self.block(h, embedding))


class Halve(nn.Module):
    """Half the size, rounded up.

    Args:
        inputs, outputs: Channels.
        down: "unshuffle": 2x2 pixels into channels, then a 1x1 convolution; "conv": a 4x4
            convolution of stride 2.
    """

    def __init__(self, inputs: int, outputs: int, down: Down):
        super().__init__()
        self.fold = 2 if down == "unshuffle" else 1
        if down == "unshuffle":
            self.conv = nn.Conv2d(4 * inputs, outputs, 1)
        else:
            self.conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, ceil(H / 2), ceil(W / 2))."""
        odd = (0, h.shape[3] % 2, 0, h.shape[2] % 2)
        if any(odd):
            h = F.pad(h, odd, mode="replicate")
        return self.conv(F.pixel_unshuffle(h, self.fold))


class Double(nn.Module):
    """Each pixel four times, cut to the size of another map, then a 3x3 convolution.

    Args:
        inputs, outputs: Channels.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, h: Tensor, like: Tensor) -> Tensor:
        """Map (B, inputs, ceil(H / 2), ceil(W / 2)) and (B, C, H, W) to (B, outputs, H, W)."""
        H, W = like.shape[2:]
        return self.conv(F.interpolate(h, scale_factor=2.0, mode="nearest")[:, :, :H, :W])
