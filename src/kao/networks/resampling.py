"""Halving and doubling feature maps: with a convolution, or without parameters.

Two filters: "box", which averages 2 x 2 pixels on the way down and repeats them on the way up, and
"fir", the separable binomial filter [1, 3, 3, 1], which aliases less (Zhang 2019; Karras et al.
2020a; NCSN++ of Song et al. 2021b).  Both keep the mean of a map but for its edges, outside of
which "fir" sees zeros.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Filter = Literal["box", "fir"]

_TAPS = (1.0, 3.0, 3.0, 1.0)


def _kernel() -> Tensor:
    """The filter in two dimensions, (1, 1, 4, 4), of sum 1."""
    taps = torch.tensor(_TAPS) / sum(_TAPS)
    return torch.outer(taps, taps)[None, None]


class FIRDown(nn.Module):
    """Filter with [1, 3, 3, 1] and keep every second pixel of every second row.

    Args:
        padding: Zeros put around the map, pixels: 1 gives half the size.
    """

    kernel: Tensor

    def __init__(self, *, padding: int = 1):
        super().__init__()
        self.padding = padding
        # A constant, so no part of the state dict.
        self.register_buffer("kernel", _kernel(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H / 2 + padding - 1, W / 2 + padding - 1)."""
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv2d(x, kernel, stride=2, padding=self.padding, groups=channels)


class FIRUp(nn.Module):
    """Put zeros between pixels and rows, and filter with [1, 3, 3, 1], four times as strong."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", 4 * _kernel(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


def halving(filter: Filter) -> nn.Module:
    """A module without parameters from (B, C, H, W) to (B, C, H / 2, W / 2)."""
    return FIRDown() if filter == "fir" else nn.AvgPool2d(2)


def doubling(filter: Filter) -> nn.Module:
    """A module without parameters from (B, C, H, W) to (B, C, 2H, 2W)."""
    return FIRUp() if filter == "fir" else nn.Upsample(scale_factor=2, mode="nearest")


def halving_conv(channels: int, *, right: bool) -> nn.Module:
    """A 3 x 3 convolution at every second pixel of every second row.

    Args:
        channels: In and out.
        right: Pad right and below only, as TensorFlow's "SAME" did in the networks of Ho et al.
            (2020); otherwise on all sides.
    """
    if right:
        return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
    return nn.Conv2d(channels, channels, 3, stride=2, padding=1)


def doubling_conv(channels: int) -> nn.Module:
    """Each pixel repeated 2 x 2 times, then a 3 x 3 convolution."""
    double = nn.Upsample(scale_factor=2, mode="nearest")
    return nn.Sequential(double, nn.Conv2d(channels, channels, 3, padding=1))


def filtered_conv(inputs: int, outputs: int, filter: Filter) -> nn.Module:
    """A 3 x 3 convolution, then the filter at every second pixel of every second row.

    All padding comes before the convolution, so that both together are one larger kernel with a
    stride of 2 (Karras et al. 2020a).

    Args:
        inputs: Channels in.
        outputs: Channels out.
        filter: "box" or "fir".
    """
    if filter == "fir":
        conv = nn.Conv2d(inputs, outputs, 3, padding=2)
        return nn.Sequential(conv, FIRDown(padding=0))
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.AvgPool2d(2))
