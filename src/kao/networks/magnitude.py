"""Layers that keep the magnitude of what passes through them (Karras et al. 2024a).

Magnitude is the root mean square over components.  Of inputs with magnitude 1 that know nothing of
each other, each of these makes outputs with magnitude 1, and keeps doing so in training: a weight
has no length to grow in, only a direction.

Shape letters: B batch, C channels, H and W height and width, E embedding width.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kao.shards import local

_EPSILON = 1e-8
"""Added to mean squares: a weight or a pixel of zeros stays one."""

_TOLERANCE = 1e-5
"""Rows whose magnitude is so near 1 stay as they are: to normalise again changes no bit."""

_SILU = 0.596
"""Magnitude of silu(x) for x of N(0, 1); Karras et al. (2024a), eq. 81."""

_GOLDEN = (math.sqrt(5) - 1) / 2


def unit(x: Tensor, dim: tuple[int, ...]) -> Tensor:
    """The same directions with magnitude 1 along `dim`; zeros stay zeros.

    Args:
        x: Any shape, float.
        dim: Over which the magnitude is taken.

    Returns:
        The same shape and dtype.
    """
    # The squares are added in float32: in fp16 that of 256 is infinite.
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
    components = math.prod(x.shape[d] for d in dim)
    return x * (norm.square() / components + _EPSILON).rsqrt().to(x.dtype)


def pixel_norm(x: Tensor) -> Tensor:
    """Each position with magnitude 1 over its channels (Karras et al. 2018, sec. 4.2)."""
    return unit(x, (1,))


def mp_silu(x: Tensor) -> Tensor:
    """SiLU over its magnitude for normal inputs; Karras et al. (2024a), eq. 81."""
    return F.silu(x) / _SILU


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """A weighted sum of two independent things; Karras et al. (2024a), eq. 88.

    Args:
        a: Any shape.
        b: The same shape.
        t: Share of b, 0..1.
    """
    return a.lerp(b, t) / math.hypot(1 - t, t)


def mp_cat(a: Tensor, b: Tensor) -> Tensor:
    """Channels of a and of b, with an equal say in what follows; Karras et al. (2024a), eq. 103.

    A convolution hears the longer of two lists more; here each is scaled by what it lacks.

    Args:
        a: (B, C, H, W).
        b: (B, C', H, W).

    Returns:
        (B, C + C', H, W).
    """
    mean = (a.shape[1] + b.shape[1]) / 2
    scale_a, scale_b = (math.sqrt(mean / part.shape[1]) for part in (a, b))
    return torch.cat([a * scale_a, b * scale_b], dim=1)


class MPConv(nn.Module):
    """A convolution without bias whose kernels have a direction only.

    Its weight is used as unit(weight) / sqrt(inputs * kernel^2), so that the gradient is tangential
    to it (Karras et al. 2024a, eq. 47); `renormalise` keeps the weight itself at magnitude 1.

    Args:
        inputs, outputs: Channels.
        kernel: Its side, odd.
        gained: Multiply what it says by a learned gain that starts at zero.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, gained: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        # Of one dimension, so that it can be sharded.
        self.gain = nn.Parameter(torch.zeros(1)) if gained else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        weight = unit(self.weight, (1, 2, 3)) / math.sqrt(self.weight[0].numel())
        if self.gain is not None:
            weight = weight * self.gain
        return F.conv2d(x, weight.to(x.dtype), padding=weight.shape[-1] // 2)


class MPLinear(nn.Module):
    """`MPConv` for vectors.

    Args:
        inputs, outputs: Components.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs)."""
        weight = unit(self.weight, (1,)) / math.sqrt(self.weight.shape[1])
        return F.linear(x, weight.to(x.dtype))


class MPFourier(nn.Module):
    """Random cosines of the noise level with magnitude 1; Karras et al. (2024a), eq. 75.

    Published networks draw frequencies from N(0, 1) and phases from one turn.  Here frequencies
    are the quantiles of that law and phases steps of the golden ratio: as spread out, without
    chance.

    Args:
        width: Cosines.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, width: int):
        super().__init__()
        index = torch.arange(width, dtype=torch.float64)
        self.register_buffer("frequencies", torch.special.ndtri((index + 0.5) / width).float())
        self.register_buffer("phases", (index * _GOLDEN).frac().float())

    def forward(self, label: Tensor) -> Tensor:
        """Map (B,), float32, about 0..1000, to (B, width), float32."""
        turns = label[:, None] / 1000 * self.frequencies + self.phases
        return math.sqrt(2) * (2 * math.pi * turns).cos()


def _directions(module: nn.Module) -> Iterator[Tensor]:
    for part in module.modules():
        if isinstance(part, MPConv | MPLinear) and part.weight.requires_grad:
            yield local(part.weight)


@torch.no_grad()
def renormalise(module: nn.Module) -> None:
    """Bring every row of the weights back to magnitude 1 (Karras et al. 2024a, eq. 66).

    It depends on the weights alone, and twice is the same as once to the bit; so a second forward
    pass may come before the backward pass of the first.  Weights that are not trained stay as they
    are.

    Args:
        module: Whose `MPConv` and `MPLinear` are changed in place.
    """
    for weight in _directions(module):
        rest = tuple(range(1, weight.ndim))
        magnitude = weight.square().mean(rest, keepdim=True).sqrt()
        stays = ((magnitude - 1).abs() < _TOLERANCE) | (magnitude == 0)
        # By way of `data` autograd is told of no change: whatever would change what an earlier pass
        # has kept, which is an optimiser's step or weights that are loaded, told it of one itself.
        weight.data.div_(torch.where(stays, 1.0, magnitude))
